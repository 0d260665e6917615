//! The queue from callers to the committer: two lists behind one lock, each taken as a whole.
//!
//! Begins are bounded. Ends of claims need no bound of their own: the claims in flight limit their
//! number, and no bound may refuse the end of a claim.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::admission::limits::Limits;
use crate::backend::operation::Queued;
use crate::base::sync::{Condvar, Instant, Mutex};

pub(crate) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    /// Counts the begins, so that their bound is checked without the lock.
    limits: Arc<Limits>,
}

#[derive(Default)]
struct Inner {
    ends: VecDeque<Queued>,
    begins: VecDeque<(Instant, Queued)>,
    sleeping: bool,
    nudged: bool,
    stopped: bool,
}

impl Inner {
    fn wake(&mut self, condvar: &Condvar) {
        if std::mem::take(&mut self.sleeping) {
            condvar.notify_one();
        }
    }
}

/// The commands that [`Queue::take`] took. Reused, so that neither side allocates.
#[derive(Default)]
pub(crate) struct Batch {
    ends: VecDeque<Queued>,
    begins: VecDeque<(Instant, Queued)>,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.ends.len() + self.begins.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next command: ends first.
    pub(crate) fn pop(&mut self) -> Option<Queued> {
        self.ends.pop_front().or_else(|| self.begins.pop_front().map(|(_, queued)| queued))
    }
}

/// Why [`Queue::take`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There are commands, a nudge or a deadline: the committer looks at everything.
    Work,
    /// The queue is stopped and empty.
    Stopped,
}

impl Queue {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        Self { inner: Mutex::default(), wake: Condvar::default(), limits }
    }

    /// Queues a command, or gives it back when the queue is stopped.
    pub(crate) fn push(&self, queued: Queued) -> Option<Queued> {
        let mut inner = self.inner.lock();
        if inner.stopped {
            return Some(queued);
        }
        if queued.op.command.starts_execution() {
            self.limits.queue_begin();
            inner.begins.push_back((Instant::now(), queued));
        } else {
            inner.ends.push_back(queued);
        }
        inner.wake(&self.wake);
        None
    }

    /// Makes [`take`](Self::take) return soon even without a command.
    pub(crate) fn nudge(&self) {
        let mut inner = self.inner.lock();
        inner.nudged = true;
        inner.wake(&self.wake);
    }

    /// Refuses further commands; `take` hands out what is left, then `Stopped`.
    pub(crate) fn stop(&self) {
        let mut inner = self.inner.lock();
        inner.stopped = true;
        inner.wake(&self.wake);
    }

    /// Stops the queue and takes every command out. The engine failed, so the committer must end if
    /// it still runs.
    pub(crate) fn drain(&self) -> Vec<Queued> {
        let mut inner = self.inner.lock();
        inner.stopped = true;
        inner.wake(&self.wake);
        let Inner { ends, begins, .. } = &mut *inner;
        self.limits.unqueue_begins(begins.len());
        ends.drain(..).chain(begins.drain(..).map(|(_, queued)| queued)).collect()
    }

    /// Waits for commands, at most until `deadline`, and puts all of them into `batch`: ends and,
    /// if `allow_begins`, begins. `batch` must be empty: the lists are swapped, so that no command
    /// is moved while callers wait for the lock.
    pub(crate) fn take(
        &self,
        batch: &mut Batch,
        allow_begins: bool,
        deadline: Option<Instant>,
    ) -> Taken {
        debug_assert!(batch.is_empty());
        let mut inner = self.inner.lock();
        loop {
            let begins = allow_begins || inner.stopped;
            if inner.nudged || !inner.ends.is_empty() || (begins && !inner.begins.is_empty()) {
                inner.nudged = false;
                std::mem::swap(&mut batch.ends, &mut inner.ends);
                if begins {
                    self.limits.unqueue_begins(inner.begins.len());
                    std::mem::swap(&mut batch.begins, &mut inner.begins);
                }
                return Taken::Work;
            }
            if inner.stopped {
                return Taken::Stopped;
            }
            if deadline.is_none() && !inner.begins.is_empty() {
                // These begins may not be taken yet, but the committer must watch how long they
                // wait.
                return Taken::Work;
            }
            inner.sleeping = true;
            match deadline {
                None => self.wake.wait(&mut inner),
                Some(deadline) => {
                    if self.wake.wait_until(&mut inner, deadline).timed_out() {
                        inner.sleeping = false;
                        return Taken::Work;
                    }
                }
            }
            inner.sleeping = false;
        }
    }

    /// Takes out the begins that were queued before `limit`: they waited too long.
    pub(crate) fn take_begins_before(&self, limit: Instant) -> Vec<Queued> {
        let mut inner = self.inner.lock();
        let count = inner.begins.iter().take_while(|(since, _)| *since < limit).count();
        self.limits.unqueue_begins(count);
        inner.begins.drain(..count).map(|(_, queued)| queued).collect()
    }

    /// When the oldest begin was queued.
    pub(crate) fn oldest_begin(&self) -> Option<Instant> {
        self.inner.lock().begins.front().map(|(since, _)| *since)
    }
}
