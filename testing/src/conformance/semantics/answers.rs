//! The five answers, the expiry of a record, and the lookup of a key's state.

use std::time::Duration;

use oncekey::{Begin, ErrorKind, Lookup, Mismatch};

use crate::calls::*;
use crate::conformance::Rig;

pub(super) fn a_retry_is_replayed_and_an_other_request_refused(rig: impl Rig) {
    let engine = rig.open();
    complete(&engine, "k", b"201 created");
    let recorded = replay(&engine, "k");
    assert_eq!(recorded.response(), Some(&b"201 created"[..]));
    assert_eq!(recorded.expires_at().duration_since(recorded.completed_at()).unwrap(), TTL);
    let other = engine.begin(&key("k"), body("b")).wait().unwrap();
    assert!(matches!(&other, Begin::Mismatch(m) if m.parts() == ["body"]), "{other:?}");
}

pub(super) fn a_duplicate_is_locked_and_a_modified_one_is_a_mismatch_first(rig: impl Rig) {
    let engine = rig.open();
    let _claim = claim(&engine, "k");
    rig.advance(&engine, Duration::from_millis(250));
    let Begin::Locked(in_flight) = begin(&engine, "k") else { panic!("locked") };
    // An engine far from its store knows the time only within bounds.
    assert!((Duration::from_millis(250)..TTL).contains(&in_flight.running_for()));
    assert!((Duration::from_millis(250)..TTL).contains(&in_flight.retry_after()));
    assert_eq!(in_flight.attempt(), 1);
    let Begin::Mismatch(mismatch) = engine.begin(&key("k"), body("b")).wait().unwrap() else {
        panic!("mismatch")
    };
    let _: &Mismatch = &mismatch;
    assert_eq!(mismatch.parts(), ["body"]);
}

pub(super) fn scopes_do_not_meet(rig: impl Rig) {
    let engine = rig.open();
    let mine = oncekey::Key::new("a", "k").unwrap();
    let theirs = oncekey::Key::new("b", "k").unwrap();
    let Begin::Claimed(_first) = engine.begin(&mine, body("x")).wait().unwrap() else { panic!() };
    let Begin::Claimed(_second) = engine.begin(&theirs, body("y")).wait().unwrap() else {
        panic!("another scope is another key")
    };
}

pub(super) fn an_expired_record_is_a_new_key_whether_swept_or_not(rig: impl Rig) {
    let engine = rig.open();
    for (sweep, fold) in [(false, false), (false, true), (true, false), (true, true)] {
        let name = format!("sweep {sweep}, fold {fold}");
        complete(&engine, &name, b"old");
        if fold {
            engine.fold().unwrap();
        }
        rig.advance(&engine, TTL - Duration::from_millis(1));
        replay(&engine, &name);
        rig.advance(&engine, Duration::from_millis(1));
        if sweep {
            engine.sweep().unwrap();
        }
        assert!(matches!(engine.get(&key(&name)).unwrap(), Lookup::Absent));
        complete(&engine, &name, b"new");
        assert_eq!(replay(&engine, &name).response(), Some(&b"new"[..]));
    }
}

pub(super) fn a_ttl_of_its_own_and_a_response_that_is_not_kept(rig: impl Rig) {
    let engine = rig.open();
    let ttl = Duration::from_secs(3600);
    let completion = claim(&engine, "k").complete_with(None, Some(ttl)).wait().unwrap();
    assert!(!completion.response_kept());
    rig.advance(&engine, TTL * 2);
    assert_eq!(replay(&engine, "k").response(), None);
    rig.advance(&engine, ttl);
    let _claim = claim(&engine, "k");
}

pub(super) fn two_lives_of_one_key_in_two_expiry_buckets_give_the_newer(rig: impl Rig) {
    let engine = rig.open();
    complete(&engine, "k", b"first life");
    engine.fold().unwrap();
    rig.advance(&engine, TTL);
    claim(&engine, "k").complete_with(Some(b"second life"), Some(TTL * 1000)).wait().unwrap();
    engine.fold().unwrap();
    assert_eq!(replay(&engine, "k").response(), Some(&b"second life"[..]));
    engine.sweep().unwrap();
    assert_eq!(replay(&engine, "k").response(), Some(&b"second life"[..]));
}

pub(super) fn get_tells_each_state_and_changes_none(rig: impl Rig) {
    let engine = rig.open();
    assert!(matches!(engine.get(&key("k")).unwrap(), Lookup::Absent));
    let owner = claim(&engine, "k");
    assert!(matches!(engine.get(&key("k")).unwrap(), Lookup::InFlight(_)));
    drop(owner);
    orphan(&engine, "k");
    let Lookup::Orphaned(found) = engine.get(&key("k")).unwrap() else { panic!("orphaned") };
    found.complete(b"done").wait().unwrap();
    for _ in 0..2 {
        let Lookup::Completed(recorded) = engine.get(&key("k")).unwrap() else { panic!() };
        assert_eq!(recorded.response(), Some(&b"done"[..]));
        engine.fold().unwrap();
    }
}

pub(super) fn stats_count_what_happened(rig: impl Rig) {
    let engine = rig.open();
    let _held = claim(&engine, "held");
    complete(&engine, "done", b"x");
    replay(&engine, "done");
    locked(&engine, "held");
    assert!(matches!(engine.begin(&key("done"), body("b")).wait().unwrap(), Begin::Mismatch(_)));
    claim(&engine, "aborted").abort().wait().unwrap();
    drop(claim(&engine, "gone"));
    orphan(&engine, "gone").take_over().wait().unwrap().abort().wait().unwrap();
    let found = orphan(&engine, "gone");
    found.clone().release().wait().unwrap();
    assert_eq!(found.release().wait().unwrap_err().kind(), ErrorKind::Fenced);
    let stats = engine.stats();
    assert_eq!((stats.in_flight, stats.queued, stats.waiters), (1, 0, 0));
    assert_eq!((stats.claimed, stats.completed, stats.replayed, stats.locked), (4, 1, 1, 1));
    assert_eq!((stats.mismatched, stats.orphaned, stats.abandoned), (1, 2, 1));
    assert_eq!((stats.aborted, stats.taken_over, stats.released), (2, 1, 1));
    assert_eq!((stats.fenced, stats.errors, stats.failures), (1, 0, 0));
    assert!(stats.groups > 0 && stats.entries >= stats.groups);
}
