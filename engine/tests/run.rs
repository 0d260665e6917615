//! The one-call form `run`: when it executes the work, its answers, and the state after a panic or
//! a drop.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::*;
use oncekey::{Engine, ErrorKind, Run, RunError};
use oncekey_testing::{Fault, OpKind};
use pollster::block_on;

/// Runs work that answers `response`, and counts that it ran.
fn run(engine: &Engine, name: &str, request: &str, runs: &Cell<u32>) -> Run<&'static str> {
    let work = async {
        runs.set(runs.get() + 1);
        "response"
    };
    block_on(engine.run(&key(name), body(request), work)).unwrap()
}

#[test]
fn each_outcome_is_a_value_and_only_a_new_key_executes() {
    let engine = Sim::new().open();
    let runs = Cell::new(0);
    assert!(matches!(run(&engine, "k", "a", &runs), Run::Executed("response")));
    match run(&engine, "k", "a", &runs) {
        Run::Replay(recorded) => assert_eq!(recorded.response(), Some(&b"response"[..])),
        other => panic!("replayed, not {other:?}"),
    }
    match run(&engine, "k", "other", &runs) {
        Run::Mismatch(mismatch) => assert_eq!(mismatch.parts(), ["body"]),
        other => panic!("a mismatch, not {other:?}"),
    }
    let held = claim(&engine, "held");
    assert!(matches!(run(&engine, "held", "a", &runs), Run::Locked(_)));
    drop(held);
    assert!(matches!(run(&engine, "held", "a", &runs), Run::Orphaned(_)));
    assert_eq!(runs.get(), 1);
    engine.close().unwrap();
}

#[test]
fn a_panic_goes_on_and_leaves_an_orphan() {
    let engine = Sim::new().open();
    let work = async { if true { panic!("this panic is part of the test") } else { "" } };
    let (name, request) = (key("k"), body("a"));
    let panicked =
        catch_unwind(AssertUnwindSafe(|| block_on(engine.run(&name, request, work)).is_ok()));
    assert!(panicked.is_err());
    let runs = Cell::new(0);
    assert!(matches!(run(&engine, "k", "a", &runs), Run::Orphaned(_)));
    assert_eq!(runs.get(), 0);
}

/// Polls a run that waits in its work, then drops it.
#[test]
fn a_run_that_is_dropped_in_its_work_leaves_an_orphan() {
    let engine = Sim::new().open();
    let reached = Cell::new(false);
    {
        let name = key("k");
        let work = async {
            reached.set(true);
            std::future::pending::<&str>().await
        };
        let mut running = pin!(engine.run(&name, body("a"), work));
        let mut context = Context::from_waker(Waker::noop());
        while !reached.get() {
            assert!(running.as_mut().poll(&mut context).is_pending());
            std::thread::yield_now();
        }
    }
    assert!(matches!(run(&engine, "k", "a", &Cell::new(0)), Run::Orphaned(_)));
}

#[test]
fn a_run_that_is_dropped_before_its_work_leaves_the_key_free() {
    let engine = Sim::new().open();
    let runs = Cell::new(0);
    // A future that is never polled asks for nothing.
    drop(engine.run(&key("never"), body("a"), async { "" }));
    assert!(matches!(run(&engine, "never", "a", &runs), Run::Executed(_)));
    for n in 0..50 {
        let name = key(format!("k-{n}"));
        let started = Cell::new(false);
        let work = async {
            started.set(true);
            "early"
        };
        let answered = {
            let mut running = pin!(engine.run(&name, body("a"), work));
            running.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        assert!(matches!(answered, Poll::Pending | Poll::Ready(Ok(Run::Executed(_)))));
        // The abort of the claim may still be under way. Then this run is told to come again.
        let second = loop {
            match run(&engine, &format!("k-{n}"), "a", &runs) {
                Run::Locked(_) => std::thread::yield_now(),
                second => break second,
            }
        };
        match second {
            Run::Executed(_) => assert!(!started.get()),
            // The work ran in that poll, and at least its record is under way.
            Run::Replay(_) => assert!(started.get()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_response_that_was_not_recorded_comes_back_with_its_claim() {
    let sim = Sim::new();
    let engine = sim.open();
    let work = async {
        // The begin is durable, the end of the operation is not.
        sim.disk.inject(Fault::at_kind(OpKind::Sync, 0).errno(Fault::EIO).forever());
        "response"
    };
    let failed: RunError<&str> = block_on(engine.run(&key("k"), body("a"), work)).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(failed.to_string(), "the operation was executed, its response was not recorded");
    let (response, claim) = failed.executed().unwrap();
    sim.disk.clear_faults();
    engine.reopen().unwrap();
    claim.unwrap().complete(response.as_bytes()).wait().unwrap();
    match run(&engine, "k", "a", &Cell::new(0)) {
        Run::Replay(recorded) => assert_eq!(recorded.response(), Some(&b"response"[..])),
        other => panic!("replayed, not {other:?}"),
    }
    engine.close().unwrap();
    let refused = block_on(engine.run(&key("new"), body("a"), async { "" })).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    assert!(refused.executed().is_none());
}
