//! How a session ends: by failure, by a panic of a worker, for a reopen, or by a close.

use super::Session;
use super::health::Impaired;
use crate::backend::telemetry;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::atomic::Ordering;
#[cfg(feature = "stepping")]
use crate::embedded::worker::Employer;
#[cfg(feature = "stepping")]
use crate::semantics::time::Time;

impl Session {
    pub(super) fn check_health(&self) -> Result<()> {
        match self.health.impaired() {
            None => Ok(()),
            Some(_) => Err(self.refusal()),
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.health.impaired(), Some(Impaired::Failed(_)))
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.health.impaired(), Some(Impaired::Closed))
    }

    /// Why commands are refused.
    pub(crate) fn refusal(&self) -> Error {
        match self.health.impaired() {
            Some(Impaired::Failed(cause)) => {
                Error::caused_by(ErrorKind::Unavailable, cause.to_string(), cause)
            }
            Some(Impaired::Closed) => Error::new(ErrorKind::Closed, ""),
            // Its panic is not noted yet.
            None => Error::new(ErrorKind::Unavailable, "a thread of the engine ended"),
        }
    }

    /// Latches the engine: from now on it only answers from what is durable.
    pub(crate) fn fail(&self, error: &Error) {
        if !self.health.set(Impaired::Failed(error.clone())) {
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

    /// A thread of the engine panicked: whatever it worked on is in doubt.
    pub(crate) fn panicked(&self) {
        self.fail(&Error::new(ErrorKind::Unavailable, "a thread of the engine panicked"));
        let answers: Vec<_> =
            self.table.shards().flat_map(|mut shard| shard.set_busy_unknown(self)).collect();
        for answer in answers {
            self.answer(answer);
        }
        self.committer_ended();
    }

    /// Refuses commands while the engine is reopened; those already queued are still carried out.
    pub(crate) fn suspend(&self) {
        let cause = Error::new(ErrorKind::Unavailable, "the engine is being reopened");
        self.health.set(Impaired::Failed(cause));
        self.queue.stop();
    }

    /// Refuses further commands; those already queued are still carried out.
    pub(crate) fn close(&self) {
        self.health.replace(Impaired::Closed);
        self.queue.stop();
    }

    /// Answers those who wait for an owner: without a committer nobody watches the ends of waits,
    /// and no owner can end its claim.
    pub(crate) fn committer_ended(&self) {
        let refusal = self.refusal();
        let answers: Vec<_> = (self.table.shards())
            .flat_map(|mut shard| shard.refuse_all_parked(&refusal, self))
            .collect();
        answers.into_iter().for_each(|answer| self.answer(answer));
    }

    /// Answers those who still wait, after the threads have ended.
    pub(crate) fn refuse_waiters(&self) {
        let refusal = self.refusal();
        let answers: Vec<_> =
            self.table.shards().flat_map(|mut shard| shard.refuse_all(&refusal, self)).collect();
        for answer in answers {
            self.answer(answer);
        }
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
