//! An operation on its way: a command, the recipient of its outcome, and the outcome.

use std::ops::Deref;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::sync::Instant;
use crate::semantics::command::{Command, Reply};
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::Record;
use crate::semantics::time::Time;

/// The answer to a command: the reply, the record that it is about, and when it was decided.
pub(crate) type Outcome = Result<(Reply, Option<Arc<Record>>, Time)>;

/// The request of an operation.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) key: Key,
    pub(crate) hash: KeyHash,
    pub(crate) command: Command,
    /// How long a begin waits for an owner instead of being told `Locked`.
    pub(crate) wait: Option<Wait>,
}

/// A submitted operation: one allocation of its caller, which moves through the engine and comes
/// back with the answer.
///
/// A thread that answers hundreds of callers at once should free nothing that they allocated: with
/// most allocators it would contend with them, call by call. It should also move little memory.
pub(crate) struct Operation(Box<dyn Recipient>);

/// A request, and the recipient of its outcome.
pub(crate) trait Recipient: Send {
    fn request(&self) -> &Request;
    /// Tells the outcome. The memory of the operation must be freed where the answer is taken.
    fn tell(self: Box<Self>, outcome: Outcome);
}

impl Operation {
    pub(crate) fn new(caller: impl Recipient + 'static) -> Self {
        Self(Box::new(caller))
    }

    /// An operation whose outcome no caller needs.
    pub(crate) fn untold(request: Request) -> Self {
        Self::telling(request, |_| {})
    }

    pub(crate) fn telling(request: Request, tell: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self::new(Telling { request, tell })
    }

    pub(crate) fn waits(&self) -> bool {
        self.wait.is_some_and(|wait| Instant::now() < wait.until)
    }

    pub(crate) fn tell(self, outcome: Outcome) {
        self.0.tell(outcome);
    }
}

impl Deref for Operation {
    type Target = Request;
    fn deref(&self) -> &Request {
        self.0.request()
    }
}

struct Telling<F> {
    request: Request,
    tell: F,
}

impl<F: FnOnce(Outcome) + Send> Recipient for Telling<F> {
    fn request(&self) -> &Request {
        &self.request
    }

    fn tell(self: Box<Self>, outcome: Outcome) {
        (self.tell)(outcome);
    }
}

/// A bounded wait. The number separates waits that end at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wait {
    pub(crate) until: Instant,
    pub(crate) number: u64,
}

/// A command that holds its slot, with the record that it is decided on.
pub(crate) struct Queued {
    pub(crate) op: Operation,
    pub(crate) base: Option<Arc<Record>>,
}

/// An answer that is given once no shard is locked.
#[must_use]
pub(crate) struct Answer {
    op: Operation,
    outcome: Outcome,
}

impl Answer {
    pub(crate) fn new(op: Operation, outcome: Outcome) -> Self {
        Self { op, outcome }
    }

    pub(crate) fn hash(&self) -> KeyHash {
        self.op.hash
    }

    pub(crate) fn parts(&self) -> (&Command, Result<&Reply, &Error>) {
        (&self.op.command, self.outcome.as_ref().map(|(reply, ..)| reply))
    }

    /// The record of a replay.
    pub(crate) fn replayed(&self) -> Option<&Arc<Record>> {
        match &self.outcome {
            Ok((Reply::Replay, record, _)) => record.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn give(self) {
        self.op.tell(self.outcome);
    }
}
