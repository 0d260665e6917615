//! The execution as its handler sees it: number, token, checkpoints.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use std::time::Duration;

use http::{HeaderMap, Response};
use oncekey::{Claim, Key, SharedBytes, Token};
use parking_lot::Mutex;

use crate::markers::Ttl;
use crate::policy::Policy;
use crate::recorded::Encoder;

/// The execution that a request is part of, in the extensions of every request that runs under an
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
}

impl Attempt {
    /// Which attempt this is, from 1. Above 1, which only [`Recovery::Retry`](crate::Recovery)
    /// brings about, the attempts before it may have happened in part.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The last checkpoint that was saved, by this attempt or one before it. Read from the store when it
    /// is asked for, as fast as a stored response.
    ///
    /// # Errors
    /// When it is damaged, which is never told as none, or the execution has ended.
    pub fn checkpoint(&self) -> Result<Option<SharedBytes>, CheckpointError> {
        match &*self.claim.claim.lock() {
            Some(claim) => claim.last_checkpoint().map_err(CheckpointError::Refused),
            None => Err(CheckpointError::Ended),
        }
    }

    /// The fencing token of this execution, to hand to systems downstream.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The idempotency key with its scope.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// An idempotency key for a call to a system downstream, 32 hexadecimal digits: the same in
    /// every attempt of this operation, another one for each scope, key and `step`. An attempt that
    /// repeats a call of the attempt before it, under the same step, repeats it under the same key,
    /// so that a system that knows such keys carries it out once.
    ///
    /// It depends on nothing else, so an operation that uses this idempotency key again after its
    /// record expired gets the same keys: what is downstream should not remember for longer than
    /// [`Policy::ttl`](crate::Policy::ttl), or the step should name what is new.
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

    /// Saves a recovery point: when this attempt dies, the one who takes over gets the last one. It is
    /// durable when the answer is Ok. At most
    /// [`max_checkpoint`](oncekey::Options::max_checkpoint) bytes.
    ///
    /// # Errors
    /// When the engine refuses it, or the execution has ended.
    pub async fn save_checkpoint(&self, data: &[u8]) -> Result<(), CheckpointError> {
        let saved = match &*self.claim.claim.lock() {
            Some(claim) => claim.checkpoint(data),
            None => return Err(CheckpointError::Ended),
        };
        saved.await.map_err(CheckpointError::Refused)
    }
}

/// Completes an execution elsewhere than in the layer.
#[doc(hidden)]
#[derive(Debug)]
pub struct Taken {
    pub claim: Claim,
    /// The response as the layer stores it; `None` when it is over the limit.
    pub stored: Option<Vec<u8>>,
    pub ttl: Option<Duration>,
}

/// For crates that complete an execution in a transaction of the handler's own.
#[doc(hidden)]
impl Attempt {
    /// Takes the claim out of the layer's hands; `None` when the execution has ended. Until it is returned
    /// the layer ends nothing.
    pub fn take<B: AsRef<[u8]>>(&self, response: &Response<B>) -> Option<Taken> {
        let policy = &self.claim.policy;
        let (status, headers) = (response.status(), response.headers());
        let body = response.body().as_ref();
        let (dropped, limit) = (&policy.dropped_headers, policy.max_response);
        let encoder = Encoder::new(status, headers, dropped, body.len() as u64, limit);
        let stored = encoder.and_then(|mut encoder| {
            encoder.push(body).then(|| encoder.finish(&HeaderMap::new()))?
        });
        let ttl = response.extensions().get::<Ttl>().copied().or(policy.ttl.map(Ttl));
        let claim = self.claim.claim.lock().take()?;
        Some(Taken { claim, stored, ttl: ttl.map(Ttl::in_engine) })
    }

    /// Gives the claim back. `completed`: by a transaction that was committed; the layer stores nothing then.
    pub fn give_back(&self, claim: Claim, completed: bool) {
        self.claim.completed.store(completed, Ordering::Relaxed);
        // Released before the claim of an execution that has ended is dropped.
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

/// Source of the derivation: BLAKE3 in its mode for deriving keys, over length-prefixed parts, so that
/// no two of them run into each other. The context string is part of what clients downstream see.
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
    /// The handler has answered already; there is nothing to recover.
    Ended,
    /// The engine refused it.
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
    /// Whether the handler was called. Until then it is certain that nothing happened.
    started: AtomicBool,
    /// Whether a transaction of the handler's completed it.
    completed: AtomicBool,
    /// Whether the owner is gone; set with the lock held.
    ended: AtomicBool,
    policy: Arc<Policy>,
}

/// The owner of a claim. Dropping it ends the claim, however many [`Attempt`]s are still around: the
/// key is free when the handler was never called, else the operation is an orphan.
pub(crate) struct Owner(Arc<HeldClaim>);

impl Owner {
    pub(crate) fn new(claim: Claim, policy: Arc<Policy>) -> (Self, Attempt) {
        let key = claim.key().clone();
        let number = claim.attempt();
        let token = claim.token();
        let [started, completed, ended] = [false; 3].map(AtomicBool::new);
        let claim = Mutex::new(Some(claim));
        let claim = Arc::new(HeldClaim { claim, started, completed, ended, policy });
        (Self(claim.clone()), Attempt { key, number, token, claim })
    }

    /// The claim, for its end; one that is given back later ends by itself.
    pub(crate) fn take(&self) -> Option<Claim> {
        let mut held = self.0.claim.lock();
        self.0.ended.store(true, Ordering::Relaxed);
        held.take()
    }

    pub(crate) fn is_completed(&self) -> bool {
        self.0.completed.load(Ordering::Relaxed)
    }

    /// Says that the handler is called now.
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
        // Taken first, so that the claim is dropped with the lock released.
        let Some(claim) = self.take() else { return };
        if self.is_started() {
            drop(claim);
        } else {
            // The abort is under way when the call returns; no task is left to wait for it.
            drop(claim.abort());
        }
    }
}

/// Knows of an execution that was lost whether it had started.
pub(crate) struct Watch(Arc<HeldClaim>);

impl Watch {
    pub(crate) fn is_started(&self) -> bool {
        self.0.started.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
