//! After a reopening that fails every call finds the engine unavailable, not closed.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::*;
use oncekey::{Begin, Claim, Engine, Error, ErrorKind, Orphan};
use oncekey_testing::{Fault, OpKind, Ops};

/// The handles that calls need, all of an earlier epoch.
struct Handles {
    claim: Option<Claim>,
    orphan: Option<Orphan>,
}

type Call = fn(&Engine, &mut Handles) -> Result<(), Error>;

/// Every call that can fail, and whether it must. A call that memory can answer may succeed.
const CALLS: [(&str, bool, Call); 18] = [
    ("begin, a new key", true, |engine, _| engine.begin(&key("new"), body("a")).wait().map(drop)),
    ("begin, folded", false, |engine, _| engine.begin(&key("folded"), body("a")).wait().map(drop)),
    ("begin, recent", false, |engine, _| engine.begin(&key("recent"), body("a")).wait().map(drop)),
    ("begin_waiting, a new key", true, |engine, _| {
        engine.begin_waiting(&key("new"), body("a"), Duration::from_secs(3600)).wait().map(drop)
    }),
    // Its owner may have ended it meanwhile, which is not recorded: it is no key to wait for.
    ("begin, in flight", true, |engine, _| engine.begin(&key("held"), body("a")).wait().map(drop)),
    ("begin_waiting, in flight", true, |engine, _| {
        engine.begin_waiting(&key("held"), body("a"), Duration::from_secs(3600)).wait().map(drop)
    }),
    ("get, a new key", true, |engine, _| engine.get(&key("new")).map(drop)),
    ("get, folded", false, |engine, _| engine.get(&key("folded")).map(drop)),
    ("get, recent", false, |engine, _| engine.get(&key("recent")).map(drop)),
    ("orphans", true, |engine, _| engine.orphans().map(drop)),
    ("fold", true, |engine, _| engine.fold()),
    ("sweep", true, |engine, _| engine.sweep().map(drop)),
    ("backup_to", true, |engine, _| engine.backup_to("/copy")),
    ("claim.checkpoint", true, |_, handles| {
        handles.claim.as_ref().unwrap().checkpoint(b"step").wait()
    }),
    ("claim.complete", true, |_, handles| {
        given_back(handles.claim.take().unwrap().complete(b"r").wait(), &mut handles.claim)
    }),
    ("claim.abort", true, |_, handles| {
        given_back(handles.claim.take().unwrap().abort().wait(), &mut handles.claim)
    }),
    ("orphan.take_over", true, |_, handles| {
        given_back(handles.orphan.take().unwrap().take_over().wait(), &mut handles.orphan)
    }),
    ("orphan.complete", true, |_, handles| {
        given_back(handles.orphan.take().unwrap().complete(b"r").wait(), &mut handles.orphan)
    }),
];

fn given_back<T, H>(
    result: Result<T, oncekey::Failed<H>>,
    handle: &mut Option<H>,
) -> Result<(), Error> {
    let Err(failed) = result else { return Ok(()) };
    let (error, back) = failed.into_parts();
    *handle = back;
    assert!(handle.is_some(), "the handle comes back: {error}");
    Err(error)
}

/// An engine whose memory holds as little as possible, and handles of each kind.
fn prepared(sim: &Sim) -> (Engine, Handles) {
    let engine = sim.options().cache_bytes(0).open("/store").unwrap();
    complete(&engine, "folded", b"x");
    drop(claim(&engine, "left"));
    engine.fold().unwrap();
    let held = claim(&engine, "held");
    complete(&engine, "recent", b"x");
    let orphan = orphan(&engine, "left");
    (engine, Handles { claim: Some(held), orphan: Some(orphan) })
}

fn causes() -> Vec<(&'static str, Fault)> {
    vec![
        ("reading the store file", Fault::at_kind(OpKind::Read, 0).on_path("store.redb")),
        ("a panic under redb", Fault::at_kind(OpKind::Read, 1).on_path("store.redb").panic()),
        ("opening the journal", Fault::new(Ops::Opening, 0).on_path("journal-")),
        ("syncing the new epoch", Fault::at_kind(OpKind::Sync, 0).on_path("journal-")),
        ("syncing the store file", Fault::at_kind(OpKind::Sync, 0).on_path("store.redb")),
        ("descriptors", Fault::new(Ops::Opening, 0).errno(Fault::EMFILE)),
        ("space", Fault::at_kind(OpKind::Write, 0).errno(Fault::ENOSPC)),
    ]
}

#[test]
fn after_a_failed_reopening_every_call_says_unavailable_until_one_succeeds() {
    let mut failed = 0;
    for (cause, fault) in causes() {
        for unhealthy in [false, true] {
            let sim = Sim::new();
            let (engine, mut handles) = prepared(&sim);
            if unhealthy {
                sim.disk.inject(Fault::at_kind(OpKind::Sync, 0).on_path("journal-0000"));
                assert!(engine.begin(&key("broken"), body("a")).wait().is_err());
                sim.disk.clear_faults();
            }
            sim.disk.inject(fault.clone());
            let Err(why) = engine.reopen() else { continue };
            failed += 1;
            assert_ne!(why.kind(), ErrorKind::Closed, "{cause}: {why}");
            for (name, must_fail, call) in CALLS {
                let context = format!("{cause}, unhealthy before: {unhealthy}, {name}");
                match call(&engine, &mut handles) {
                    Ok(()) => assert!(!must_fail, "{context}: was answered"),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable, "{context}: {error}");
                        assert!(error.to_string().contains(&why.to_string()), "{context}: {error}");
                    }
                }
            }
            let _ = engine.stats();
            sim.disk.clear_faults();
            engine.reopen().unwrap();
            replay(&engine, "folded");
            replay(&engine, "recent");
            handles.claim.take().unwrap().complete(b"late").wait().unwrap();
            handles.orphan.take().unwrap().complete(b"late").wait().unwrap();
        }
    }
    assert!(failed >= 5, "only {failed} reopenings failed");
}

#[test]
fn a_close_after_a_failed_reopening_is_a_close() {
    let sim = Sim::new();
    let (engine, mut handles) = prepared(&sim);
    sim.disk.inject(Fault::at_kind(OpKind::Read, 0).on_path("store.redb").forever());
    engine.reopen().unwrap_err();
    assert_eq!(engine.reopen().unwrap_err().kind(), ErrorKind::Io);
    sim.disk.clear_faults();
    assert_eq!(engine.close().unwrap_err().kind(), ErrorKind::Unavailable, "it had failed");
    assert_eq!(engine.close().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(engine.reopen().unwrap_err().kind(), ErrorKind::Closed);
    for (name, must_fail, call) in CALLS {
        match call(&engine, &mut handles) {
            Ok(()) => assert!(!must_fail, "{name}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{name}: {error}"),
        }
    }
    drop(engine);
    replay(&sim.open(), "recent");
}

/// Begins that wait for an owner when the reopening begins, or that come during it.
#[test]
fn calls_that_wait_while_a_reopening_fails_are_told_unavailable() {
    let sim = Sim::new();
    let (engine, _handles) = prepared(&sim);
    let (told, answers) = mpsc::channel();
    let call = |name: &'static str, call: fn(&Engine) -> Option<Error>| {
        let (engine, told) = (engine.clone(), told.clone());
        thread::spawn(move || {
            for _ in 0..200 {
                told.send((name, call(&engine))).unwrap();
            }
        })
    };
    let callers = [
        call("begin_waiting", |engine| {
            let hour = Duration::from_secs(3600);
            engine.begin_waiting(&key("held"), body("a"), hour).wait().err()
        }),
        call("get", |engine| engine.get(&key("folded")).err()),
        call("orphans", |engine| engine.orphans().err()),
        call("fold", |engine| engine.fold().err()),
        call("sweep", |engine| engine.sweep().err()),
        call("begin", |engine| match engine.begin(&key("new"), body("a")).wait() {
            Ok(Begin::Claimed(claim)) => claim.abort().wait().err().map(Error::from),
            other => other.err(),
        }),
    ];
    drop(told);
    sim.disk.inject(Fault::at_kind(OpKind::Read, 0).on_path("store.redb").forever());
    // The read of the store file may fail before that.
    while engine.reopen().is_ok() {}
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    for (name, error) in answers {
        let kind = error.as_ref().map(Error::kind);
        assert_ne!(kind, Some(ErrorKind::Closed), "{name}: {error:?}");
    }
}
