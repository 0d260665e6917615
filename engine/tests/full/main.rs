//! A full disk: new claims are refused, ends go on, nothing acknowledged is lost, and the engine
//! recovers by itself once there is space.
#![allow(missing_docs, clippy::unwrap_used)]

mod commit;
#[path = "../common/mod.rs"]
mod common;

use std::time::Duration;

use common::stalled::{Stalled, stalled_at, unanswered};
use common::*;
use oncekey::{Engine, ErrorKind};
use oncekey_testing::{CrashMode, Fault, OpKind};

/// The files that a fold appends to, and those that it writes anew.
const RECORDS: &str = "records-";
const RUNS: &str = "run-";

fn begin_until_claimed(engine: &Engine, name: &str) {
    loop {
        match engine.begin(&key(name), body("a")).wait() {
            Ok(begun) => return assert!(matches!(begun, oncekey::Begin::Claimed(_)), "{begun:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::StoreFull, "{error:?}"),
        }
        std::thread::yield_now();
    }
}

/// The lengths of the record files.
fn record_bytes(sim: &Sim) -> Vec<u64> {
    let files = sim.disk.files();
    let records = files.iter().filter(|(path, _)| path.to_string_lossy().contains(RECORDS));
    records.map(|(_, bytes)| *bytes).collect()
}

#[test]
fn a_full_disk_refuses_claims_and_completes_what_is_claimed() {
    let sim = Sim::new();
    let engine = sim.open();
    let held = claim(&engine, "held");
    // The folder prepares a segment before it folds: one stands ready when the disk is full.
    engine.fold().unwrap();
    sim.disk.set_capacity(Some(sim.disk.used_bytes()));
    // A segment holds 31 groups of one block. The next one is taken, and the folder fails to
    // prepare another; what was prepared has room.
    let others: Vec<_> =
        (0..35).map(|n| engine.begin(&key(format!("k{n}")), body("a")).wait()).collect();
    while !engine.stats().full {
        std::thread::yield_now();
    }
    assert_eq!(begin_error(&engine, "new").kind(), ErrorKind::StoreFull);
    locked(&engine, "held");
    held.complete(b"x").wait().unwrap();
    // Nothing has expired, and a commit of the store file would find no space.
    sim.disk.inject(
        Fault::at_kind(OpKind::Write, 0).errno(Fault::ENOSPC).on_path("store.redb").forever(),
    );
    assert_eq!(engine.sweep().unwrap(), 0);
    assert_eq!(engine.stats().failures, 0);
    sim.disk.clear_faults();
    // After 64 groups a fold is due, which finds no space either.
    drop(others);
    assert_eq!(engine.fold().unwrap_err().kind(), ErrorKind::StoreFull);
    sim.disk.set_capacity(None);
    // The folder tries again by itself.
    begin_until_claimed(&engine, "later");
    replay(&engine, "held");
    engine.fold().unwrap();
    assert_eq!(engine.stats().failures, 0);
}

/// Each operation of a fold on its files finds no space once. A later fold makes up for it, whatever was written by
/// then.
#[test]
fn a_fold_that_found_no_space_once_is_made_up_for() {
    let mut met = 0;
    let kinds = [OpKind::Create, OpKind::Open, OpKind::Write, OpKind::SetLen, OpKind::Sync];
    let cases = kinds.into_iter().flat_map(|kind| [(kind, 0), (kind, 1)]);
    for ((kind, nth), files) in cases.flat_map(|case| [(case, RECORDS), (case, RUNS)]) {
        let sim = Sim::new();
        let engine = sim.open();
        // The records are of two buckets. The first has a file already.
        fold_one_of_two(&engine);
        let held = claim(&engine, "held");
        claim(&engine, "far").complete_with(Some(b"three"), Some(TTL * 4)).wait().unwrap();
        let fault = Fault::at_kind(kind, nth).errno(Fault::ENOSPC).partial(4096).drop_dirty();
        sim.disk.inject(fault.on_path(files));
        let folded = engine.fold();
        sim.disk.clear_faults();
        met += sim.disk.faults_fired();
        if let Err(error) = folded {
            assert_eq!(error.kind(), ErrorKind::StoreFull);
        }
        held.complete(b"four").wait().unwrap();
        for name in ["folded", "journalled", "far", "held"] {
            replay(&engine, name);
        }
        engine.fold().unwrap();
        begin_until_claimed(&engine, "later");
        assert_eq!(engine.stats().failures, 0);
        // Twice: first the durable bytes, then those that recovery left.
        let mut sim = sim;
        for _ in 0..2 {
            let image = sim.disk.crash(CrashMode::LoseAllUnsynced);
            sim = sim.on(image);
            let engine = sim.open();
            both_replay(&engine);
            assert_eq!(replay(&engine, "far").response(), Some(&b"three"[..]));
            assert_eq!(replay(&engine, "held").response(), Some(&b"four"[..]));
            engine.fold().unwrap();
        }
    }
    assert!(met >= 12, "{met}");
}

/// The file exists although its creation reported that there is no space.
#[test]
fn a_file_that_is_there_already_does_no_harm() {
    for files in [RECORDS, RUNS] {
        let sim = Sim::new();
        let engine = sim.open();
        complete(&engine, "k", b"x");
        let made = Fault::at_kind(OpKind::Create, 0).errno(Fault::ENOSPC).applied();
        sim.disk.inject(made.on_path(files));
        drop(engine.fold());
        assert_eq!(sim.disk.faults_fired(), 1);
        engine.fold().unwrap();
        engine.close().unwrap();
        replay(&sim.open(), "k");
        assert!(sim.options().verify("/store").unwrap().is_sound());
        let files = sim.disk.files();
        let runs = files.iter().filter(|(path, _)| path.to_string_lossy().contains(RUNS));
        assert_eq!(runs.count(), 1);
    }
}

/// An engine with a folded and a journalled record, and no space for record files.
fn without_space(sim: &Sim) -> (Engine, oncekey::Claim) {
    let engine = sim.open();
    complete(&engine, "folded", b"one");
    engine.fold().unwrap();
    let held = claim(&engine, "held");
    for n in 0..3 {
        complete(&engine, &format!("journalled {n}"), &[n; 4096]);
    }
    let fault = Fault::at_kind(OpKind::Write, 0).errno(Fault::ENOSPC).partial(8192);
    sim.disk.inject(fault.on_path(RECORDS).forever());
    assert_eq!(engine.fold().unwrap_err().kind(), ErrorKind::StoreFull);
    (engine, held)
}

fn journalled_replay(engine: &Engine) {
    assert_eq!(replay(engine, "folded").response(), Some(&b"one"[..]));
    for n in 0..3 {
        assert_eq!(replay(engine, &format!("journalled {n}")).response(), Some(&[n; 4096][..]));
    }
}

#[test]
fn without_space_to_fold_only_claims_are_refused() {
    let sim = Sim::new();
    let (engine, held) = without_space(&sim);
    assert!(engine.stats().full);
    assert_eq!(begin_error(&engine, "new").kind(), ErrorKind::StoreFull);
    held.checkpoint(b"half").wait().unwrap();
    held.complete(b"done").wait().unwrap();
    // Every caller that waits for a fold is told each time.
    assert_eq!(engine.fold().unwrap_err().kind(), ErrorKind::StoreFull);
    assert_eq!(engine.backup_to("/copy").unwrap_err().kind(), ErrorKind::StoreFull);
    engine.sweep().unwrap();
    journalled_replay(&engine);
    assert_eq!(engine.stats().failures, 0);
    // The fold gave back the space that it took.
    assert_eq!(record_bytes(&sim), [4096]);

    sim.disk.clear_faults();
    begin_until_claimed(&engine, "new");
    engine.fold().unwrap();
    assert!(!engine.stats().full);
    journalled_replay(&engine);
    engine.backup_to("/copy").unwrap();
    assert_eq!(replay(&engine, "held").response(), Some(&b"done"[..]));
}

/// Ends go on for as long as the journal has room, and are then refused without having happened.
#[test]
fn ends_use_the_room_of_the_journal() {
    let sim = Sim::new();
    let engine = sim.open();
    let mut held: Vec<_> = (0..100).map(|n| claim(&engine, &format!("held {n}"))).collect();
    engine.fold().unwrap();
    complete(&engine, "journalled", b"x");
    sim.disk.set_capacity(Some(sim.disk.used_bytes()));
    assert_eq!(engine.fold().unwrap_err().kind(), ErrorKind::StoreFull);
    let mut ended = 0;
    let refused = loop {
        match held.pop().unwrap().complete(&[7; 4096]).wait() {
            Ok(_) => ended += 1,
            Err(failed) => break failed,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::StoreFull);
    assert!(ended > 10, "{ended}");
    let name = format!("held {}", held.len());
    locked(&engine, &name);
    let held = refused.into_handle().unwrap();
    sim.disk.set_capacity(None);
    begin_until_claimed(&engine, "new");
    held.complete(b"again").wait().unwrap();
    assert_eq!(replay(&engine, &name).response(), Some(&b"again"[..]));
    assert_eq!(engine.stats().failures, 0);
}

/// Begins that wait for memory wait for a fold. When the fold finds no space, they are answered.
#[test]
fn begins_that_wait_for_a_fold_are_told_that_it_found_no_space() {
    let forever = Duration::from_secs(3600);
    let stalled = stalled_at(RECORDS, |options| options.overload_after(forever));
    let Stalled { sim, held, engine } = stalled;
    let owners: Vec<_> = (0..30).map(|n| claim(&engine, &format!("owner {n}"))).collect();
    held.hold();
    for owner in owners {
        owner.complete(&[1; 4096]).wait().unwrap();
    }
    held.wait_for_sync();
    let waiting = unanswered(engine.begin(&key("new"), body("a")));
    sim.disk.inject(Fault::at_kind(OpKind::Sync, 0).errno(Fault::ENOSPC).on_path(RECORDS));
    held.release();
    assert_eq!(waiting.wait().unwrap_err().kind(), ErrorKind::StoreFull);
    begin_until_claimed(&engine, "new");
}

#[test]
fn without_space_to_fold_the_engine_closes_and_reopens() {
    let sim = Sim::new();
    let (engine, held) = without_space(&sim);
    engine.reopen().unwrap();
    journalled_replay(&engine);
    held.complete(b"late").wait().unwrap();
    assert_eq!(engine.close().unwrap_err().kind(), ErrorKind::StoreFull);
    assert_eq!(engine.close().unwrap_err().kind(), ErrorKind::Closed);
    let engine = sim.open();
    journalled_replay(&engine);
    assert_eq!(replay(&engine, "held").response(), Some(&b"late"[..]));
    drop(engine);
    sim.disk.clear_faults();
    let engine = sim.open();
    engine.fold().unwrap();
    engine.close().unwrap();
    assert!(sim.options().verify("/store").unwrap().is_sound());
}

#[test]
fn without_space_to_fold_a_crash_loses_nothing() {
    for mode in [CrashMode::ProcessKill, CrashMode::LoseAllUnsynced] {
        for cut_fails in [false, true] {
            let sim = Sim::new();
            if cut_fails {
                let fault = Fault::at_kind(OpKind::SetLen, 1).errno(Fault::EIO).forever();
                sim.disk.inject(fault.on_path(RECORDS));
            }
            let (engine, _held) = without_space(&sim);
            let left = record_bytes(&sim);
            assert_eq!(left, [if cut_fails { 4096 + 8192 } else { 4096 }]);
            let sim = sim.on(sim.disk.crash(mode));
            drop(engine);
            let engine = sim.open();
            journalled_replay(&engine);
            engine.fold().unwrap();
            journalled_replay(&engine);
            engine.close().unwrap();
            assert!(sim.options().verify("/store").unwrap().is_sound());
        }
    }
}

/// The fold needs the space that a sweep gives back.
#[test]
fn expired_records_make_space_for_a_fold() {
    let sim = Sim::new();
    let options = sim.options().sweep_interval(Duration::from_millis(1));
    let engine = options.open("/store").unwrap();
    for n in 0..60 {
        complete(&engine, &format!("old {n}"), &[7; 4096]);
    }
    engine.fold().unwrap();
    for n in 0..6 {
        claim(&engine, &format!("new {n}"))
            .complete_with(Some(&[n; 4096]), Some(TTL * 9))
            .wait()
            .unwrap();
    }
    // The store file keeps room for what a sweep writes: only record files are short of space.
    let fault = Fault::at_kind(OpKind::Write, 0).errno(Fault::ENOSPC).on_path(RECORDS).forever();
    sim.disk.inject(fault);
    assert_eq!(engine.fold().unwrap_err().kind(), ErrorKind::StoreFull);
    let folded = record_bytes(&sim);
    sim.disk.start_trace();
    std::thread::sleep(Duration::from_millis(20));
    let swept = sim.disk.take_trace();
    let writes = swept.iter().filter(|op| op.path.ends_with("store.redb") && op.kind.is_change());
    assert_eq!(writes.count(), 0, "a sweep that gives nothing back");
    sim.clock.advance(TTL * 2);
    while record_bytes(&sim).contains(&folded[0]) {
        std::thread::yield_now();
    }
    sim.disk.clear_faults();
    begin_until_claimed(&engine, "later");
    engine.fold().unwrap();
    for n in 0..6 {
        assert_eq!(replay(&engine, &format!("new {n}")).response(), Some(&[n; 4096][..]));
    }
}
