//! The two handles: a claim executes an operation, an orphan decides about one whose owner is gone.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Time;
use crate::error::{Error, ErrorKind};
use crate::key::{Key, KeyHash};
use crate::pending::Pending;
use crate::shared::Shared;
use crate::transition::{Command, Record, Reply, State, Token};

/// The exclusive right to execute an operation, granted by `begin` or `take_over`.
///
/// Ends by [`complete`](Self::complete), [`abort`](Self::abort), or by being dropped, which makes
/// an orphan at once: the operation may have happened, and nobody says how it ended. A claim that
/// never left its [`Pending`] is aborted instead.
///
/// The claim needs no renewal. It may be sent to another thread.
///
/// A finished claim can not be finished again:
///
/// ```compile_fail
/// # fn f(claim: oncekey::Claim) {
/// claim.abort();
/// claim.complete(b"too late");
/// # }
/// ```
#[must_use = "a claim that is dropped becomes an orphan"]
pub struct Claim {
    handle: Handle,
    /// Whether the caller ever held the claim; before that its operation can not have run.
    delivered: bool,
    /// Whether dropping the claim must tell the engine.
    armed: bool,
}

/// What a claim and an orphan have in common: a key, and the attempt that they stand for.
#[derive(Clone)]
struct Handle {
    shared: Arc<Shared>,
    key: Key,
    hash: KeyHash,
    token: Token,
    attempt: u32,
    checkpoint: Option<Arc<[u8]>>,
}

impl Handle {
    /// `None` when the record is completed, which has no attempt.
    fn new(shared: &Arc<Shared>, hash: KeyHash, record: &Record) -> Option<Self> {
        let attempt = record.attempt()?;
        Some(Self {
            shared: shared.clone(),
            key: record.key.clone(),
            hash,
            token: attempt.token,
            attempt: attempt.number,
            checkpoint: attempt.checkpoint.clone(),
        })
    }

    /// Submits a command that consumes `owner`; a failure that can be tried again gives it back.
    fn finish<T: Send + 'static, H: Owner>(
        self,
        owner: H,
        command: Command,
        answer: impl FnOnce(Option<&Record>) -> Option<T> + Send + 'static,
    ) -> Pending<T, Failed<H>> {
        let (sender, pending) = Pending::channel();
        self.shared.submit(self.key, self.hash, command, move |outcome| {
            let answered = match outcome {
                Err(error) => Err(Failed { error, handle: Some(owner) }),
                Ok((reply, record, _)) => {
                    owner.spent();
                    Some(&reply)
                        .filter(|reply| matches!(reply, Reply::Done | Reply::Claimed))
                        .and_then(|_| answer(record.as_deref()))
                        .ok_or_else(|| Failed { error: refusal(&reply), handle: None })
                }
            };
            // When nobody waits, a claim inside is dropped here.
            drop(sender.send(answered));
        });
        pending
    }
}

/// A handle whose token an answer has used up.
trait Owner: Send + 'static {
    fn spent(self);
}

impl Owner for Claim {
    /// Dropping the claim tells nobody.
    fn spent(mut self) {
        self.armed = false;
    }
}

impl Owner for Orphan {
    fn spent(self) {}
}

fn refusal(reply: &Reply) -> Error {
    let kind = match reply {
        Reply::AlreadyCompleted => ErrorKind::AlreadyCompleted,
        _ => ErrorKind::Fenced,
    };
    Error::new(kind, "")
}

/// How an operation was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    kept: bool,
}

impl Completion {
    /// Whether the response will be replayed; `false` when it was longer than
    /// [`max_response`](crate::Options::max_response), or none was given.
    pub fn response_kept(&self) -> bool {
        self.kept
    }
}

impl Claim {
    pub(crate) fn new(shared: &Arc<Shared>, hash: KeyHash, record: &Record) -> Option<Self> {
        let handle = Handle::new(shared, hash, record)?;
        Some(Self { handle, delivered: false, armed: true })
    }

    /// The key that is claimed.
    pub fn key(&self) -> &Key {
        &self.handle.key
    }

    /// The fencing token, to hand to systems downstream.
    pub fn token(&self) -> Token {
        self.handle.token
    }

    /// Which attempt this is, from 1. Above 1 an earlier attempt may have happened in part.
    pub fn attempt(&self) -> u32 {
        self.handle.attempt
    }

    /// The last checkpoint of the attempts before this one.
    pub fn last_checkpoint(&self) -> Option<&[u8]> {
        self.handle.checkpoint.as_deref()
    }

    /// Ends the operation with its response, which every identical begin gets until the TTL is
    /// over. A response longer than [`max_response`](crate::Options::max_response) is not kept, and
    /// the [`Completion`] says so; the operation is completed all the same.
    ///
    /// Durable when the answer is Ok, whatever the [`Durability`](crate::Durability).
    ///
    /// # Errors
    /// `Fenced` when somebody took over, `AlreadyCompleted` when it was ended otherwise.
    /// `OutcomeUnknown`, `Unavailable`, `StoreFull` and `Closed` give the claim back, so that the
    /// response can be tried again after [`reopen`](crate::Engine::reopen).
    pub fn complete(self, response: &[u8]) -> Pending<Completion, Failed<Claim>> {
        self.complete_with(Some(response), None)
    }

    /// Like [`complete`](Self::complete), with a TTL of its own instead of the store's, and
    /// perhaps without a response to keep (`None`: a begin will be told that it was completed).
    ///
    /// # Errors
    /// Those of [`complete`](Self::complete).
    pub fn complete_with(
        self,
        response: Option<&[u8]>,
        ttl: Option<Duration>,
    ) -> Pending<Completion, Failed<Claim>> {
        let handle = self.handle.clone();
        let command = handle.shared.complete_command(handle.token, response, ttl);
        handle.finish(self, command, completion)
    }

    /// Says that nothing happened in this attempt. The first attempt frees the key; a later one
    /// leaves the orphan that it took over, checkpoint kept, since it can not vouch for the
    /// attempts before it.
    ///
    /// Durable when the answer is Ok.
    ///
    /// # Errors
    /// Those of [`complete`](Self::complete).
    pub fn abort(self) -> Pending<(), Failed<Claim>> {
        let handle = self.handle.clone();
        let command = Command::Abort { token: handle.token };
        handle.finish(self, command, |_| Some(()))
    }

    /// Saves a recovery point: whoever resolves the orphan that this claim may become gets the last
    /// one. At most [`max_checkpoint`](crate::Options::max_checkpoint) bytes.
    ///
    /// Durable when the answer is Ok.
    ///
    /// # Errors
    /// `InvalidInput` when it is too long: the claim is not affected. `Fenced`,
    /// `AlreadyCompleted`, `OutcomeUnknown`, `Unavailable`, `StoreFull`, `Closed`.
    pub fn checkpoint(&self, data: &[u8]) -> Pending<()> {
        let handle = &self.handle;
        if let Err(error) = handle.shared.check_checkpoint(data) {
            return Pending::ready(Err(error));
        }
        let (sender, pending) = Pending::channel();
        let command = Command::Checkpoint { token: handle.token, data: data.into() };
        handle.shared.submit(handle.key.clone(), handle.hash, command, move |outcome| {
            let answered = match outcome {
                Ok((Reply::Done, ..)) => Ok(()),
                Ok((reply, ..)) => Err(refusal(&reply)),
                Err(error) => Err(error),
            };
            drop(sender.send(answered));
        });
        pending
    }

    /// Called when the claim reaches its caller.
    pub(crate) fn delivered(&mut self) {
        self.delivered = true;
    }
}

fn completion(record: Option<&Record>) -> Option<Completion> {
    match &record?.state {
        State::Completed(completed) => Some(Completion { kept: completed.response.is_some() }),
        State::InFlight(_) | State::Orphan { .. } => None,
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let Handle { shared, key, hash, token, .. } = &self.handle;
        let command = if self.delivered {
            Command::OwnerGone { token: *token }
        } else {
            Command::Abort { token: *token }
        };
        shared.submit(key.clone(), *hash, command, |_| {});
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({:?}, attempt {}, {})", self.key(), self.attempt(), self.token())
    }
}

/// An operation whose owner is gone without saying how it ended: its outcome is unknown.
///
/// Resolved by [`take_over`](Self::take_over), [`complete`](Self::complete) or
/// [`release`](Self::release). The handle stands for the attempt that it saw: once somebody else
/// resolved that one, everything here is `Fenced`. Dropping the handle changes nothing.
#[derive(Clone)]
pub struct Orphan {
    handle: Handle,
    since: Time,
    age: Duration,
}

impl Orphan {
    /// `None` when the record does not count as an orphan at `now`.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        hash: KeyHash,
        record: &Record,
        now: Time,
    ) -> Option<Self> {
        let since = record.orphaned_since(now)?;
        Some(Self { handle: Handle::new(shared, hash, record)?, since, age: now.since(since) })
    }

    /// The key of the operation.
    pub fn key(&self) -> &Key {
        &self.handle.key
    }

    /// The token of the attempt that died.
    pub fn token(&self) -> Token {
        self.handle.token
    }

    /// Which attempt died, from 1.
    pub fn attempt(&self) -> u32 {
        self.handle.attempt
    }

    /// The last checkpoint that any attempt saved.
    pub fn last_checkpoint(&self) -> Option<&[u8]> {
        self.handle.checkpoint.as_deref()
    }

    /// Since when the operation is an orphan, in engine time.
    pub fn since(&self) -> SystemTime {
        self.since.to_wall()
    }

    /// How long the operation had been an orphan when this handle was made.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Claims the operation: a new token, one attempt more, the last checkpoint. Whoever takes over
    /// executes what may have happened before: at least once, not exactly once.
    ///
    /// Durable when the answer is Ok.
    ///
    /// # Errors
    /// `Fenced` or `AlreadyCompleted` when the orphan was resolved otherwise; `Overloaded`,
    /// `StoreFull`, `OutcomeUnknown`, `Unavailable`, `Closed`, which give the handle back.
    pub fn take_over(self) -> Pending<Claim, Failed<Orphan>> {
        let handle = self.handle.clone();
        let command = handle.shared.take_over_command(handle.token);
        let (shared, hash) = (handle.shared.clone(), handle.hash);
        handle
            .finish(self, command, move |record| Claim::new(&shared, hash, record?))
            .on_delivery(Claim::delivered)
    }

    /// Ends the operation with a response, for somebody who found out that it happened.
    ///
    /// Durable when the answer is Ok.
    ///
    /// # Errors
    /// `Fenced` or `AlreadyCompleted` when the orphan was resolved otherwise; `OutcomeUnknown`,
    /// `Unavailable`, `StoreFull`, `Closed`, which give the handle back.
    pub fn complete(self, response: &[u8]) -> Pending<Completion, Failed<Orphan>> {
        let handle = self.handle.clone();
        let command = handle.shared.complete_command(handle.token, Some(response), None);
        handle.finish(self, command, completion)
    }

    /// Frees the key, for somebody who found out that the operation did not happen, or who wants it
    /// executed again.
    ///
    /// Durable when the answer is Ok.
    ///
    /// # Errors
    /// Those of [`complete`](Self::complete).
    pub fn release(self) -> Pending<(), Failed<Orphan>> {
        let handle = self.handle.clone();
        let command = Command::Release { token: handle.token };
        handle.finish(self, command, |_| Some(()))
    }
}

impl fmt::Debug for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Orphan({:?}, attempt {}, {})", self.key(), self.attempt(), self.token())
    }
}

/// A failed call on a handle that it consumed, with the handle where the call can be tried again.
pub struct Failed<H> {
    error: Error,
    handle: Option<H>,
}

impl<H> Failed<H> {
    /// What went wrong.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What went wrong, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// The handle, unless the token is spent (`Fenced`, `AlreadyCompleted`).
    pub fn into_handle(self) -> Option<H> {
        self.handle
    }

    /// Both parts.
    pub fn into_parts(self) -> (Error, Option<H>) {
        (self.error, self.handle)
    }
}

impl<H> From<Error> for Failed<H> {
    fn from(error: Error) -> Self {
        Self { error, handle: None }
    }
}

/// Drops the handle: a claim inside becomes an orphan.
impl<H> From<Failed<H>> for Error {
    fn from(failed: Failed<H>) -> Self {
        failed.error
    }
}

impl<H> fmt::Debug for Failed<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl<H> fmt::Display for Failed<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<H> std::error::Error for Failed<H> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}
