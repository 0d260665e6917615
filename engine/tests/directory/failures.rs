//! Failures latch, and `reopen` settles them.

use super::*;

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
    let refused = begin_error(&engine, "other");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("must be reopened after a failure: "), "{refused}");
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
    // No cache holds any of the store file.
    let options = sim.options().cache_bytes(0).sweep_interval(Duration::from_millis(1));
    let engine = options.open("/store").unwrap();
    // Every sync of the journal fails, so that a segment that is prepared meanwhile does not use up
    // the failure.
    let fault = Fault::at_kind(OpKind::Sync, 0).errno(Fault::EIO).on_path("journal").forever();
    sim.disk.inject(fault);
    assert!(engine.begin(&key("new"), body("a")).wait().is_err());
    // Meanwhile the folder wakes for a sweep and learns of the failure.
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
