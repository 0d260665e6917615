//! Completion queues: many operations submitted in one call, their answers taken in another.
//!
//! Each operation has a slot; its waker puts the number of the slot on the list of ready ones. Slots
//! are reused with their wakers, so a late wake may name another operation: it is looked at, and
//! goes on waiting.

use std::collections::{BTreeSet, VecDeque};
use std::mem::MaybeUninit;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::convert::Caller;
use crate::error::Failure;
use crate::outstanding::Outstanding;
#[cfg(unix)]
use crate::signal::Signal;
use crate::submission::{Completion, ONCEKEY_OP_BEGIN, Submission};

const DEFAULT_MAX_BEGINS: usize = 1 << 20;
/// Submissions become visible to pollers in runs of this many.
const RUN: usize = 64;

/// A queue, as its handle, its users and its wakers share it.
pub(crate) struct Completions {
    engine: oncekey::Engine,
    max_begins: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    ready: VecDeque<u32>,
    begins: usize,
    /// The begins that wait for an owner, by user data and slot, from submission to completion.
    waits: BTreeSet<(u64, u32)>,
    woken: bool,
    freed: bool,
    #[cfg(unix)]
    signal: Option<Signal>,
}

struct Slot {
    waker: Waker,
    content: Content,
}

#[allow(clippy::large_enum_variant, reason = "mostly waiting; a box would cost each operation")]
enum Content {
    Vacant,
    /// Some thread is submitting or polling the operation.
    Busy {
        woken: bool,
        cancelled: bool,
    },
    Waiting(Outstanding),
}

impl Content {
    const BUSY: Self = Self::Busy { woken: false, cancelled: false };
}

impl Slot {
    /// The operation that waits here, which is busy from then on.
    fn take(&mut self, index: u32) -> Option<(u32, Waker, Outstanding)> {
        match std::mem::replace(&mut self.content, Content::BUSY) {
            Content::Waiting(operation) => Some((index, self.waker.clone(), operation)),
            other => {
                self.content = other;
                None
            }
        }
    }
}

fn waits(op: u32, max_wait_ms: u64) -> bool {
    op == ONCEKEY_OP_BEGIN && max_wait_ms != 0
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

impl State {
    fn make_ready(&mut self, index: u32) {
        self.ready.push_back(index);
        self.signal();
    }

    fn signal(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal {
            signal.set(self.woken || !self.ready.is_empty());
        }
    }
}

impl Completions {
    /// `max_begins`: how many begins may be outstanding; 0 for the default.
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
        match &mut state.slots[index as usize].content {
            Content::Vacant => return,
            Content::Busy { woken, .. } => {
                *woken = true;
                return;
            }
            Content::Waiting(_) => {}
        }
        state.make_ready(index);
        drop(state);
        self.changed.notify_one();
    }

    /// Submits in order; stops before a begin over the bound. Returns how many were taken.
    pub(crate) fn submit(self: &Arc<Self>, caller: &Caller, submissions: &[Submission]) -> usize {
        let mut accepted = 0;
        for run in submissions.chunks(RUN) {
            let mut reserved = Vec::with_capacity(run.len());
            self.reserve(run, &mut reserved);
            let slots = reserved.drain(..).zip(run);
            let outstanding: Vec<_> = slots
                .map(|((index, waker), submission)| {
                    let mut operation = Outstanding::submit(&self.engine, caller, submission);
                    let answered = operation.is_answered(&waker);
                    (index, operation, answered)
                })
                .collect();
            let taken = outstanding.len();
            accepted += taken;
            self.put_back(outstanding);
            if taken < run.len() {
                break;
            }
        }
        accepted
    }

    fn reserve(self: &Arc<Self>, run: &[Submission], reserved: &mut Vec<(u32, Waker)>) {
        let mut state = self.state.lock();
        for submission in run {
            if submission.op == ONCEKEY_OP_BEGIN {
                if state.begins >= self.max_begins {
                    return;
                }
                state.begins += 1;
            }
            let index = match state.vacant.pop() {
                Some(index) => index,
                None => {
                    let index = state.slots.len() as u32;
                    let waker = SlotWaker { queue: Arc::downgrade(self), index };
                    let waker = Waker::from(Arc::new(waker));
                    state.slots.push(Slot { waker, content: Content::Vacant });
                    index
                }
            };
            if waits(submission.op, submission.max_wait_ms) {
                state.waits.insert((submission.user_data, index));
            }
            let slot = &mut state.slots[index as usize];
            slot.content = Content::BUSY;
            reserved.push((index, slot.waker.clone()));
        }
    }

    /// Gives up the begins that wait with `user_data`; each is answered and ready then.
    pub(crate) fn cancel(&self, user_data: u64) {
        let mut state = self.state.lock();
        let State { slots, waits, .. } = &mut *state;
        let mut taken = Vec::new();
        for (_, index) in waits.range((user_data, 0)..=(user_data, u32::MAX)) {
            let slot = &mut slots[*index as usize];
            match &mut slot.content {
                Content::Vacant => {}
                Content::Busy { cancelled, .. } => *cancelled = true,
                Content::Waiting(_) => taken.extend(slot.take(*index)),
            }
        }
        drop(state);
        let given_up = taken.into_iter().map(|(index, waker, mut operation)| {
            if !operation.is_answered(&waker) {
                operation.cancel();
            }
            (index, operation, true)
        });
        self.put_back(given_up.collect());
    }

    /// Ends the busy state of operations; those that are answered, or were woken meanwhile, are ready,
    /// and so are those that were cancelled meanwhile.
    fn put_back(&self, operations: Vec<(u32, Outstanding, bool)>) {
        let mut cancelled = self.try_put_back(operations);
        if cancelled.is_empty() {
            return;
        }
        for (_, operation, answered) in &mut cancelled {
            operation.cancel();
            *answered = true;
        }
        self.try_put_back(cancelled);
    }

    /// What comes back stays busy: without an answer, and to be cancelled, which goes through the
    /// engine and needs the lock open.
    fn try_put_back(
        &self,
        operations: Vec<(u32, Outstanding, bool)>,
    ) -> Vec<(u32, Outstanding, bool)> {
        let mut to_cancel = Vec::new();
        let mut state = self.state.lock();
        let freed = state.freed;
        let mut dropped = Vec::new();
        let was_empty = state.ready.is_empty();
        for (index, operation, answered) in operations {
            let slot = &mut state.slots[index as usize];
            let cancelled = matches!(slot.content, Content::Busy { cancelled: true, .. });
            if cancelled && !answered && !freed {
                slot.content = Content::BUSY;
                to_cancel.push((index, operation, answered));
                continue;
            }
            let content = if freed {
                dropped.push(operation);
                Content::Vacant
            } else {
                Content::Waiting(operation)
            };
            let before = std::mem::replace(&mut slot.content, content);
            if !freed && (answered || matches!(before, Content::Busy { woken: true, .. })) {
                state.make_ready(index);
            }
        }
        let notify = was_empty && !state.ready.is_empty();
        drop(state);
        if notify {
            self.changed.notify_one();
        }
        to_cancel
    }

    /// Fills in completions as they are ready; waits for the first. Returns how many.
    pub(crate) fn poll(
        &self,
        completions: &mut [MaybeUninit<Completion>],
        until: Option<Instant>,
    ) -> usize {
        let mut done = 0;
        while done == 0 {
            let Some(taken) = self.take_ready(completions.len(), until) else { break };
            let mut unready = Vec::new();
            let mut finished = Vec::with_capacity(taken.len());
            for (index, waker, mut operation) in taken {
                if operation.is_answered(&waker) {
                    finished.push((index, operation.op, operation.user_data));
                    completions[done].write(operation.completion());
                    done += 1;
                } else {
                    unready.push((index, operation, false));
                }
            }
            self.release(&finished);
            if !unready.is_empty() {
                self.put_back(unready);
            }
        }
        done
    }

    fn release(&self, finished: &[(u32, u32, u64)]) {
        let mut state = self.state.lock();
        for (index, op, user_data) in finished {
            state.slots[*index as usize].content = Content::Vacant;
            state.vacant.push(*index);
            if *op == ONCEKEY_OP_BEGIN {
                state.begins -= 1;
                state.waits.remove(&(*user_data, *index));
            }
        }
    }

    /// Takes up to `most` operations that may be answered; `None` when the time is over, or somebody
    /// wants the poll to end.
    fn take_ready(
        &self,
        most: usize,
        until: Option<Instant>,
    ) -> Option<Vec<(u32, Waker, Outstanding)>> {
        let mut state = self.state.lock();
        loop {
            let taken = take_from(&mut state, most);
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
                        && state.ready.is_empty()
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

    /// The descriptor that is readable while there are completions.
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

    /// Drops what is outstanding, outside of the lock: it goes through the engine.
    pub(crate) fn free(&self) {
        let mut state = self.state.lock();
        state.freed = true;
        let contents: Vec<_> = state
            .slots
            .iter_mut()
            .filter(|slot| matches!(slot.content, Content::Waiting(_)))
            .map(|slot| std::mem::replace(&mut slot.content, Content::Vacant))
            .collect();
        drop(state);
        self.changed.notify_all();
        drop(contents);
    }
}

fn take_from(state: &mut State, most: usize) -> Vec<(u32, Waker, Outstanding)> {
    let mut taken = Vec::with_capacity(most.min(state.ready.len()));
    while taken.len() < most {
        let Some(index) = state.ready.pop_front() else { break };
        let slot = &mut state.slots[index as usize];
        // Listed twice, or gone: a late wake of an earlier operation.
        taken.extend(slot.take(index));
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::FINGERPRINTS;
    use crate::status::ONCEKEY_CANCELLED;
    use crate::types::Fingerprint;

    /// As by a poll that was woken in vain.
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
        queue.state.lock().make_ready(0);
        let taken = queue.take_ready(1, None).unwrap();
        queue.cancel(5);
        assert_eq!(engine.stats().waiters, 1);
        queue.put_back(taken.into_iter().map(|(index, _, op)| (index, op, false)).collect());
        assert_eq!(engine.stats().waiters, 0);
        let mut completions = [const { MaybeUninit::uninit() }; 2];
        assert_eq!(queue.poll(&mut completions, Some(Instant::now())), 1);
        // SAFETY: the poll wrote the first.
        let completion = unsafe { completions[0].assume_init() };
        assert_eq!((completion.status, completion.user_data), (ONCEKEY_CANCELLED, 5));
        assert!(queue.state.lock().waits.is_empty());
    }
}
