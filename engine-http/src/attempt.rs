//! What a handler knows of its execution, and what it can say about it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use oncekey::{Claim, Token};
use parking_lot::Mutex;

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
    number: u32,
    token: Token,
    checkpoint: Option<Bytes>,
    claim: Arc<HeldClaim>,
}

impl Attempt {
    /// Which attempt this is, from 1. Above 1, which only [`Recovery::Retry`](crate::Recovery)
    /// brings about, the attempts before it may have happened in part.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The last checkpoint that an attempt before this one saved.
    pub fn checkpoint(&self) -> Option<&Bytes> {
        self.checkpoint.as_ref()
    }

    /// The fencing token of this execution, to hand to systems downstream.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Saves a recovery point: when this attempt dies, whoever takes over gets the last one. It is
    /// durable when the answer is Ok. At most
    /// [`max_checkpoint`](oncekey::Options::max_checkpoint) bytes.
    ///
    /// # Errors
    /// When the engine refuses it, or the execution has ended.
    pub async fn save_checkpoint(&self, data: &[u8]) -> Result<(), CheckpointError> {
        let saved = match &*self.claim.0.lock() {
            Some(claim) => claim.checkpoint(data),
            None => return Err(CheckpointError::Ended),
        };
        saved.await.map_err(CheckpointError::Refused)
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("number", &self.number)
            .field("token", &format_args!("{}", self.token))
            .field("checkpoint", &self.checkpoint.as_ref().map(Bytes::len))
            .finish()
    }
}

/// Why a checkpoint was not saved.
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
            Self::Refused(_) => f.write_str("the checkpoint was refused"),
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
struct HeldClaim(Mutex<Option<Claim>>);

/// The owner of a claim. Dropping it drops the claim, however many [`Attempt`]s are still around:
/// the operation is an orphan then.
pub(crate) struct Owner(Arc<HeldClaim>);

impl Owner {
    pub(crate) fn new(claim: Claim) -> (Self, Attempt) {
        let number = claim.attempt();
        let token = claim.token();
        let checkpoint = claim.last_checkpoint().map(Bytes::copy_from_slice);
        let claim = Arc::new(HeldClaim(Mutex::new(Some(claim))));
        (Self(claim.clone()), Attempt { number, token, checkpoint, claim })
    }

    /// The claim, which only this owner takes.
    pub(crate) fn take(&self) -> Option<Claim> {
        self.0.0.lock().take()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Taken first, so that the claim is dropped with the lock released.
        let claim = self.take();
        drop(claim);
    }
}

/// Says, in the extensions of a response, that nothing happened: the key is freed, and the next
/// request with it runs the handler.
///
/// Only the first attempt can free a key. A later one ([`Recovery::Retry`](crate::Recovery)) can not
/// vouch for those before it: the outcome stays unknown.
///
/// ```
/// use oncekey_http::NotExecuted;
/// let mut response = http::Response::new("the kitchen is closed");
/// *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
/// response.extensions_mut().insert(NotExecuted);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotExecuted;

/// Says, in the extensions of a response, that it is not to be stored: it is sent as it comes, and a
/// retry is told `idempotency_response_not_stored`. For streams, which would be held back until they
/// end.
///
/// ```
/// let mut response = http::Response::new("line after line");
/// response.extensions_mut().insert(oncekey_http::NotStored);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotStored;
