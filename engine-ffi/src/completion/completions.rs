//! Completion queues: one call submits many operations, another takes their answers.

use std::mem::MaybeUninit;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::abi::submission::{Completion, Submission};
use crate::boundary::convert::Caller;
use crate::boundary::failure::Failure;
#[cfg(unix)]
use crate::completion::signal::Signal;
use crate::completion::slots::{Held, Slots};

const DEFAULT_MAX_BEGINS: usize = 1 << 20;
/// Pollers see submissions in runs of this many.
const RUN: usize = 64;

/// A queue, shared by its handle, its users and its wakers. Calls into the engine, and the drop of an
/// operation, happen without the lock.
pub(crate) struct Completions {
    engine: oncekey::Engine,
    max_begins: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    slots: Slots,
    woken: bool,
    freed: bool,
    #[cfg(unix)]
    signal: Option<Signal>,
}

impl State {
    /// Makes the descriptor readable exactly when a poll would return.
    fn signal(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal {
            signal.set(self.woken || self.slots.is_ready());
        }
    }
}

struct SlotWaker {
    queue: Weak<Completions>,
    index: u32,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(queue) = self.queue.upgrade() {
            queue.woken(self.index);
        }
    }
}

impl Completions {
    /// `max_begins` is the largest number of outstanding begins; 0 is the default.
    pub(crate) fn new(engine: oncekey::Engine, max_begins: usize) -> Self {
        Self {
            engine,
            max_begins: if max_begins == 0 { DEFAULT_MAX_BEGINS } else { max_begins },
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn woken(&self, index: u32) {
        let mut state = self.state.lock();
        if state.slots.woken(index) {
            state.signal();
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Submits in order, and stops before a begin over the bound. Returns the number of accepted submissions.
    pub(crate) fn submit(self: &Arc<Self>, caller: &Caller, submissions: &[Submission]) -> usize {
        let mut accepted = 0;
        for run in submissions.chunks(RUN) {
            let mut operations = self.reserve(run);
            for (operation, submission) in operations.iter_mut().zip(run) {
                operation.submit(&self.engine, caller, submission);
            }
            let taken = operations.len();
            accepted += taken;
            self.put_back(operations);
            if taken < run.len() {
                break;
            }
        }
        accepted
    }

    fn reserve(self: &Arc<Self>, run: &[Submission]) -> Held {
        let waker = |index| Waker::from(Arc::new(SlotWaker { queue: Arc::downgrade(self), index }));
        self.state.lock().slots.reserve(run, self.max_begins, waker)
    }

    /// Cancels the begins that wait with `user_data`. Each then has an answer and is ready.
    pub(crate) fn cancel(&self, user_data: u64) {
        let mut given_up = self.state.lock().slots.take_waiting(user_data);
        for operation in &mut given_up {
            operation.look();
            operation.cancel();
        }
        self.put_back(given_up);
    }

    /// Lets operations wait for their answers or for a poll. Operations that were cancelled meanwhile are
    /// cancelled here.
    fn put_back(&self, operations: Held) {
        let mut cancelled = self.try_put_back(operations);
        if cancelled.is_empty() {
            return;
        }
        for operation in &mut cancelled {
            operation.cancel();
        }
        self.try_put_back(cancelled);
    }

    /// Returns the operations that the caller must cancel.
    fn try_put_back(&self, operations: Held) -> Held {
        let mut state = self.state.lock();
        if state.freed {
            drop(state);
            drop(operations);
            return Vec::new();
        }
        let was_ready = state.slots.is_ready();
        let cancelled = state.slots.put_back(operations);
        let notify = !was_ready && state.slots.is_ready();
        state.signal();
        drop(state);
        if notify {
            self.changed.notify_one();
        }
        cancelled
    }

    /// Fills in the completions that are ready, after waiting for the first. Returns their number.
    pub(crate) fn poll(
        &self,
        completions: &mut [MaybeUninit<Completion>],
        until: Option<Instant>,
    ) -> usize {
        let mut done = 0;
        while done == 0 {
            let Some(mut taken) = self.take_ready(completions.len(), until) else { break };
            let unready = taken.extract_if(.., |operation| match operation.completion() {
                Some(completion) => {
                    completions[done].write(completion);
                    done += 1;
                    false
                }
                None => true,
            });
            let unready: Held = unready.collect();
            self.state.lock().slots.release(taken);
            if !unready.is_empty() {
                self.put_back(unready);
            }
        }
        done
    }

    /// Takes up to `most` operations that may have an answer. `None` when the time is over, or when another
    /// thread wants the poll to end.
    fn take_ready(&self, most: usize, until: Option<Instant>) -> Option<Held> {
        let mut state = self.state.lock();
        loop {
            let taken = state.slots.take_ready(most);
            if !taken.is_empty() {
                state.signal();
                return Some(taken);
            }
            if std::mem::take(&mut state.woken) || state.freed {
                state.signal();
                return None;
            }
            state.signal();
            match until {
                Some(until) => {
                    if self.changed.wait_until(&mut state, until).timed_out()
                        && !state.slots.is_ready()
                        && !state.woken
                    {
                        return None;
                    }
                }
                None => self.changed.wait(&mut state),
            }
        }
    }

    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        state.woken = true;
        state.signal();
        drop(state);
        self.changed.notify_all();
    }

    /// The descriptor that is readable while the queue has completions.
    #[cfg(unix)]
    pub(crate) fn fd(&self) -> Result<i32, Failure> {
        let mut state = self.state.lock();
        if state.signal.is_none() {
            state.signal = Some(Signal::new()?);
            state.signal();
        }
        Ok(state.signal.as_ref().map_or(-1, Signal::fd))
    }

    #[cfg(not(unix))]
    pub(crate) fn fd(&self) -> Result<i32, Failure> {
        Ok(-1)
    }

    pub(crate) fn free(&self) {
        let mut state = self.state.lock();
        state.freed = true;
        let outstanding = state.slots.take_all();
        drop(state);
        self.changed.notify_all();
        drop(outstanding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::status::ONCEKEY_CANCELLED;
    use crate::abi::types::Fingerprint;
    use crate::objects::fingerprint::FINGERPRINTS;

    /// The state after a poll was woken in vain.
    #[test]
    fn a_begin_that_is_cancelled_while_a_thread_looks_at_it_ends_when_that_puts_it_back() {
        let directory = tempfile::tempdir().unwrap();
        let engine = oncekey::Engine::open(directory.path()).unwrap();
        let parts = oncekey::Fingerprint::builder().part("body", "b").finish();
        let key = oncekey::Key::new("", "k").unwrap();
        let _owner = engine.begin(&key, parts.clone()).wait().unwrap();
        let fingerprint = Fingerprint { id: FINGERPRINTS.insert(parts).unwrap() };
        let submission = Submission {
            user_data: 5,
            max_wait_ms: 3_600_000,
            ..Submission::begin(b"k", fingerprint)
        };
        // SAFETY: the submission points to static memory.
        let caller = unsafe { Caller::new() };
        let queue = Arc::new(Completions::new(engine.clone(), 0));
        assert_eq!(queue.submit(&caller, &[submission]), 1);
        assert!(queue.state.lock().slots.woken(0));
        let taken = queue.take_ready(1, None).unwrap();
        queue.cancel(5);
        assert_eq!(engine.stats().waiters, 1);
        queue.put_back(taken);
        assert_eq!(engine.stats().waiters, 0);
        let mut completions = [const { MaybeUninit::uninit() }; 2];
        assert_eq!(queue.poll(&mut completions, Some(Instant::now())), 1);
        // SAFETY: the poll wrote the first.
        let completion = unsafe { completions[0].assume_init() };
        assert_eq!((completion.status, completion.user_data), (ONCEKEY_CANCELLED, 5));
        assert!(queue.state.lock().slots.take_waiting(5).is_empty());
    }
}
