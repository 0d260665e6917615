//! The end of an engine, and its successor.

use super::*;

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
