//! The slots of a completion queue: where each operation is, and which ones may have an answer.
//!
//! All access is under the lock of the queue, and nothing here calls the engine. An operation lies in a box
//! of its own. The box is in its slot while the operation waits. The thread that submits or polls it takes
//! the box out; it is then the only thread that touches the operation, and needs no lock.
//!
//! Boxes are reused with their wakers. A waker puts the number of its slot on the ready list, so a late wake
//! may name a later operation. That operation is polled in vain and continues to wait.

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

/// Operations that one thread has taken out of their slots.
#[allow(clippy::vec_box, reason = "the boxes go to and fro between here and the slots")]
pub(crate) type Held = Vec<Box<Outstanding>>;

enum Content {
    Vacant,
    /// A thread has the operation.
    Busy {
        woken: bool,
        cancelled: bool,
    },
    Waiting(Box<Outstanding>),
}

impl Content {
    const BUSY: Self = Self::Busy { woken: false, cancelled: false };

    /// The operation that waits here. The slot is busy afterwards.
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
    /// Reserves a busy place for each submission, and stops before a begin over the bound.
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

    /// Marks a woken operation as ready. Returns whether it was waiting. A busy operation becomes ready when
    /// it is put back.
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

    /// Takes up to `most` operations that may have an answer. Their slots are busy afterwards.
    pub(crate) fn take_ready(&mut self, most: usize) -> Held {
        let mut taken = Vec::with_capacity(most.min(self.ready.len()));
        while taken.len() < most {
            let Some(index) = self.ready.pop_front() else { break };
            // A slot may be listed twice, or be vacant by now: a late wake of an earlier operation.
            taken.extend(self.contents[index as usize].take());
        }
        taken
    }

    /// Takes the begins that wait with `user_data`, to be cancelled. Their slots are busy afterwards. Begins
    /// that are busy already are cancelled when they are put back.
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

    /// Ends the busy state of operations. Those that have an answer or were woken meanwhile are ready. The
    /// returned operations stay busy: they have no answer and were cancelled meanwhile.
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

    /// Vacates the slots of operations whose answers were handed out.
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

    /// Takes all waiting operations, for the end of the queue.
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
