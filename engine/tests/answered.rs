//! Every call that blocks ends with an answer, through every end and failure of the engine.
//!
//! Each blocking call is made again and again by a thread of its own, while the engine is reopened,
//! closed, dropped, while its disk fails or its workers panic. A watchdog ends a test that hangs.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::stalled::{Stalled, stalled};
use common::*;
use oncekey::{Begin, Engine, ErrorKind};
use oncekey_testing::{Fault, OpKind, Ops};

/// Far more than anything here takes on a busy machine.
const HANGS: Duration = Duration::from_secs(120);

type Call = fn(&Engine, u64);

/// The blocking calls. The tests here ask only that each returns, not what it returns.
const CALLS: [(&str, Call); 10] = [
    ("fold", |engine, _| drop(engine.fold())),
    ("sweep", |engine, _| drop(engine.sweep())),
    ("backup_to", |engine, round| {
        drop(engine.backup_to(format!("/backup-{round}")));
    }),
    ("get", |engine, round| drop(engine.get(&key(format!("k{round}"))))),
    ("orphans", |engine, _| drop(engine.orphans())),
    ("stats", |engine, _| {
        let _ = engine.stats();
    }),
    ("begin", |engine, round| {
        if let Ok(Begin::Claimed(claim)) = engine.begin(&key(format!("b{round}")), body("a")).wait()
        {
            drop(claim.complete(b"r").wait());
        }
    }),
    ("begin_waiting", |engine, round| {
        let key = key(format!("w{}", round / 2));
        let begun = engine.begin_waiting(&key, body("a"), Duration::from_secs(3600));
        if let Ok(Begin::Claimed(claim)) = begun.wait() {
            drop(claim.abort().wait());
        }
    }),
    ("checkpoint", |engine, round| {
        if let Ok(Begin::Claimed(claim)) = engine.begin(&key(format!("c{round}")), body("a")).wait()
        {
            drop(claim.checkpoint(b"step").wait());
        }
    }),
    ("take_over", |engine, round| {
        if let Ok(Begin::Orphaned(orphan)) =
            engine.begin(&key(format!("c{round}")), body("a")).wait()
        {
            drop(orphan.take_over().wait());
        }
    }),
];

/// Runs `event` while each call is made in a loop, and ends the loops when it returns.
fn beside_all_calls(name: &str, sim: Sim, event: impl FnOnce(&Sim, Engine) + Send + 'static) {
    let engine = sim.options().overload_after(Duration::MAX).open("/store").unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicU64::new(0));
    let (ended, report) = mpsc::channel();
    for (call, make) in CALLS {
        let (engine, over, calls) = (engine.clone(), over.clone(), calls.clone());
        let ended = ended.clone();
        thread::spawn(move || {
            for round in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                make(&engine, round);
                calls.fetch_add(1, Ordering::Relaxed);
            }
            drop(engine);
            ended.send(call).unwrap();
        });
    }
    let ended_event = ended;
    thread::spawn({
        let over = over.clone();
        move || {
            let event = panic::catch_unwind(AssertUnwindSafe(|| event(&sim, engine)));
            over.store(true, Ordering::Relaxed);
            ended_event.send(if event.is_ok() { "the event" } else { "a panic" }).unwrap();
        }
    });
    let mut missing: Vec<_> = CALLS.iter().map(|(call, _)| *call).chain(["the event"]).collect();
    while !missing.is_empty() {
        match report.recv_timeout(HANGS) {
            Ok("a panic") => panic!("{name}: the event panicked"),
            Ok(call) => missing.retain(|missing| *missing != call),
            Err(_) => panic!("{name}: no answer to {missing:?}"),
        }
    }
    assert!(calls.load(Ordering::Relaxed) > CALLS.len() as u64, "{name}: calls were made");
}

#[test]
fn while_a_healthy_engine_is_reopened_again_and_again() {
    beside_all_calls("reopen", Sim::new(), |_, engine| {
        for _ in 0..150 {
            engine.reopen().unwrap();
            thread::sleep(Duration::from_millis(2));
        }
    });
}

#[test]
fn while_the_engine_is_closed() {
    for _ in 0..20 {
        beside_all_calls("close", Sim::new(), |_, engine| {
            thread::sleep(Duration::from_millis(5));
            engine.close().unwrap();
            assert_eq!(engine.fold().unwrap_err().kind(), ErrorKind::Closed);
        });
    }
}

#[test]
fn while_the_disk_fails_and_the_engine_is_reopened() {
    for part in ["journal", "store.redb", "records-", "run-"] {
        beside_all_calls(part, Sim::new(), move |sim, engine| {
            for nth in 0..8 {
                thread::sleep(Duration::from_millis(3));
                sim.disk.inject(Fault::new(Ops::Changes, nth).on_path(part));
                thread::sleep(Duration::from_millis(3));
                sim.disk.clear_faults();
                engine.reopen().unwrap();
            }
        });
    }
}

#[test]
fn while_a_worker_panics_and_the_engine_is_closed() {
    for part in ["journal", "store.redb", "records-"] {
        for kind in [OpKind::Write, OpKind::Sync] {
            beside_all_calls(part, Sim::new(), move |sim, engine| {
                thread::sleep(Duration::from_millis(3));
                sim.disk.inject(Fault::at_kind(kind, 0).on_path(part).panic());
                thread::sleep(Duration::from_millis(10));
                drop(engine.close());
                sim.disk.clear_faults();
            });
        }
    }
}

#[test]
fn when_the_last_clone_is_dropped() {
    for _ in 0..20 {
        let sim = Sim::new();
        let engine = sim.open();
        let owner = claim(&engine, "held");
        let waiting = engine.begin_waiting(&key("held"), body("a"), Duration::from_secs(3600));
        let dropping = thread::spawn(move || drop(engine));
        let answered = waiting.wait_timeout(HANGS).expect("an answer");
        assert_eq!(answered.unwrap_err().kind(), ErrorKind::Closed);
        let Ok(ended) = owner.complete(b"late").wait_timeout(HANGS) else { panic!("hangs") };
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
        dropping.join().unwrap();
    }
}

/// A begin is queued behind a sync, the engine begins to end, and only then the sync fails.
#[test]
fn what_is_queued_when_the_disk_fails_while_the_engine_ends() {
    for name in ["close", "reopen", "drop"] {
        let Stalled { sim, held, engine } = stalled(|options| options);
        // A close has nothing to fold, so it ends while the sync still runs.
        engine.fold().unwrap();
        held.hold();
        let syncing = engine.begin(&key("syncing"), body("a"));
        held.wait_for_sync();
        let queued = engine.begin(&key("queued"), body("a"));
        // This thread knows nothing of a dropped engine, and keeps none open.
        let other = (name != "drop").then(|| engine.clone());
        let ending = thread::spawn(move || match name {
            "close" => drop(engine.close()),
            "reopen" => drop(engine.reopen()),
            _ => drop(engine),
        });
        match &other {
            // Once the queue is stopped, begins are refused at once.
            Some(other) => while other.fold().is_ok() {},
            None => thread::sleep(Duration::from_millis(20)),
        }
        sim.disk.inject(Fault::at_kind(OpKind::Sync, 0).on_path("journal-0000"));
        held.release();
        for pending in [syncing, queued] {
            let answered = pending.wait_timeout(HANGS);
            let answered = answered.unwrap_or_else(|_| panic!("{name}: no answer"));
            answered.expect_err("the sync failed");
        }
        sim.disk.clear_faults();
        ending.join().unwrap();
    }
}
