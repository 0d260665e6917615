//! How a session ends: by failure, by a panic of a worker, for a reopen, or by a close.

use super::Session;
use crate::admission::slot::FollowUp;
use crate::admission::slots::Slots;
use crate::backend::telemetry;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::atomic::Ordering;
#[cfg(feature = "stepping")]
use crate::embedded::worker::Employer;
#[cfg(feature = "stepping")]
use crate::semantics::time::Time;

impl Session {
    pub(super) fn check_health(&self) -> Result<()> {
        if self.health.is_impaired() { Err(self.refusal()) } else { Ok(()) }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.health.has_failed()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.health.is_closed()
    }

    /// Whether the session is closed, or about to be replaced by another.
    pub(crate) fn is_over(&self) -> bool {
        self.health.is_over()
    }

    /// Why commands are refused.
    pub(crate) fn refusal(&self) -> Error {
        self.health.refusal()
    }

    /// Latches the engine: from now on it answers only from durable records.
    pub(crate) fn fail(&self, error: &Error) {
        if !self.health.fail(error) {
            return;
        }
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        telemetry::failed(error);
        let refusal = self.refusal();
        for queued in self.queue.drain() {
            self.refuse(queued, &refusal);
        }
        self.folds.fail(&refusal);
        self.inbox.refuse();
    }

    /// A thread of the engine panicked: every change that it worked on is in doubt.
    pub(crate) fn panicked(&self) {
        self.fail(&Error::new(ErrorKind::Unavailable, "a thread of the engine panicked"));
        self.answer_all(|slots| slots.set_busy_unknown(&self.limits));
        self.committer_ended();
    }

    /// Refuses commands while the engine is reopened. Queued commands are still executed.
    pub(crate) fn suspend(&self) {
        self.health.suspend();
        self.queue.stop();
    }

    /// Refuses further commands. Queued commands are still executed.
    pub(crate) fn close(&self) {
        self.health.close();
        self.queue.stop();
    }

    /// Refuses the operations that wait for an owner: without a committer no thread watches the
    /// ends of waits, and no owner can end its claim.
    pub(crate) fn committer_ended(&self) {
        let refusal = self.refusal();
        self.answer_all(|slots| slots.refuse_all_waiting(&refusal, &self.limits));
    }

    /// Refuses the operations that still wait, after the threads have ended.
    pub(crate) fn refuse_waiters(&self) {
        let refusal = self.refusal();
        self.answer_all(|slots| slots.refuse_all(&refusal, &self.limits));
    }

    /// Answers the operations that `refuse` takes out of the slots. No waits are watched any more.
    fn answer_all(&self, refuse: impl Fn(&mut Slots) -> FollowUp) {
        let shards = self.table.shards();
        let answers: Vec<_> =
            shards.flat_map(|mut shard| refuse(&mut shard.slots).answers).collect();
        answers.into_iter().for_each(|answer| self.answer(answer));
    }
}

#[cfg(feature = "stepping")]
impl Employer for Session {
    fn committer_ended(&self) {
        self.committer_ended();
    }
    fn panicked(&self) {
        self.panicked();
    }
    fn has_failed(&self) -> bool {
        self.has_failed()
    }
    fn now(&self) -> Time {
        self.now()
    }
    fn want_fold(&self) {
        self.folds.want();
        self.queue.nudge();
    }
    fn want_sweep(&self) {
        drop(self.inbox.sweep());
    }
}
