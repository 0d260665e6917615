//! Waiting: for an owner, for the end of a wait, for an answer of the store.

use std::time::Duration;

use super::machine::{Machine, Timer};
use super::slot::{Stage, Work};
use crate::backend::operation::{Operation, Wait};
use crate::base::error::{Error, ErrorKind};
use crate::base::sync::Instant;
use crate::semantics::key::KeyHash;

impl Machine {
    /// Lets a begin that met an owner wait, if it asked to and its time is not over. Otherwise
    /// gives it back. The bound on waiters does not refuse a begin that `waited` before.
    pub(super) fn park(&mut self, op: Operation, waited: bool, now: Instant) -> Option<Operation> {
        let Some(wait) = op.wait.filter(|wait| now < wait.until && !self.stopped) else {
            return Some(op);
        };
        let hash = op.hash;
        let slot = self.slots.entry(hash).or_default();
        if waited {
            slot.waiters.rejoin(op, &self.limits);
        } else if let Err((op, error)) = slot.waiters.join(op, &self.limits) {
            self.tell(op, Err(error));
            return None;
        }
        let step = Duration::from_millis(20 << slot.looks.min(4)).min(Duration::from_millis(250));
        self.timers.insert((wait.until, hash, Timer::Wait(wait.number)));
        // One look is enough for all waiters of the key.
        if !std::mem::replace(&mut slot.looks_soon, true) {
            self.timers.insert((now + step, hash, Timer::Look));
        }
        None
    }

    /// The owner is gone, or the record is another one: the waiters begin again.
    pub(super) fn wake(&mut self, hash: KeyHash) {
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        slot.looks = 0;
        while let Some(op) = slot.waiters.pop(&self.limits) {
            slot.queue.push_back(op);
        }
    }

    pub(super) fn withdraw(&mut self, hash: KeyHash, wait: Wait) {
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        drop(slot.waiters.withdraw(wait, &self.limits));
        if slot.is_empty() {
            self.slots.remove(&hash);
        }
    }

    pub(super) fn run_timers(&mut self, now: Instant) {
        while let Some(&(at, hash, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Wait(_) => self.waits_end(hash, now),
                Timer::Look => self.look(hash, now),
                Timer::Patience => self.lose_patience(hash, now),
            }
        }
    }

    /// Lets the waiters whose time is over look once more, and answers them.
    fn waits_end(&mut self, hash: KeyHash, now: Instant) {
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        let mut over = Vec::new();
        slot.waiters.sift(&self.limits, |op| {
            let waits = op.wait.is_some_and(|wait| now < wait.until);
            if waits {
                return Some(op);
            }
            over.push(op);
            None
        });
        over.into_iter().for_each(|op| self.take(op, now));
    }

    /// Lets one waiter look at the owner.
    fn look(&mut self, hash: KeyHash, now: Instant) {
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        if slot.waiters.is_empty() {
            slot.looks_soon = false;
            return;
        }
        if slot.work.is_some() {
            // The end of the work may wake the waiters. If not, they look then.
            self.timers.insert((now + Duration::from_millis(20), hash, Timer::Look));
            return;
        }
        slot.looks_soon = false;
        slot.looks += 1;
        if let Some(op) = slot.waiters.pop(&self.limits) {
            self.begin_work(op, true, now);
        }
    }

    fn lose_patience(&mut self, hash: KeyHash, now: Instant) {
        let Some(work) = self.slots.get_mut(&hash).and_then(|slot| slot.work.as_mut()) else {
            return;
        };
        let begins = work.command.starts_execution();
        let patience = self.rules.patience(&work.command);
        if now < work.since + patience {
            return;
        }
        let sent =
            matches!(&work.stage, Stage::Change(change) if change.under_way || change.doubtful);
        let lacks =
            |error: &Error| matches!(error.kind(), ErrorKind::StoreFull | ErrorKind::Overloaded);
        let late = |kind| Error::new(kind, "the store did not answer in time");
        let error = match &work.stage {
            _ if sent && !begins => Some(late(ErrorKind::OutcomeUnknown)),
            Stage::Change(change) => change.refused_for.clone().filter(lacks),
            _ => None,
        };
        let Some(asker) = work.asker.take() else { return };
        self.tell(asker, Err(error.unwrap_or_else(|| late(ErrorKind::Unavailable))));
        let settles =
            sent || matches!(self.slots[&hash].work, Some(Work { stage: Stage::GiveBack(_), .. }));
        if !settles {
            // The change was never sent, so the operation did not happen.
            self.end_work(hash);
            self.next(hash, now);
        }
    }
}
