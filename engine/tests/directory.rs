//! The store directory: who may open it, what is refused and left untouched, backup and reopen.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use oncekey::{Engine, ErrorKind, Lookup, Options};
use oncekey_testing::{CrashMode, Fault, OpKind, Ops, SimDisk};

/// Every file with its bytes, but for the lock, whose file says nothing.
fn contents(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files()
        .into_iter()
        .filter(|(path, _)| !path.ends_with("LOCK"))
        .map(|(path, _)| (path.clone(), disk.read_file(&path)))
        .collect()
}

/// A store with folded and journalled records, stopped as by `kill -9`.
fn stopped() -> Sim {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "folded", b"one");
    engine.fold().unwrap();
    complete(&engine, "journalled", b"two");
    let image = sim.disk.crash(CrashMode::ProcessKill);
    sim.on(image)
}

fn refused(sim: &Sim) -> oncekey::Error {
    let before = contents(&sim.disk);
    let error = sim.options().open("/store").unwrap_err();
    assert!(contents(&sim.disk) == before, "left untouched: {error}");
    error
}

const STORE: &str = "/store/store.redb";
const JOURNAL: &str = "/store/journal-0000.seg";

#[test]
fn a_store_that_is_no_store_is_refused_by_its_own_kind_and_left_untouched() {
    type Damage = fn(&SimDisk);
    let cases: [(ErrorKind, Damage); 8] = [
        (ErrorKind::StoreEmpty, |disk| disk.truncate(STORE, 0)),
        (ErrorKind::StoreTruncated, |disk| disk.truncate(STORE, 8192)),
        (ErrorKind::StoreTruncated, |disk| disk.truncate(JOURNAL, 8192)),
        (ErrorKind::StoreForeign, |disk| disk.put_file(STORE, b"someone's notes")),
        (ErrorKind::StoreForeign, |disk| {
            let other = Sim::new();
            other.open().close().unwrap();
            disk.put_file(JOURNAL, &other.disk.read_file(JOURNAL));
        }),
        (ErrorKind::Corrupted, |disk| disk.zero_block(JOURNAL, 0)),
        // Epoch, begin, complete: folded. Then the begin of what is only journalled.
        (ErrorKind::Corrupted, |disk| disk.zero_block(JOURNAL, 4)),
        (ErrorKind::StoreUnreadable, |disk| disk.set_read_only(true)),
    ];
    for (index, (kind, damage)) in cases.into_iter().enumerate() {
        let sim = stopped();
        damage(&sim.disk);
        let error = refused(&sim);
        assert_eq!(error.kind(), kind, "case {index}: {error:?}");
    }
}

#[test]
fn a_directory_with_other_files_is_foreign() {
    let sim = Sim::new();
    sim.disk.put_file("/store/notes.txt", b"mine");
    let error = refused(&sim);
    assert_eq!(error.kind(), ErrorKind::StoreForeign);
    assert!(error.to_string().contains("notes.txt"), "{error}");
}

#[test]
fn open_existing_refuses_to_create() {
    let sim = Sim::new();
    let error = sim.options().open_existing("/store").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreMissing);
    assert!(sim.disk.files().is_empty());
    sim.open().close().unwrap();
    sim.options().open_existing("/store").unwrap();
}

#[test]
fn a_journal_without_its_store_file_is_not_created_over() {
    let sim = stopped();
    let bytes = sim.disk.read_file(STORE);
    sim.disk.remove(STORE.as_ref()).unwrap();
    assert_eq!(refused(&sim).kind(), ErrorKind::Corrupted);
    sim.disk.put_file(STORE, &bytes);
    replay(&sim.open(), "journalled");
}

#[test]
fn one_engine_at_a_time_and_the_error_names_the_path() {
    let sim = Sim::new();
    let engine = sim.open();
    let error = sim.options().open("/store").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreInUse);
    assert!(error.to_string().contains("/store/LOCK"), "{error}");
    drop(engine);
    sim.open();
}

#[test]
fn two_processes_can_not_share_a_store() {
    let dir = std::env::temp_dir().join(format!("oncekey-two-{}", std::process::id()));
    if std::env::var_os("ONCEKEY_TEST_CHILD").is_some() {
        let error = Options::new().open(std::env::var_os("ONCEKEY_TEST_CHILD").unwrap());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::StoreInUse);
        return;
    }
    let engine = Engine::open(&dir).unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "two_processes_can_not_share_a_store"])
        .env("ONCEKEY_TEST_CHILD", &dir)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    drop(engine);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn network_filesystems_are_refused_unless_overridden() {
    let sim = Sim::new();
    sim.disk.set_network_filesystem(true);
    let error = sim.options().open("/store").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkFilesystem);
    assert!(sim.disk.files().is_empty());
    sim.options().allow_network_filesystem(true).open("/store").unwrap();
}

#[test]
fn a_forward_gap_beyond_the_limit_must_be_acknowledged() {
    let sim = Sim::new();
    let engine = sim.options().ttl(Duration::from_secs(100 * 86_400)).open("/store").unwrap();
    complete(&engine, "k", b"x");
    engine.close().unwrap();
    sim.clock.jump_wall(30 * 86_400);
    sim.open().close().unwrap();
    sim.clock.jump_wall(30 * 86_400 + 60);
    assert_eq!(sim.options().open("/store").unwrap_err().kind(), ErrorKind::ClockJump);
    let engine = sim.options().accept_clock_jump(true).open("/store").unwrap();
    replay(&engine, "k");
}

#[test]
fn a_wall_clock_that_went_back_does_not_bring_expired_records_back() {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "k", b"x");
    sim.clock.advance(TTL);
    engine.sweep().unwrap();
    engine.close().unwrap();
    sim.clock.jump_wall(-86_400);
    let engine = sim.open();
    assert!(matches!(engine.get(&key("k")).unwrap(), Lookup::Absent));
    let _claim = claim(&engine, "k");
}

#[test]
fn steps_of_the_wall_clock_do_not_reach_a_running_engine() {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "k", b"x");
    sim.clock.jump_wall(10 * 86_400);
    replay(&engine, "k");
    sim.clock.suspend(TTL);
    assert!(matches!(engine.get(&key("k")).unwrap(), Lookup::Absent), "suspend counts");
}

#[test]
fn a_restart_makes_orphans_dated_by_the_end_of_their_epoch() {
    let sim = Sim::new();
    let engine = sim.open();
    let held = claim(&engine, "held");
    held.checkpoint(b"half").wait().unwrap();
    let token = held.token();
    sim.clock.advance(Duration::from_secs(3));
    complete(&engine, "other", b"x");
    let report = engine.close().unwrap();
    assert_eq!(report.in_flight, 1);
    let failed = held.complete(b"late").wait().unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Closed);
    drop(failed);
    sim.clock.advance(Duration::from_secs(4));
    let engine = sim.open();
    let found = orphan(&engine, "held");
    assert_eq!((found.token(), checkpoint(found.last_checkpoint())), (token, b"half".to_vec()));
    assert_eq!(found.age(), Duration::from_secs(4));
    let taken = found.take_over().wait().unwrap();
    assert!(taken.token() > token);
}

#[test]
fn an_hour_long_claim_pins_nothing_and_survives_folds() {
    let sim = Sim::new();
    let engine = sim.open();
    let held = claim(&engine, "held");
    let segments = |sim: &Sim| {
        let files = sim.disk.files();
        files.iter().filter(|(path, _)| path.to_string_lossy().contains("journal")).count()
    };
    for round in 0..300 {
        complete(&engine, &format!("k{round}"), &[7; 4000]);
    }
    engine.fold().unwrap();
    assert!(engine.stats().folds > 5);
    assert!(segments(&sim) <= 6, "{} segments", segments(&sim));
    held.complete(b"at last").wait().unwrap();
    engine.close().unwrap();
    assert_eq!(replay(&sim.open(), "held").response(), Some(&b"at last"[..]));
}

#[test]
fn what_was_recovered_is_folded_when_it_is_asked_for() {
    let engine = stopped().open();
    assert_eq!(engine.stats().folded_records, 1);
    engine.fold().unwrap();
    assert_eq!(engine.stats().folded_records, 2);
}

#[test]
fn recent_memory_is_folded_once_half_of_it_is_used() {
    let sim = Sim::new();
    let engine = sim.options().segment_bytes(1 << 20).open("/store").unwrap();
    for round in 0..20 {
        complete(&engine, &format!("k{round}"), &[7; 4000]);
    }
    // No caller asked for a fold, and no segment is full.
    while engine.stats().folds == 0 {
        std::thread::yield_now();
    }
}

/// A key that is aborted again and again would leave a journal without end otherwise.
#[test]
fn the_journal_is_folded_for_its_length_too() {
    let sim = Sim::new();
    let engine = sim.options().recent_bytes(64 << 20).open("/store").unwrap();
    let mut attempts = 0;
    // One key is all that recent memory holds.
    while engine.stats().folds == 0 {
        claim(&engine, "k").abort().wait().unwrap();
        attempts += 1;
        assert!(attempts < 10_000, "the journal grows");
    }
}

#[test]
fn a_failed_sync_latches_and_reopening_settles_it() {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "before", b"x");
    let held = claim(&engine, "held");
    let other = claim(&engine, "other");
    engine.fold().unwrap();
    sim.disk.inject(Fault::at_kind(OpKind::Sync, 0).errno(Fault::EIO).on_path("journal-0000"));
    let failed = held.complete(b"response").wait().unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::OutcomeUnknown);
    // The key in doubt stays in doubt; other keys are refused or answered from what is durable.
    assert_eq!(begin_error(&engine, "held").kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(begin_error(&engine, "new").kind(), ErrorKind::Unavailable);
    replay(&engine, "before");
    locked(&engine, "other");
    assert_eq!(engine.fold().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(engine.sweep().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(engine.stats().failures, 1);

    engine.reopen().unwrap();
    // Claims of the old epoch are orphans that their owners may still complete.
    orphan(&engine, "other");
    other.complete(b"late").wait().unwrap();
    let held = failed.into_handle().expect("the claim comes back");
    held.complete(b"response").wait().unwrap();
    assert_eq!(replay(&engine, "held").response(), Some(&b"response"[..]));
    assert_eq!(replay(&engine, "other").response(), Some(&b"late"[..]));
}

#[test]
fn a_failed_journal_leaves_the_store_file_to_readers() {
    let sim = Sim::new();
    let engine = sim.open();
    for n in 0..2000 {
        complete(&engine, &format!("folded {n}"), b"x");
    }
    engine.close().unwrap();
    // Nothing of it is in a cache.
    let options = sim.options().cache_bytes(0).sweep_interval(Duration::from_millis(1));
    let engine = options.open("/store").unwrap();
    // Each sync of it fails: a segment that is prepared meanwhile takes none of the failures away.
    let fault = Fault::at_kind(OpKind::Sync, 0).errno(Fault::EIO).on_path("journal").forever();
    sim.disk.inject(fault);
    assert!(engine.begin(&key("new"), body("a")).wait().is_err());
    // Meanwhile the folder wakes for a sweep, and learns of it.
    for n in 0..30 {
        replay(&engine, &format!("folded {}", n * 60));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_failed_fold_latches_too_and_replays_go_on() {
    for file in ["store.redb", "records-", "run-"] {
        let sim = Sim::new();
        let engine = sim.open();
        complete(&engine, "k", b"x");
        sim.disk.inject(Fault::at_kind(OpKind::Write, 0).errno(Fault::EIO).on_path(file));
        assert_eq!(engine.fold().unwrap_err().kind(), ErrorKind::Unavailable);
        replay(&engine, "k");
        assert_eq!(begin_error(&engine, "new").kind(), ErrorKind::Unavailable);
        engine.reopen().unwrap();
        replay(&engine, "k");
        engine.fold().unwrap();
        complete(&engine, "new", b"y");
    }
}

#[test]
fn a_backup_is_consistent_and_another_incarnation() {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "folded", b"one");
    engine.fold().unwrap();
    complete(&engine, "journalled", b"two");
    let held = claim(&engine, "held");
    drop(claim(&engine, "orphan"));
    orphan(&engine, "orphan");
    engine.backup_to("/copies/first").unwrap();
    complete(&engine, "after", b"three");

    let error = engine.backup_to("/copies/first").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "not into a directory that is in use");

    let copy = sim.options().open_existing("/copies/first").unwrap();
    assert_eq!(replay(&copy, "folded").response(), Some(&b"one"[..]));
    assert_eq!(replay(&copy, "journalled").response(), Some(&b"two"[..]));
    assert_eq!(orphan(&copy, "held").token(), held.token());
    orphan(&copy, "orphan");
    assert!(matches!(copy.get(&key("after")).unwrap(), Lookup::Absent));
    let here = claim(&engine, "same").token().to_bytes();
    let there = claim(&copy, "same").token().to_bytes();
    assert_ne!(here[..8], there[..8], "tokens of the copy are of another incarnation");
    held.complete(b"x").wait().unwrap();
}

#[test]
fn closing_ends_everything_and_leaves_nothing_to_replay() {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "k", b"x");
    let clone = engine.clone();
    let waiting = {
        let _held = claim(&engine, "held");
        let waiting = engine.begin_waiting(&key("held"), body("a"), Duration::from_secs(600));
        let report = engine.close().unwrap();
        // An epoch, two claims and a completion.
        assert_eq!((report.in_flight, report.folded_through), (1, 4));
        waiting
    };
    assert_eq!(waiting.wait().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(begin_error(&clone, "k").kind(), ErrorKind::Closed);
    assert_eq!(clone.get(&key("k")).unwrap_err().kind(), ErrorKind::Closed);
    for result in [clone.fold(), clone.sweep().map(drop), clone.reopen()] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Closed);
    }
    assert_eq!(clone.close().unwrap_err().kind(), ErrorKind::Closed);
    let engine = sim.open();
    assert_eq!(engine.stats().folded_records, 1);
}

#[test]
fn dropping_the_last_handle_makes_durable_what_was_submitted() {
    let sim = Sim::new();
    let engine = sim.open();
    let owner = claim(&engine, "k");
    let clone = engine.clone();
    drop(engine);
    drop(owner.complete(b"submitted"));
    drop(clone);
    let image = sim.disk.crash(CrashMode::LoseAllUnsynced);
    let sim = Sim { disk: image, ..sim };
    assert_eq!(replay(&sim.open(), "k").response(), Some(&b"submitted"[..]));
}

#[test]
fn options_outside_their_limits_are_refused_before_anything_happens() {
    let disk = Arc::new(SimDisk::new());
    let cases: Vec<fn(Options) -> Options> = vec![
        |options| options.ttl(Duration::ZERO),
        |options| options.max_execution(Some(Duration::ZERO)),
        |options| options.max_response((16 << 20) + 1),
        |options| options.max_in_flight(0),
        |options| options.max_queue(0),
        |options| options.recent_bytes(1),
        |options| options.sweep_interval(Duration::ZERO),
        |options| options.segment_bytes(1_000_000),
        |options| options.segment_bytes(1 << 20),
        |options| options.segment_bytes(8 << 30),
    ];
    for change in cases {
        let error = change(Options::new().disk(disk.clone())).open("/store").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(disk.files().is_empty());
    }
}

#[test]
fn a_failed_sync_of_the_store_file_may_drop_what_the_cache_still_shows() {
    for nth in 0..8 {
        let sim = Sim::new();
        let engine = sim.open();
        for round in 0..20 {
            complete(&engine, &format!("k{round}"), &[7; 4000]);
        }
        let fault = Fault::at_kind(OpKind::Sync, nth).errno(Fault::EIO).on_path("redb");
        sim.disk.inject(fault.drop_dirty());
        engine.fold().ok();
        sim.disk.clear_faults();
        engine.reopen().unwrap();
        engine.fold().unwrap();
        let image = sim.disk.crash(CrashMode::LoseAllUnsynced);
        drop(engine);
        let engine = sim.on(image).open();
        for round in 0..20 {
            replay(&engine, &format!("k{round}"));
        }
    }
}

/// A panic under redb's locks poisons them, and redb panics again when it is dropped: that must not
/// end the process of the server that the engine lives in.
#[test]
fn a_panic_under_the_store_file_is_a_failure_and_reopening_settles_it() {
    for nth in 0..12 {
        let sim = Sim::new();
        let engine = sim.open();
        complete(&engine, "journalled", b"answer");
        let held = claim(&engine, "held");
        sim.disk.inject(Fault::new(Ops::Changes, nth).on_path("store.redb").panic());
        let folded = engine.fold();
        sim.disk.clear_faults();
        assert_eq!(folded.is_err(), sim.disk.faults_fired() > 0);
        assert_eq!(replay(&engine, "journalled").response(), Some(&b"answer"[..]));
        engine.reopen().unwrap();
        assert_eq!(replay(&engine, "journalled").response(), Some(&b"answer"[..]));
        held.complete(b"late").wait().unwrap();
        engine.fold().unwrap();
    }
}

#[test]
fn a_panic_under_the_journal_leaves_the_outcome_unknown_until_reopened() {
    for (nth, kind) in [(0, OpKind::Write), (0, OpKind::Sync)] {
        let sim = Sim::new();
        let engine = sim.open();
        let held = claim(&engine, "held");
        sim.disk.inject(Fault::at_kind(kind, nth).on_path("journal-0000").panic());
        let failed = held.complete(b"answer").wait().unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::OutcomeUnknown, "{failed:?}");
        assert_eq!(begin_error(&engine, "held").kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(begin_error(&engine, "other").kind(), ErrorKind::Unavailable);
        sim.disk.clear_faults();
        engine.reopen().unwrap();
        let held = failed.into_handle().unwrap();
        held.complete(b"answer").wait().unwrap();
        assert_eq!(replay(&engine, "held").response(), Some(&b"answer"[..]));
    }
}

#[test]
fn a_reopen_refuses_another_store_that_was_put_into_the_directory() {
    let (sim, other) = (Sim::new(), Sim::new());
    let engine = sim.open();
    complete(&engine, "ours", b"one");
    complete(&other.open(), "theirs", b"two");
    let other = other.disk.crash(CrashMode::ProcessKill);
    for (path, bytes) in contents(&other) {
        sim.disk.put_file(path, &bytes);
    }
    assert_eq!(engine.reopen().unwrap_err().kind(), ErrorKind::StoreForeign);
}

/// The tokens of some claims.
fn tokens(engine: &Engine, prefix: &str) -> Vec<[u8; 24]> {
    (0..50).map(|n| claim(engine, &format!("{prefix} {n}")).token().to_bytes()).collect()
}

#[test]
fn tokens_of_a_restored_snapshot_never_repeat_and_order_behind_the_originals() {
    let sim = Sim::new();
    let engine = sim.open();
    let before = tokens(&engine, "before");
    let snapshot = sim.disk.crash(CrashMode::ProcessKill);
    let lost = tokens(&engine, "lost");
    sim.clock.advance(Duration::from_secs(1));
    // Put back in the same place, and put beside it, opened within one millisecond.
    let places = [snapshot.crash(CrashMode::ProcessKill), snapshot.crash(CrashMode::ProcessKill)];
    let mut seen: std::collections::BTreeSet<_> = before.iter().chain(&lost).copied().collect();
    let newest = *seen.last().unwrap();
    for place in places {
        let copy = sim.on(place).open();
        for token in tokens(&copy, "after") {
            assert!(token > newest, "later ones sort greater");
            assert!(seen.insert(token), "a token came twice");
        }
        assert_eq!(orphan(&copy, "before 0").token().to_bytes(), before[0]);
    }
}

#[test]
fn tokens_of_a_restored_backup_order_behind_the_originals() {
    let sim = Sim::new();
    let engine = sim.open();
    let held = claim(&engine, "held");
    engine.backup_to("/copy").unwrap();
    let lost = tokens(&engine, "lost");
    sim.clock.advance(Duration::from_secs(1));
    let copy = sim.options().open_existing("/copy").unwrap();
    let after = tokens(&copy, "after");
    assert!(after.iter().min() > lost.iter().max());
    assert_eq!(orphan(&copy, "held").token(), held.token());
    // Of the journal too, not only of what was folded.
    drop(copy);
    let copy = sim.options().open_existing("/copy").unwrap();
    assert_eq!(orphan(&copy, "after 7").token().to_bytes(), after[7]);
}

#[test]
fn tokens_order_by_age_although_the_clock_goes_back() {
    let sim = Sim::new();
    let first = tokens(&sim.open(), "first");
    sim.clock.jump_wall(-86_400);
    let second = tokens(&sim.open(), "second");
    assert!(second.iter().min() > first.iter().max());
}
