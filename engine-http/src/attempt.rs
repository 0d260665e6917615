//! The execution as its handler sees it: number, token, checkpoints.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use std::time::Duration;

use http::{HeaderMap, Response};
use oncekey::{Claim, Key, SharedBytes, Token};
use parking_lot::Mutex;

use crate::policy::Policy;
use crate::recorded::Encoder;

/// The execution that a request is part of. It is in the extensions of every request that runs under an
/// idempotency key.
///
/// ```
/// use oncekey_http::Attempt;
/// # use bytes::Bytes;
/// async fn handler(request: http::Request<Bytes>) -> http::Response<Bytes> {
///     if let Some(attempt) = request.extensions().get::<Attempt>()
///         && attempt.number() > 1
///     {
///         // An earlier attempt may have charged the card already: look before charging again.
///     }
///     http::Response::new(Bytes::new())
/// }
/// ```
#[derive(Clone)]
pub struct Attempt {
    key: Key,
    number: u32,
    token: Token,
    claim: Arc<HeldClaim>,
    /// The attempt whose handler made the request.
    outer: Option<Arc<Attempt>>,
}

impl Attempt {
    /// The number of this attempt, from 1. Above 1, which only [`Recovery::Retry`](crate::Recovery) allows,
    /// the earlier attempts may have taken effect in part.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The last checkpoint that this attempt or an earlier one saved. Each call reads the store and costs as
    /// much as reading a stored response.
    ///
    /// # Errors
    /// When the checkpoint is damaged (which is never reported as no checkpoint), or the execution has ended.
    pub fn checkpoint(&self) -> Result<Option<SharedBytes>, CheckpointError> {
        match &*self.claim.claim.lock() {
            Some(claim) => claim.last_checkpoint().map_err(CheckpointError::Refused),
            None => Err(CheckpointError::Ended),
        }
    }

    /// The fencing token of this execution, for systems downstream.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The idempotency key with its scope.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// An idempotency key for a call to a system downstream, 32 hexadecimal digits. It is the same in every
    /// attempt of this operation, and differs for each scope, key and `step`. An attempt that repeats a call
    /// of an earlier attempt under the same step sends the same key, so a system that knows such keys carries
    /// the call out once.
    ///
    /// The key depends on nothing else: an operation that uses this idempotency key again after its record
    /// expired gets the same downstream keys. So the system downstream must not remember a key for longer
    /// than [`Policy::ttl`](crate::Policy::ttl), or the step must tell the two operations apart.
    ///
    /// ```
    /// # fn handler(attempt: &oncekey_http::Attempt) {
    /// let charge = http::Request::post("https://payments.example/charges")
    ///     .header("Idempotency-Key", attempt.downstream_key("charge"));
    /// # }
    /// ```
    pub fn downstream_key(&self, step: &str) -> String {
        downstream_key(&self.key, step)
    }

    /// Whether this attempt, or one around it, runs under the key.
    pub(crate) fn is_under(&self, key: &Key) -> bool {
        self.key == *key || self.outer.as_ref().is_some_and(|outer| outer.is_under(key))
    }

    /// Saves a recovery point: if this attempt dies, the attempt that takes over gets the last one saved. The
    /// checkpoint is durable when this returns `Ok`. It has at most
    /// [`max_checkpoint`](oncekey::Options::max_checkpoint) bytes.
    ///
    /// # Errors
    /// When the engine refuses the checkpoint, or the execution has ended.
    pub async fn save_checkpoint(&self, data: &[u8]) -> Result<(), CheckpointError> {
        let saved = match &*self.claim.claim.lock() {
            Some(claim) => claim.checkpoint(data),
            None => return Err(CheckpointError::Ended),
        };
        saved.await.map_err(CheckpointError::Refused)
    }
}

/// A claim that was taken out of the layer, to be completed elsewhere.
#[doc(hidden)]
pub struct Taken {
    pub claim: Claim,
    /// The response as the layer stores it; `None` when it is over the limit.
    pub stored: Option<Vec<u8>>,
    pub ttl: Option<Duration>,
}

/// Prints the length of the response.
impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken")
            .field("claim", &self.claim)
            .field("stored", &self.stored.as_ref().map(Vec::len))
            .field("ttl", &self.ttl)
            .finish()
    }
}

/// For crates that complete an execution in a transaction of the handler's own.
#[doc(hidden)]
impl Attempt {
    /// Takes the claim out of the layer; `None` when the execution has ended. Until the claim is given back
    /// the layer does not end it.
    pub fn take<B: AsRef<[u8]>>(&self, response: &Response<B>) -> Option<Taken> {
        let policy = &self.claim.policy;
        let (status, headers) = (response.status(), response.headers());
        let body = response.body().as_ref();
        let (dropped, limit) = (&policy.dropped_headers, policy.max_response);
        let encoder = Encoder::new(status, headers, dropped, body.len() as u64, limit);
        let stored = encoder.and_then(|mut encoder| {
            encoder.push(body).then(|| encoder.finish(&HeaderMap::new()))?
        });
        let ttl = policy.ttl_of(response.extensions());
        let claim = self.claim.claim.lock().take()?;
        Some(Taken { claim, stored, ttl })
    }

    /// Gives the claim back. `completed` says that a committed transaction completed the operation; the layer
    /// then stores nothing.
    pub fn give_back(&self, claim: Claim, completed: bool) {
        self.claim.completed.store(completed, Ordering::Relaxed);
        // The lock is released before the claim of an ended execution is dropped.
        let late = {
            let mut held = self.claim.claim.lock();
            match self.claim.ended.load(Ordering::Relaxed) {
                true => Some(claim),
                false => {
                    *held = Some(claim);
                    None
                }
            }
        };
        drop(late);
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("number", &self.number)
            .field("token", &format_args!("{}", self.token))
            .finish()
    }
}

/// The key is derived with BLAKE3 in its key derivation mode. Each part has its length before it, so that two
/// different lists of parts never give the same input. Systems downstream remember the keys, so the context
/// string must never change.
fn downstream_key(key: &Key, step: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("oncekey-http downstream idempotency key v1");
    for part in [key.scope(), key.key(), step.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Why a checkpoint was not saved, or could not be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The handler has answered already, so there is nothing to recover.
    Ended,
    /// The engine refused the call.
    Refused(oncekey::Error),
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the execution has ended"),
            Self::Refused(_) => f.write_str("the engine refused the checkpoint"),
        }
    }
}

impl std::error::Error for CheckpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ended => None,
            Self::Refused(error) => Some(error),
        }
    }
}

/// A claim that an execution owns and its handler's [`Attempt`]s can see.
struct HeldClaim {
    claim: Mutex<Option<Claim>>,
    /// Whether the handler was called. Until then nothing has happened.
    started: AtomicBool,
    /// Whether a transaction of the handler completed the operation.
    completed: AtomicBool,
    /// Whether the owner is gone; set with the lock held.
    ended: AtomicBool,
    policy: Arc<Policy>,
}

/// The owner of a claim. Dropping it ends the claim, even while [`Attempt`]s are left: the key is free when
/// the handler was never called, else the operation is an orphan.
pub(crate) struct Owner(Arc<HeldClaim>);

impl Owner {
    pub(crate) fn new(
        claim: Claim,
        policy: Arc<Policy>,
        outer: Option<Attempt>,
    ) -> (Self, Attempt) {
        let key = claim.key().clone();
        let number = claim.attempt();
        let token = claim.token();
        let [started, completed, ended] = [false; 3].map(AtomicBool::new);
        let claim = Mutex::new(Some(claim));
        let claim = Arc::new(HeldClaim { claim, started, completed, ended, policy });
        let outer = outer.map(Arc::new);
        (Self(claim.clone()), Attempt { key, number, token, claim, outer })
    }

    /// Takes the claim in order to end it. A claim that is given back later is dropped, which ends it.
    pub(crate) fn take(&self) -> Option<Claim> {
        let mut held = self.0.claim.lock();
        self.0.ended.store(true, Ordering::Relaxed);
        held.take()
    }

    pub(crate) fn holds_claim(&self) -> bool {
        self.0.claim.lock().is_some()
    }

    pub(crate) fn is_completed(&self) -> bool {
        self.0.completed.load(Ordering::Relaxed)
    }

    /// Records that the handler is called now.
    pub(crate) fn start(&self) {
        self.0.started.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_started(&self) -> bool {
        self.0.started.load(Ordering::Relaxed)
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(self.0.clone())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Take the claim first, so that it is dropped with the lock released.
        let Some(claim) = self.take() else { return };
        if self.is_started() {
            drop(claim);
        } else {
            // The abort has started when the call returns; no task is left that could wait for it.
            drop(claim.abort());
        }
    }
}

/// Tells whether a lost execution had called its handler.
pub(crate) struct Watch(Arc<HeldClaim>);

impl Watch {
    pub(crate) fn is_started(&self) -> bool {
        self.0.started.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_was_taken_out_is_printed_without_the_response() {
        let directory = tempfile::tempdir().unwrap();
        let engine = oncekey::Engine::open(directory.path()).unwrap();
        let key = Key::new("", "k").unwrap();
        let begun = engine.begin(&key, oncekey::Fingerprint::builder().finish()).wait();
        let Ok(oncekey::Begin::Claimed(claim)) = begun else { panic!("the key is new: {begun:?}") };
        let taken = Taken { claim, stored: Some(b"PRIVATE".to_vec()), ttl: None };
        let printed = format!("{taken:?}");
        assert!(printed.contains("stored: Some(7)") && !printed.contains("80, 82"), "{printed}");
    }

    /// Systems downstream remember these keys: they must not change with a version of this crate.
    #[test]
    fn a_downstream_key_depends_on_scope_key_and_step_and_never_changes() {
        let of =
            |scope: &str, key: &str, step| downstream_key(&Key::new(scope, key).unwrap(), step);
        assert_eq!(of("tenant-7", "order-1", "charge"), "9c0e956ad34726fbafec206cc69028ff");
        let all = [
            of("tenant-7", "order-1", "charge"),
            of("tenant-7", "order-1", "refund"),
            of("tenant-7", "order-2", "charge"),
            of("tenant-8", "order-1", "charge"),
            of("tenant-7o", "rder-1", "charge"),
            of("tenant-7", "order-1c", "harge"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(one.len(), 32);
            assert!(!all[..index].contains(one));
        }
    }
}
