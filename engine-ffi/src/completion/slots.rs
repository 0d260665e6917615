//! The slots of a completion queue: who has which operation, and which of them may be answered.
//!
//! All of it is looked at under the lock of the queue, and nothing of it calls the engine. An operation
//! lies in a box of its own, which is in its slot while it waits; the thread that submits or polls it
//! takes the box out, which makes it the only one to touch it, and needs no lock for that.
//!
//! Boxes are reused with their wakers, which put the number of the slot on the list of ready ones. So a
//! late wake may name another operation: it is looked at, and goes on waiting.

use std::collections::{BTreeSet, VecDeque};
use std::task::Waker;

use crate::abi::submission::{ONCEKEY_OP_BEGIN, Submission};
use crate::completion::outstanding::Outstanding;

#[derive(Default)]
pub(crate) struct Slots {
    contents: Vec<Content>,
    vacant: Held,
    ready: VecDeque<u32>,
    begins: usize,
    /// The begins that wait for an owner, by user data and slot, from submission to completion.
    waits: BTreeSet<(u64, u32)>,
}

/// Operations that a thread has.
#[allow(clippy::vec_box, reason = "the boxes go to and fro between here and the slots")]
pub(crate) type Held = Vec<Box<Outstanding>>;

enum Content {
    Vacant,
    /// Some thread has the operation.
    Busy {
        woken: bool,
        cancelled: bool,
    },
    Waiting(Box<Outstanding>),
}

impl Content {
    const BUSY: Self = Self::Busy { woken: false, cancelled: false };

    /// The operation that waits here, which is busy from then on.
    fn take(&mut self) -> Option<Box<Outstanding>> {
        match std::mem::replace(self, Self::BUSY) {
            Self::Waiting(operation) => Some(operation),
            other => {
                *self = other;
                None
            }
        }
    }
}

fn waits(submission: &Submission) -> bool {
    submission.op == ONCEKEY_OP_BEGIN && submission.max_wait_ms != 0
}

impl Slots {
    /// A place for each submission, busy; as many as there are before a begin over the bound.
    pub(crate) fn reserve(
        &mut self,
        submissions: &[Submission],
        max_begins: usize,
        waker: impl Fn(u32) -> Waker,
    ) -> Held {
        let mut reserved = Vec::with_capacity(submissions.len());
        for submission in submissions {
            if submission.op == ONCEKEY_OP_BEGIN {
                if self.begins >= max_begins {
                    break;
                }
                self.begins += 1;
            }
            let operation = self.vacant.pop().unwrap_or_else(|| {
                let index = self.contents.len() as u32;
                self.contents.push(Content::Vacant);
                Box::new(Outstanding::vacant(index, waker(index)))
            });
            self.contents[operation.index as usize] = Content::BUSY;
            if waits(submission) {
                self.waits.insert((submission.user_data, operation.index));
            }
            reserved.push(operation);
        }
        reserved
    }

    /// Whether the operation that was woken waits, and so is ready now. One that is busy is ready when it
    /// comes back.
    pub(crate) fn woken(&mut self, index: u32) -> bool {
        match &mut self.contents[index as usize] {
            Content::Vacant => false,
            Content::Busy { woken, .. } => {
                *woken = true;
                false
            }
            Content::Waiting(_) => {
                self.ready.push_back(index);
                true
            }
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Up to `most` operations that may be answered, busy from then on.
    pub(crate) fn take_ready(&mut self, most: usize) -> Held {
        let mut taken = Vec::with_capacity(most.min(self.ready.len()));
        while taken.len() < most {
            let Some(index) = self.ready.pop_front() else { break };
            // Listed twice, or gone: a late wake of an earlier operation.
            taken.extend(self.contents[index as usize].take());
        }
        taken
    }

    /// The begins that wait with `user_data`, to be cancelled, busy from then on. Those that are busy
    /// already are cancelled when they come back.
    pub(crate) fn take_waiting(&mut self, user_data: u64) -> Held {
        let mut taken = Vec::new();
        for (_, index) in self.waits.range((user_data, 0)..=(user_data, u32::MAX)) {
            match &mut self.contents[*index as usize] {
                Content::Vacant => {}
                Content::Busy { cancelled, .. } => *cancelled = true,
                waiting @ Content::Waiting(_) => taken.extend(waiting.take()),
            }
        }
        taken
    }

    /// Ends the busy state of operations; those that are answered, or were woken meanwhile, are ready. What
    /// comes back stays busy: it has no answer and was cancelled meanwhile.
    pub(crate) fn put_back(&mut self, operations: Held) -> Held {
        let mut to_cancel = Vec::new();
        for operation in operations {
            let index = operation.index;
            let answered = operation.is_answered();
            let content = &mut self.contents[index as usize];
            let Content::Busy { woken, cancelled } = *content else {
                unreachable!("a slot is busy while a thread has its operation");
            };
            if cancelled && !answered {
                to_cancel.push(operation);
                continue;
            }
            *content = Content::Waiting(operation);
            if answered || woken {
                self.ready.push_back(index);
            }
        }
        to_cancel
    }

    /// Takes the places of operations back whose answers were handed out.
    pub(crate) fn release(&mut self, operations: Held) {
        for operation in operations {
            self.contents[operation.index as usize] = Content::Vacant;
            if operation.op == ONCEKEY_OP_BEGIN {
                self.begins -= 1;
                self.waits.remove(&(operation.user_data, operation.index));
            }
            self.vacant.push(operation);
        }
    }

    /// Everything that waits, for good.
    pub(crate) fn take_all(&mut self) -> Held {
        self.contents.iter_mut().filter_map(Content::take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::types::Fingerprint;

    fn reserve(slots: &mut Slots, max_wait_ms: u64) -> Held {
        let begin = Submission::begin(b"k", Fingerprint { id: 0 });
        let submissions = [Submission { user_data: 5, max_wait_ms, ..begin }];
        slots.reserve(&submissions, 1, |_| Waker::noop().clone())
    }

    #[test]
    fn a_wake_while_a_thread_has_the_operation_counts_when_it_comes_back() {
        let mut slots = Slots::default();
        let taken = reserve(&mut slots, 0);
        assert!(!slots.woken(0));
        assert!(!slots.is_ready() && slots.take_ready(1).is_empty());
        assert!(slots.put_back(taken).is_empty());
        let taken = slots.take_ready(1);
        assert_eq!(taken.len(), 1);
        assert!(slots.put_back(taken).is_empty());
        assert!(!slots.is_ready(), "it counts once");
    }

    #[test]
    fn a_place_is_vacant_again_with_its_waker_and_a_late_wake_of_it_is_nothing() {
        let mut slots = Slots::default();
        for _ in 0..3 {
            let mut reserved = reserve(&mut slots, 1);
            assert_eq!(reserved.len(), 1);
            assert!(reserve(&mut slots, 1).is_empty(), "one begin is the bound");
            (reserved[0].op, reserved[0].user_data) = (ONCEKEY_OP_BEGIN, 5);
            slots.release(reserved);
            assert!(!slots.woken(0));
            assert!(slots.waits.is_empty());
        }
        assert_eq!((slots.contents.len(), slots.vacant.len()), (1, 1));
    }

    #[test]
    fn an_operation_that_is_listed_twice_is_taken_once() {
        let mut slots = Slots::default();
        let taken = reserve(&mut slots, 0);
        slots.put_back(taken);
        assert!(slots.woken(0) && slots.woken(0));
        let taken = slots.take_ready(9);
        assert_eq!(taken.len(), 1);
        assert!(!slots.is_ready());
        slots.put_back(taken);
        assert_eq!(slots.take_all().len(), 1);
    }
}
