//! The state of one key in a process of a fleet, and the work on that key.

use std::collections::VecDeque;
use std::sync::Arc;

use super::store::{Row, RowImage};
use crate::admission::line::Line;
use crate::backend::operation::Operation;
use crate::base::error::Error;
use crate::base::sync::Instant;
use crate::semantics::command::{Command, Reply};
use crate::semantics::key::Key;
use crate::semantics::record::Record;

/// The state of one key. It is removed when it is empty.
#[derive(Default)]
pub(crate) struct Slot {
    /// The row of a claim that this process holds, as the process wrote it last.
    pub(crate) live: Option<Known>,
    /// The one operation that is being decided.
    pub(crate) work: Option<Work>,
    /// Operations behind it, in order.
    pub(crate) queue: VecDeque<Operation>,
    /// Whether a loop works through the queue.
    pub(crate) goes_on: bool,
    /// Begins that wait for the owner.
    pub(crate) waiters: Line,
    /// How often the waiters looked at an owner in another process.
    pub(crate) looks: u32,
    /// Whether a look is timed.
    pub(crate) looks_soon: bool,
}

impl Slot {
    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_none()
            && self.work.is_none()
            && self.queue.is_empty()
            && self.waiters.is_empty()
    }
}

/// A row with the record that it holds.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) row: Row,
    pub(crate) record: Arc<Record>,
}

/// An operation that is being decided.
pub(crate) struct Work {
    pub(crate) key: Key,
    pub(crate) command: Command,
    /// The recipient of the answer. `None` once its caller was told that the store is late.
    pub(crate) asker: Option<Operation>,
    pub(crate) since: Instant,
    pub(crate) stage: Stage,
    /// Whether the limits count the claim that it may become.
    pub(crate) reserved: bool,
    /// Whether it is a begin that waited for an owner and looks again.
    pub(crate) waited: bool,
    /// Whether a change that may have been carried out was dropped for another decision.
    pub(crate) doubted: bool,
    /// Whether the store was asked to declare the owner of the row ended.
    pub(crate) declared: bool,
}

impl Work {
    pub(crate) fn new(asker: Operation, since: Instant) -> Self {
        let (key, command) = (asker.key.clone(), asker.command.clone());
        let (stage, asker) = (Stage::Read, Some(asker));
        let (reserved, waited, doubted, declared) = (false, false, false, false);
        Self { key, command, asker, since, stage, reserved, waited, doubted, declared }
    }

    /// Whether one of the sendings of the change may have been carried out.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubted || matches!(&self.stage, Stage::Change(change) if change.doubtful)
    }
}

/// How far an operation is.
pub(crate) enum Stage {
    /// Its row is to be read.
    Read,
    /// The owner of its row is to be declared ended. Then the row is read again.
    Declare,
    /// A change that is to be carried out.
    Change(Box<Changing>),
    /// A claim that came too late for its instance, or for its caller, is given back; then the
    /// begin starts anew, if its caller still waits.
    GiveBack(Box<Changing>),
}

/// A change on its way.
pub(crate) struct Changing {
    pub(crate) image: RowImage,
    /// The row that it was decided on.
    pub(crate) before: Option<Row>,
    /// The answer, once it is carried out.
    pub(crate) reply: Reply,
    /// The store time of the first sending, at the earliest.
    pub(crate) sent_at: Option<u64>,
    /// Whether a sending ended without an answer.
    pub(crate) doubtful: bool,
    /// Whether it is in the group that is under way.
    pub(crate) under_way: bool,
    /// The change is not sent again before this time.
    pub(crate) not_before: Option<Instant>,
    /// The change is sent in a group of its own, because a group with it was refused.
    pub(crate) alone: bool,
    /// Why the last sending was not carried out.
    pub(crate) refused_for: Option<Error>,
    pub(crate) tries: u32,
}

impl Changing {
    pub(crate) fn new(image: RowImage, before: Option<Row>, reply: Reply) -> Self {
        Self {
            image,
            before,
            reply,
            sent_at: None,
            doubtful: false,
            under_way: false,
            not_before: None,
            alone: false,
            refused_for: None,
            tries: 0,
        }
    }
}
