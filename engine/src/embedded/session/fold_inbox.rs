//! The requests of the committer and of callers to the fold worker.

use std::time::Duration;

use crate::base::error::Result;
use crate::base::sync::{Condvar, Instant, Mutex, oneshot};
use crate::embedded::journal::Position;
use crate::semantics::time::Time;

/// The fold that the committer hands over at a rotation: the records are in the shards' folding maps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoldTask {
    /// The last sequence that the records hold.
    pub(crate) through: u64,
    /// The position of the journal after that sequence.
    pub(crate) replay_from: Position,
    pub(crate) incarnation: u64,
    pub(crate) epoch: u64,
    pub(crate) time: Time,
}

/// The requests to the fold worker.
#[derive(Default)]
pub(crate) struct FoldInbox {
    pub(crate) requests: Mutex<Requests>,
    pub(crate) wake: Condvar,
}

#[derive(Default)]
pub(crate) struct Requests {
    pub(crate) fold: Option<FoldTask>,
    /// A fold was handed over and its records are not evicted yet.
    pub(crate) folding: bool,
    pub(crate) sweeps: Vec<oneshot::Sender<Result<u64>>>,
    pub(crate) nudged: bool,
    pub(crate) refusing: bool,
    pub(crate) stopped: bool,
}

impl FoldInbox {
    /// Whether a fold may be handed over.
    pub(crate) fn is_idle(&self) -> bool {
        !self.requests.lock().folding
    }

    pub(crate) fn fold(&self, task: FoldTask) {
        let mut requests = self.requests.lock();
        requests.folding = true;
        requests.fold = Some(task);
        self.wake.notify_one();
    }

    /// Asks for a sweep. The answer is the number of removed records. No answer comes if the fold
    /// worker ends first.
    pub(crate) fn sweep(&self) -> oneshot::Receiver<Result<u64>> {
        let (sender, receiver) = oneshot::channel();
        let mut requests = self.requests.lock();
        if !requests.refusing {
            requests.sweeps.push(sender);
            self.wake.notify_one();
        }
        receiver
    }

    /// Leaves all requests without an answer from now on.
    pub(crate) fn refuse(&self) {
        let mut requests = self.requests.lock();
        requests.refusing = true;
        requests.sweeps.clear();
        self.wake.notify_one();
    }

    pub(crate) fn nudge(&self) {
        self.requests.lock().nudged = true;
        self.wake.notify_one();
    }

    /// Waits for `moment`, or until a request comes.
    pub(crate) fn rest(&self, moment: Duration) {
        let mut requests = self.requests.lock();
        let urgent = requests.fold.is_some() || requests.stopped;
        if !urgent {
            let _ = self.wake.wait_until(&mut requests, Instant::now() + moment);
        }
    }

    pub(crate) fn stop(&self) {
        self.requests.lock().stopped = true;
        self.wake.notify_one();
    }

    pub(crate) fn wait_for_stop(&self) {
        let mut requests = self.requests.lock();
        while !requests.stopped {
            self.wake.wait(&mut requests);
        }
    }
}
