//! An answer on its way to a caller that waits, polls, gives up, or is gone.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use super::*;
use crate::api::pending::Pending;
use crate::base::error::Result;

/// A value that records its drop, as a claim does, and whether a caller had it.
#[derive(Debug)]
pub(super) struct Guard {
    delivered: bool,
    ends: Seen<bool>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.ends.lock().unwrap().push(self.delivered);
    }
}

/// Sends an answer while `receive` works on its `Pending`. `receive` returns whether it took the
/// answer out. The answer must be dropped once, as delivered only if it was taken out.
fn deliver(receive: impl Fn(Pending<Guard>) -> bool + Sync + Send + 'static) {
    explore(move || {
        let ends = Seen::default();
        let (op, pending) = guarded(&ends);
        let teller = thread::spawn(move || op.tell(Ok((Reply::Done, None, NOW))));
        let taken = receive(pending.on_delivery(|guard| guard.delivered = true));
        teller.join().unwrap();
        assert_eq!(*ends.lock().unwrap(), [taken]);
    });
}

/// A `Pending` whose answer is a guard.
pub(super) fn guarded(ends: &Seen<bool>) -> (Operation, Pending<Guard>) {
    let guard = Guard { delivered: false, ends: ends.clone() };
    Pending::asked(request(Command::Abort { token: TOKEN }), move |_| Ok(guard))
}

pub(super) fn poll(pending: &mut Pending<Guard>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(pending).poll(&mut context).is_ready()
}

fn is_delivered(answer: Result<Guard>) -> bool {
    assert!(answer.unwrap().delivered);
    true
}

#[test]
fn an_answer_wakes_whoever_waits() {
    deliver(|pending| is_delivered(pending.wait()));
}

#[test]
fn an_answer_wakes_whoever_waits_after_a_poll() {
    deliver(|mut pending| poll(&mut pending) || is_delivered(pending.wait()));
}

#[test]
fn a_wait_that_timed_out_loses_nothing() {
    for polled in [false, true] {
        deliver(move |mut pending| {
            if polled && poll(&mut pending) {
                return true;
            }
            is_delivered(pending.wait_timeout(Duration::ZERO).unwrap_or_else(Pending::wait))
        });
    }
}

/// A claim that no caller took out is aborted, not orphaned.
#[test]
fn what_nobody_took_out_ends_undelivered() {
    for polled in [false, true] {
        deliver(move |mut pending| polled && poll(&mut pending));
    }
}

#[test]
fn a_sender_that_vanishes_wakes_whoever_waits() {
    for polled in [false, true] {
        explore(move || {
            let abort = request(Command::Abort { token: TOKEN });
            let (op, mut pending) = Pending::<Guard>::asked(abort, |_| unreachable!());
            let dropper = thread::spawn(move || drop(op));
            if !(polled && poll(&mut pending)) {
                pending.wait().unwrap_err();
            }
            dropper.join().unwrap();
        });
    }
}
