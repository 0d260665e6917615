//! The right to decide about an operation whose owner is gone.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::api::attempt::{Failed, Handle, Owner};
use crate::api::claim::{Claim, Completion, completion};
use crate::api::pending::Pending;
use crate::backend::Backend;
use crate::base::bytes::SharedBytes;
use crate::base::error::Result;
use crate::semantics::command::Command;
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::{Checkpoint, Record};
use crate::semantics::time::Time;
use crate::semantics::token::Token;

/// An operation whose owner is gone: its outcome is unknown.
///
/// [`take_over`](Self::take_over), [`complete`](Self::complete) or [`release`](Self::release)
/// resolves it. The handle stands for the attempt that it saw: once another caller resolved that
/// attempt, every call here is refused. Dropping the handle changes nothing.
///
/// Find out first what happened, for instance at the payment provider, by the key of the operation:
///
/// ```
/// use oncekey::{Engine, Error, Orphan};
///
/// enum Found { Happened(Vec<u8>), DidNotHappen, CannotTell }
///
/// fn resolve(orphan: Orphan, found: Found) -> Result<(), Error> {
///     match found {
///         // The next retry gets this response.
///         Found::Happened(response) => drop(orphan.complete(&response).wait()?),
///         // The next retry runs the operation.
///         Found::DidNotHappen => orphan.release().wait()?,
///         // A second run is harmless here: execute again, and complete the claim.
///         Found::CannotTell => drop(orphan.take_over().wait()?.complete(b"200 ok").wait()?),
///     }
///     Ok(())
/// }
/// # use oncekey::{Begin, Fingerprint, Key, Lookup};
/// # let dir = std::env::temp_dir().join(format!("oncekey-doc-orphan-{}", std::process::id()));
/// # let engine = Engine::open(&dir)?;
/// # let outcomes = [Found::Happened(b"201".to_vec()), Found::DidNotHappen, Found::CannotTell];
/// # for (number, found) in outcomes.into_iter().enumerate() {
/// #     let key = Key::new("", format!("order-{number}"))?;
/// #     let begin = || engine.begin(&key, Fingerprint::builder().finish()).wait();
/// #     drop(begin()?);
/// #     let Begin::Orphaned(orphan) = begin()? else { unreachable!() };
/// #     let released = matches!(found, Found::DidNotHappen);
/// #     resolve(orphan, found)?;
/// #     assert_eq!(matches!(engine.get(&key)?, Lookup::Absent), released);
/// #     assert_eq!(matches!(engine.get(&key)?, Lookup::Completed(_)), !released);
/// # }
/// # drop(engine); std::fs::remove_dir_all(&dir).ok();
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Orphan {
    handle: Handle,
    since: Time,
    age: Duration,
    checkpoint_len: Option<usize>,
}

impl Orphan {
    /// `None` when the record does not count as an orphan at `now`.
    pub(crate) fn new(
        backend: &Arc<dyn Backend>,
        hash: KeyHash,
        record: &Record,
        now: Time,
    ) -> Option<Self> {
        let since = record.orphaned_since(now)?;
        let checkpoint_len = record.attempt()?.checkpoint.as_ref().map(Checkpoint::len);
        let handle = Handle::new(backend, hash, record)?;
        Some(Self { handle, since, age: now.since(since), checkpoint_len })
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

    /// The last checkpoint that any attempt saved. The call reads it from the store and may block.
    ///
    /// # Errors
    /// `Fenced` or `AlreadyCompleted` when the orphan was resolved or has expired; `Corrupted`, never
    /// `None`, when the checkpoint is damaged: the orphan can be resolved all the same; `OutcomeUnknown`,
    /// `Overloaded`, `Io`, `Closed`.
    pub fn last_checkpoint(&self) -> Result<Option<SharedBytes>> {
        self.handle.last_checkpoint()
    }

    /// The length of the last checkpoint that was saved when this handle was made, in bytes; `None` when
    /// there was none. Reads nothing.
    pub fn checkpoint_len(&self) -> Option<usize> {
        self.checkpoint_len
    }

    /// Since when the operation is an orphan, in engine time.
    pub fn since(&self) -> SystemTime {
        self.since.to_wall()
    }

    /// How long the operation had been an orphan when this handle was made.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Claims the operation: a new token, one attempt more, the last checkpoint. The caller
    /// executes an operation that may have happened before: at least once, not exactly once.
    ///
    /// Durable when the answer is Ok.
    ///
    /// # Errors
    /// `Fenced` or `AlreadyCompleted` when the orphan was resolved otherwise; `Overloaded`,
    /// `StoreFull`, `OutcomeUnknown`, `Unavailable`, `Closed`, which give the handle back.
    pub fn take_over(self) -> Pending<Claim, Failed<Orphan>> {
        let handle = self.handle.clone();
        let max_execution = handle.backend.settings().max_execution;
        let command = Command::TakeOver { token: handle.token, max_execution };
        let (backend, hash) = (handle.backend.clone(), handle.hash);
        handle
            .finish(self, command, move |record| Claim::new(&backend, hash, record?))
            .on_delivery(Claim::delivered)
    }

    /// Ends the operation with a response, for a caller who found out that it happened.
    ///
    /// Durable when the answer is Ok.
    ///
    /// # Errors
    /// `Fenced` or `AlreadyCompleted` when the orphan was resolved otherwise; `OutcomeUnknown`,
    /// `Unavailable`, `StoreFull`, `Closed`, which give the handle back.
    pub fn complete(self, response: &[u8]) -> Pending<Completion, Failed<Orphan>> {
        let handle = self.handle.clone();
        let command = handle.complete_command(Some(response), None);
        handle.finish(self, command, completion)
    }

    /// Frees the key, for a caller who found out that the operation did not happen, or who wants it
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

impl Owner for Orphan {
    fn spent(self) {}
}

impl fmt::Debug for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Orphan({:?}, attempt {}, {})", self.key(), self.attempt(), self.token())
    }
}
