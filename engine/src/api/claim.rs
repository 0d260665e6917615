//! The right to execute an operation.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::api::attempt::{Failed, Handle, Owner, refusal};
use crate::api::pending::Pending;
use crate::backend::Backend;
use crate::backend::MIN_TTL;
use crate::backend::operation::Operation;
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, Result};
use crate::base::range::at_least;
use crate::semantics::command::{Command, Reply};
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::{Record, State};
use crate::semantics::token::Token;

/// The exclusive right to execute an operation, granted by `begin` or `take_over`.
///
/// [`complete`](Self::complete), [`abort`](Self::abort) or a drop ends the claim. A drop makes it
/// an orphan at once, because the operation may have happened. A claim that never left its
/// [`Pending`] is aborted instead.
///
/// The claim needs no renewal. It may be sent to another thread.
///
/// A finished claim cannot be finished again:
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
    /// Whether the caller ever held the claim; before that its operation cannot have run.
    delivered: bool,
    /// Whether dropping the claim must tell the engine.
    armed: bool,
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
    pub(crate) fn new(backend: &Arc<dyn Backend>, hash: KeyHash, record: &Record) -> Option<Self> {
        let handle = Handle::new(backend, hash, record)?;
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

    /// The last checkpoint that was saved for the operation, by this attempt or one before it. The
    /// call reads it from the store and may block.
    ///
    /// # Errors
    /// `Fenced` when another caller took over, `AlreadyCompleted` when the operation was ended otherwise;
    /// `Corrupted`, never `None`, when the checkpoint is damaged; `OutcomeUnknown`, `Overloaded`, `Io`,
    /// `Closed`. The claim is not affected.
    pub fn last_checkpoint(&self) -> Result<Option<SharedBytes>> {
        self.handle.last_checkpoint()
    }

    /// Ends the operation with its response, which every identical begin gets until the TTL is
    /// over. A response longer than [`max_response`](crate::Options::max_response) is not kept, and
    /// the [`Completion`] reports that; the operation is completed all the same.
    ///
    /// Durable when the answer is Ok, whatever the [`Durability`](crate::Durability).
    ///
    /// # Errors
    /// `Fenced` when another caller took over, `AlreadyCompleted` when it was ended otherwise.
    /// `OutcomeUnknown`, `Unavailable`, `StoreFull` and `Closed` give the claim back, so that the
    /// response can be tried again after [`reopen`](crate::Engine::reopen).
    pub fn complete(self, response: &[u8]) -> Pending<Completion, Failed<Claim>> {
        self.complete_with(Some(response), None)
    }

    /// Like [`complete`](Self::complete), with a TTL of its own instead of the store's, and perhaps
    /// without a response: with `None`, a begin learns only that the operation was completed.
    ///
    /// # Errors
    /// Those of [`complete`](Self::complete); `InvalidInput` when the TTL is below 1 ms, which gives
    /// the claim back.
    pub fn complete_with(
        self,
        response: Option<&[u8]>,
        ttl: Option<Duration>,
    ) -> Pending<Completion, Failed<Claim>> {
        if let Err(error) = at_least("ttl", ttl.unwrap_or(MIN_TTL), MIN_TTL) {
            return Pending::ready(Err(Failed::giving_back(error, self)));
        }
        let handle = self.handle.clone();
        let command = handle.complete_command(response, ttl);
        handle.finish(self, command, completion)
    }

    /// Ends the claim when nothing happened in this attempt. The first attempt frees the key. A
    /// later attempt leaves the orphan that it took over, with the checkpoint, because it does not
    /// know the outcome of the attempts before it.
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

    /// Gives the claim up, as a drop does: the outcome of the operation is unknown. Durable when
    /// the answer is Ok, so that this claim makes no later begin `Locked`. A drop returns no
    /// answer.
    ///
    /// ```
    /// # use oncekey::{Begin, Engine, Fingerprint, Key};
    /// # let dir = std::env::temp_dir().join(format!("oncekey-doc-abandon-{}", std::process::id()));
    /// # let engine = Engine::open(&dir)?;
    /// # let key = Key::new("tenant-7", "order-1")?;
    /// # let request = || Fingerprint::builder().part("body", "two of these").finish();
    /// # let Begin::Claimed(claim) = engine.begin(&key, request()).wait()? else { unreachable!() };
    /// // The provider did not answer: make the outcome unknown before the client is told so.
    /// claim.abandon().wait()?;
    /// assert!(matches!(engine.begin(&key, request()).wait()?, Begin::Orphaned(_)));
    /// # drop(engine); std::fs::remove_dir_all(&dir).ok();
    /// # Ok::<(), oncekey::Error>(())
    /// ```
    ///
    /// # Errors
    /// `OutcomeUnknown`, `Unavailable`, `Closed`: the claim counts as an orphan after the next open of an
    /// embedded store, and in a fleet at the end of this instance.
    pub fn abandon(mut self) -> Pending<()> {
        self.armed = false;
        let command = Command::OwnerGone { token: self.handle.token };
        let (op, pending) =
            Pending::asked(self.handle.request(command), |outcome| match outcome? {
                // Another owner resolved it, so this claim does not stand any more, either.
                (Reply::Done | Reply::Fenced | Reply::AlreadyCompleted, ..) => Ok(()),
                (reply, ..) => Err(refusal(&reply)),
            });
        self.handle.backend.submit(op);
        pending
    }

    /// Saves a recovery point. If this claim becomes an orphan, its resolver gets the last
    /// checkpoint. At most [`max_checkpoint`](crate::Options::max_checkpoint) bytes.
    ///
    /// Durable when the answer is Ok. Save it after the step that it names, before the next:
    ///
    /// ```
    /// # use oncekey::{Begin, Engine, Fingerprint, Key};
    /// # let dir = std::env::temp_dir().join(format!("oncekey-doc-checkpoint-{}", std::process::id()));
    /// # let engine = Engine::open(&dir)?;
    /// # let key = Key::new("tenant-7", "order-1")?;
    /// # let request = || Fingerprint::builder().part("body", "two of these").finish();
    /// # let Begin::Claimed(claim) = engine.begin(&key, request()).wait()? else { unreachable!() };
    /// // The card was charged; then this process dies before the mail is sent.
    /// claim.checkpoint(b"charged as ch_123").wait()?;
    /// drop(claim);
    ///
    /// let Begin::Orphaned(orphan) = engine.begin(&key, request()).wait()? else { unreachable!() };
    /// let claim = orphan.take_over().wait()?;
    /// match claim.last_checkpoint()?.as_deref() {
    ///     Some(b"charged as ch_123") => println!("only the mail is left to do"),
    ///     _ => println!("ask the provider whether the card was charged"),
    /// }
    /// claim.complete(b"201 created").wait()?;
    /// # drop(engine); std::fs::remove_dir_all(&dir).ok();
    /// # Ok::<(), oncekey::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` when it is too long, `Overloaded` at
    /// [`max_open_bytes`](crate::Options::max_open_bytes): the claim is not affected. `Fenced`,
    /// `AlreadyCompleted`, `OutcomeUnknown`, `Unavailable`, `StoreFull`, `Closed`.
    pub fn checkpoint(&self, data: &[u8]) -> Pending<()> {
        let handle = &self.handle;
        let limit = handle.backend.settings().max_checkpoint;
        if data.len() > limit {
            let message = format!("the checkpoint has {} bytes, at most {limit}", data.len());
            return Pending::ready(Err(Error::invalid(message)));
        }
        let command = Command::Checkpoint { token: handle.token, data: SharedBytes::copy_of(data) };
        let (op, pending) = Pending::asked(handle.request(command), |outcome| match outcome? {
            (Reply::Done, ..) => Ok(()),
            (reply, ..) => Err(refusal(&reply)),
        });
        handle.backend.submit(op);
        pending
    }

    /// The key and the attempt of the claim.
    #[cfg(not(any(oncekey_loom, oncekey_shuttle)))]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Called when the claim reaches its caller.
    pub(crate) fn delivered(&mut self) {
        self.delivered = true;
    }
}

pub(crate) fn completion(record: Option<&Record>) -> Option<Completion> {
    match &record?.state {
        State::Completed(completed) => Some(Completion { kept: completed.response.is_some() }),
        State::InFlight(_) | State::Orphan { .. } => None,
    }
}

impl Owner for Claim {
    /// The drop of a spent claim submits nothing.
    fn spent(mut self) {
        self.armed = false;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let token = self.handle.token;
        let command =
            if self.delivered { Command::OwnerGone { token } } else { Command::Abort { token } };
        self.handle.backend.submit(Operation::untold(self.handle.request(command)));
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({:?}, attempt {}, {})", self.key(), self.attempt(), self.token())
    }
}
