//! The place of one key: the operation that works on it, and those that wait for it.
//!
//! A slot exists while a command works on the key or a claim is held.
//!
//! | state | meaning | a begin that arrives |
//! |---|---|---|
//! | none | the record is known from elsewhere, or must be looked up | is decided on the record, or looks it up |
//! | marker (busy, no live record) | the key is looked up, or its first claim is on the way to disk | waits |
//! | live | a claim is held | `Locked`, `Mismatch`, or waits if it asked to |
//! | live and busy | an end or a checkpoint of the claim is on the way to disk | as live; waits for an end |
//! | unknown | the group with the last change failed | `OutcomeUnknown` until the engine is reopened |
//!
//! A command that may change a record first makes the slot busy. While the slot is busy, every
//! other such command waits there. So the record that a command was decided on cannot change before
//! the command is published.

use std::sync::Arc;

use crate::admission::limits::Limits;
use crate::admission::line::Line;
use crate::backend::operation::{Answer, Operation, Queued, Wait};
use crate::base::error::{Error, ErrorKind, Result};
use crate::semantics::command::{Command, Reply};
use crate::semantics::record::Record;
use crate::semantics::time::Time;
use crate::semantics::transition::transition;

/// The result of admitting an operation to a key.
pub(crate) enum Admission {
    Answered(Answer),
    /// The operation waits in the slot. From the time on, the live record of the slot counts as an
    /// orphan.
    Parked(Option<Time>),
    /// The slot is a marker now; the record must be looked up without the lock.
    Resolve(Operation),
    /// The slot is busy now; the command goes to the committer.
    Change(Queued),
}

/// The work to do after the lock is released.
#[derive(Default)]
#[must_use]
pub(crate) struct FollowUp {
    pub(crate) answers: Vec<Answer>,
    pub(crate) queued: Option<Queued>,
    /// When the claim that a begin waits for counts as an orphan.
    pub(crate) reconsider_at: Option<Time>,
    /// Waits that are over.
    pub(crate) ended: Vec<Wait>,
}

impl FollowUp {
    /// Notes that the operation no longer waits.
    fn leaves(&mut self, op: &Operation) {
        self.ended.extend(op.wait);
    }

    fn answer_waiting(
        &mut self,
        op: Operation,
        outcome: Result<(Reply, Option<Arc<Record>>, Time)>,
    ) {
        self.leaves(&op);
        self.answers.push(Answer::new(op, outcome));
    }
}

/// The place of one key.
#[derive(Default)]
pub(crate) struct Slot {
    /// The durable in-flight record; `None` makes the slot a marker.
    pub(super) live: Option<Arc<Record>>,
    pub(super) busy: bool,
    /// The command that made the slot busy ends the claim. The owner has decided, so a begin that
    /// arrives now waits for the end instead of getting `Locked`.
    pub(super) ending: bool,
    /// The outcome of the last command is unknown, because its group failed.
    pub(super) unknown: bool,
    pub(super) waiting: Line,
}

impl Slot {
    pub(super) fn occupy(&mut self, command: &Command) {
        self.busy = true;
        self.ending = command.ends_claim();
    }

    /// Admits an operation: answers it, lets it wait, or gives it the slot.
    pub(crate) fn admit(&mut self, op: Operation, now: Time, limits: &Limits) -> Admission {
        if self.unknown {
            return Admission::Answered(Answer::new(op, Err(unknown())));
        }
        let Some(record) = self.live.clone() else { return self.park(op, limits) };
        let (change, reply) = transition(Some(&record), &op.command, &op.key, now);
        match change {
            None if reply == Reply::Locked && (self.ending || op.waits()) => self.park(op, limits),
            None => Admission::Answered(Answer::new(op, Ok((reply, Some(record), now)))),
            Some(_) if self.busy => self.park(op, limits),
            Some(_) => match reserve(&op.command, limits) {
                Err(error) => Admission::Answered(Answer::new(op, Err(error))),
                Ok(()) => {
                    self.occupy(&op.command);
                    Admission::Change(Queued { base: Some(record), op })
                }
            },
        }
    }

    fn park(&mut self, op: Operation, limits: &Limits) -> Admission {
        match self.waiting.join(op, limits) {
            Ok(()) => Admission::Parked(self.live.as_ref().and_then(|live| live.deadline())),
            Err((op, error)) => Admission::Answered(Answer::new(op, Err(error))),
        }
    }

    /// Decides the waiting operations, when the key has the durable record `record` and no command
    /// works on it. The first operation that needs a change gets the slot; later ones that need a
    /// change wait on.
    pub(super) fn settle(
        &mut self,
        record: Option<Arc<Record>>,
        now: Time,
        limits: &Limits,
        follow_up: &mut FollowUp,
    ) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let live = record.clone().filter(|record| record.is_in_flight());
        *self = Self { live, ..Self::default() };
        waiting.sift(limits, |op| {
            let (change, reply) = transition(record.as_deref(), &op.command, &op.key, now);
            let stays = match &change {
                None => reply == Reply::Locked && op.waits(),
                Some(_) => self.busy,
            };
            if stays {
                return Some(op);
            }
            if change.is_none() {
                follow_up.answer_waiting(op, Ok((reply, record.clone(), now)));
                return None;
            }
            match reserve(&op.command, limits) {
                Err(error) => follow_up.answer_waiting(op, Err(error)),
                Ok(()) => {
                    self.occupy(&op.command);
                    follow_up.leaves(&op);
                    follow_up.queued = Some(Queued { op, base: record.clone() });
                }
            }
            None
        });
        self.waiting = waiting;
        if !self.waiting.is_empty() {
            follow_up.reconsider_at = self.live.as_ref().and_then(|live| live.deadline());
        }
    }

    /// Answers waiting operations while a command works on the key: those whose wait is over, if
    /// the live record is enough for the answer.
    pub(super) fn answer_overdue(&mut self, now: Time, limits: &Limits, follow_up: &mut FollowUp) {
        let Some(record) = self.live.clone() else { return };
        let ending = self.ending;
        self.waiting.sift(limits, |op| {
            let (change, reply) = transition(Some(&record), &op.command, &op.key, now);
            if change.is_some() || (reply == Reply::Locked && (ending || op.waits())) {
                return Some(op);
            }
            follow_up.answer_waiting(op, Ok((reply, Some(record.clone()), now)));
            None
        });
    }

    /// Refuses all waiting operations. The command that works on the key keeps the slot.
    pub(super) fn refuse(&mut self, error: &Error, limits: &Limits, follow_up: &mut FollowUp) {
        self.waiting.sift(limits, |op| {
            follow_up.answer_waiting(op, Err(error.clone()));
            None
        });
    }
}

/// Reserves what a command needs on its way to the committer, or refuses the command.
pub(super) fn reserve(command: &Command, limits: &Limits) -> Result<()> {
    if command.starts_execution() {
        limits.check_queue()?;
    }
    limits.reserve(command)
}

pub(super) fn unknown() -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the group with the last change of this key failed; reopen the engine to settle it",
    )
}
