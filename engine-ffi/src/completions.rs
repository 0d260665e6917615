//! Completion queues: many operations submitted in one call, their answers taken in another.
//!
//! Each operation has a slot; its waker puts the number of the slot on the list of ready ones. Slots
//! are reused with their wakers, so a late wake may name another operation: it is looked at, and
//! goes on waiting.

use std::collections::VecDeque;
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
    },
    Waiting(Outstanding),
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
            Content::Busy { woken } => {
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
            let slot = &mut state.slots[index as usize];
            slot.content = Content::Busy { woken: false };
            reserved.push((index, slot.waker.clone()));
        }
    }

    /// Ends the busy state of operations; those that are answered, or were woken meanwhile, are ready.
    fn put_back(&self, operations: Vec<(u32, Outstanding, bool)>) {
        let mut state = self.state.lock();
        let freed = state.freed;
        let mut dropped = Vec::new();
        let was_empty = state.ready.is_empty();
        for (index, operation, answered) in operations {
            let slot = &mut state.slots[index as usize];
            let content = if freed {
                dropped.push(operation);
                Content::Vacant
            } else {
                Content::Waiting(operation)
            };
            let before = std::mem::replace(&mut slot.content, content);
            if !freed && (answered || matches!(before, Content::Busy { woken: true })) {
                state.make_ready(index);
            }
        }
        let notify = was_empty && !state.ready.is_empty();
        drop(state);
        if notify {
            self.changed.notify_one();
        }
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
                    finished.push((index, operation.op));
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

    fn release(&self, finished: &[(u32, u32)]) {
        let mut state = self.state.lock();
        for (index, op) in finished {
            state.slots[*index as usize].content = Content::Vacant;
            state.vacant.push(*index);
            if *op == ONCEKEY_OP_BEGIN {
                state.begins -= 1;
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
        if matches!(slot.content, Content::Waiting(_))
            && let Content::Waiting(operation) =
                std::mem::replace(&mut slot.content, Content::Busy { woken: false })
        {
            taken.push((index, slot.waker.clone(), operation));
        }
    }
    taken
}
