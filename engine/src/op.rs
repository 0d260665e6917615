//! An operation on its way: a command, whom to tell what became of it, and what that was.

use std::sync::Arc;

use crate::clock::Time;
use crate::error::{Error, Result};
use crate::key::{Key, KeyHash};
use crate::sync::Instant;
use crate::transition::{Command, Record, Reply};

/// The answer to a command: the reply, the record that it is about, and when it was decided.
pub(crate) type Outcome = Result<(Reply, Option<Arc<Record>>, Time)>;

/// A submitted command.
pub(crate) struct Op {
    pub(crate) key: Key,
    pub(crate) hash: KeyHash,
    pub(crate) command: Command,
    /// How long a begin waits for an owner instead of being told `Locked`.
    pub(crate) wait: Option<Wait>,
    pub(crate) caller: Box<dyn Caller>,
}

impl Op {
    pub(crate) fn waits(&self) -> bool {
        self.wait.is_some_and(|wait| Instant::now() < wait.until)
    }
}

/// Whoever is told the outcome of an operation.
///
/// A thread that answers hundreds of callers at once should free nothing that they allocated: with
/// most allocators it would contend with them for it, call by call.
pub(crate) trait Caller: Send {
    /// Tells the outcome. `spent` is to be dropped where the operation was made, if possible.
    fn tell(self: Box<Self>, outcome: Outcome, spent: Spent);
}

impl<F: FnOnce(Outcome) + Send> Caller for F {
    fn tell(self: Box<Self>, outcome: Outcome, _: Spent) {
        self(outcome);
    }
}

/// What is left of an operation that is answered.
pub(crate) struct Spent {
    _key: Key,
    _command: Command,
}

impl Spent {
    pub(crate) fn new(key: Key, command: Command) -> Self {
        Self { _key: key, _command: command }
    }
}

/// A bounded wait, told from others that end at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wait {
    pub(crate) until: Instant,
    pub(crate) number: u64,
}

/// A command that holds its slot, with the record that it is decided on.
pub(crate) struct Queued {
    pub(crate) op: Op,
    pub(crate) base: Option<Arc<Record>>,
}

/// An answer that is given once no shard is locked.
#[must_use]
pub(crate) struct Answer {
    op: Op,
    outcome: Outcome,
}

impl Answer {
    pub(crate) fn new(op: Op, outcome: Outcome) -> Self {
        Self { op, outcome }
    }

    pub(crate) fn parts(&self) -> (&Command, Result<&Reply, &Error>) {
        (&self.op.command, self.outcome.as_ref().map(|(reply, ..)| reply))
    }

    /// The record that the operation was answered with for the second time, or later.
    pub(crate) fn replayed(&self) -> Option<&Arc<Record>> {
        match &self.outcome {
            Ok((Reply::Replay, record, _)) => record.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn give(self) {
        let Op { key, command, caller, .. } = self.op;
        caller.tell(self.outcome, Spent::new(key, command));
    }
}
