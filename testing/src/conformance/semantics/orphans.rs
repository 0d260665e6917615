//! The ends of a claim without a response, and the state of the key afterwards.

use std::time::Duration;

use oncekey::ErrorKind;

use crate::calls::*;
use crate::conformance::{Bounds, Rig};

pub(super) fn abort_frees_the_key_on_the_first_attempt_only(rig: impl Rig) {
    let engine = rig.open();
    claim(&engine, "k").abort().wait().unwrap();
    let first = claim(&engine, "k");
    first.checkpoint(b"half").wait().unwrap();
    drop(first);
    let second = orphan(&engine, "k").take_over().wait().unwrap();
    assert_eq!((second.attempt(), checkpoint(second.last_checkpoint())), (2, b"half".to_vec()));
    second.abort().wait().unwrap();
    let again = orphan(&engine, "k");
    assert_eq!((again.attempt(), checkpoint(again.last_checkpoint())), (2, b"half".to_vec()));
}

pub(super) fn a_dropped_claim_is_an_orphan_at_once_never_locked(rig: impl Rig) {
    let engine = rig.open();
    for round in 0..200 {
        let name = format!("k{round}");
        drop(claim(&engine, &name));
        orphan(&engine, &name);
    }
}

pub(super) fn an_abandoned_claim_is_an_orphan_at_every_engine(rig: impl Rig) {
    let engines = rig.open_all(&Bounds::default());
    for round in 0..20 {
        let name = format!("k{round}");
        claim(&engines[0], &name).abandon().wait().unwrap();
        for engine in &engines {
            orphan(engine, &name);
        }
    }
    let held = claim(&engines[0], "resolved");
    engines[0].reopen().unwrap();
    orphan(&engines[0], "resolved").release().wait().unwrap();
    held.abandon().wait().unwrap();
    let _new = claim(&engines[0], "resolved");
}

pub(super) fn a_panicking_owner_leaves_an_orphan(rig: impl Rig) {
    let engine = rig.open();
    let claim = claim(&engine, "k");
    let panicked = std::thread::spawn(move || {
        let _claim = claim;
        panic!("the handler fails");
    });
    assert!(panicked.join().is_err());
    orphan(&engine, "k");
}

pub(super) fn an_orphan_is_resolved_once(rig: impl Rig) {
    let engine = rig.open();
    drop(claim(&engine, "k"));
    let (one, two, three) =
        (orphan(&engine, "k"), orphan(&engine, "k"), engine.orphans().unwrap().remove(0));
    assert_eq!(one.token(), three.token());
    let taken = one.take_over().wait().unwrap();
    assert!(taken.token() > two.token());
    let late = two.take_over().wait().unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Fenced);
    assert!(late.into_handle().is_none());
    assert_eq!(three.release().wait().unwrap_err().kind(), ErrorKind::Fenced);
    taken.complete(b"done").wait().unwrap();
    replay(&engine, "k");
}

pub(super) fn a_stale_orphan_handle_does_not_resolve_a_later_attempt(rig: impl Rig) {
    let engine = rig.open();
    drop(claim(&engine, "k"));
    let stale = orphan(&engine, "k");
    // The attempt that took over dies as well: the key has an orphan again, of a later attempt.
    drop(orphan(&engine, "k").take_over().wait().unwrap());
    assert_eq!(orphan(&engine, "k").attempt(), 2);
    assert_eq!(stale.clone().release().wait().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(stale.clone().complete(b"x").wait().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(stale.take_over().wait().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(orphan(&engine, "k").attempt(), 2);
}

pub(super) fn released_and_completed_orphans(rig: impl Rig) {
    let engine = rig.open();
    drop(claim(&engine, "free"));
    orphan(&engine, "free").release().wait().unwrap();
    drop(claim(&engine, "free"));
    drop(claim(&engine, "found"));
    orphan(&engine, "found").complete(b"it happened").wait().unwrap();
    assert_eq!(replay(&engine, "found").response(), Some(&b"it happened"[..]));
}

pub(super) fn orphans_are_listed_oldest_first_wherever_they_lie(rig: impl Rig) {
    let engine = rig.open();
    for name in ["in the store", "in memory"] {
        drop(claim(&engine, name));
        orphan(&engine, name);
        if name == "in the store" {
            engine.fold().unwrap();
        }
        rig.advance(&engine, Duration::from_secs(1));
    }
    let listed = engine.orphans().unwrap();
    let names: Vec<_> = listed.iter().map(|orphan| orphan.key().key()).collect();
    assert_eq!(names, [&b"in the store"[..], b"in memory"]);
    assert_eq!(listed[0].age(), Duration::from_secs(2));
    rig.advance(&engine, TTL);
    assert!(engine.orphans().unwrap().is_empty(), "orphans expire");
    let _claim = claim(&engine, "in the store");
}

pub(super) fn max_execution_orphans_a_claim_whose_owner_may_still_complete(rig: impl Rig) {
    let limit = Duration::from_secs(5);
    let bounds = Bounds { max_execution: Some(limit), ..Bounds::default() };
    let engine = rig.open_nth(0, &bounds);
    let slow = claim(&engine, "slow");
    let lost = claim(&engine, "lost");
    rig.advance(&engine, limit - Duration::from_millis(1));
    locked(&engine, "slow");
    rig.advance(&engine, Duration::from_millis(1));
    assert_eq!(orphan(&engine, "slow").age(), Duration::ZERO);
    assert_eq!(engine.orphans().unwrap().len(), 2);
    slow.complete(b"late").wait().unwrap();
    assert_eq!(replay(&engine, "slow").response(), Some(&b"late"[..]));

    let taken = orphan(&engine, "lost").take_over().wait().unwrap();
    assert_eq!(lost.complete(b"too late").wait().unwrap_err().kind(), ErrorKind::Fenced);
    locked(&engine, "lost");
    taken.complete(b"mine").wait().unwrap();
    assert_eq!(replay(&engine, "lost").response(), Some(&b"mine"[..]));
}

/// A checkpoint stays with its record. Only holders of the present claim or orphan can read it.
pub(super) fn a_checkpoint_goes_where_its_record_goes(rig: impl Rig) {
    let engine = rig.open();
    claim(&engine, "k").checkpoint(b"first life").wait().unwrap();
    engine.fold().unwrap();
    let before = orphan(&engine, "k");
    let second = orphan(&engine, "k").take_over().wait().unwrap();
    assert_eq!(checkpoint(second.last_checkpoint()), b"first life");
    assert_eq!(before.last_checkpoint().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(before.checkpoint_len(), Some(b"first life".len()));
    second.checkpoint(b"more").wait().unwrap();
    engine.fold().unwrap();
    assert_eq!(checkpoint(second.last_checkpoint()), b"more");
    drop(second);
    let third = orphan(&engine, "k");
    assert_eq!(checkpoint(third.last_checkpoint()), b"more");
    third.clone().release().wait().unwrap();
    let new_life = claim(&engine, "k");
    engine.fold().unwrap();
    assert_eq!(new_life.last_checkpoint().unwrap(), None);
    assert_eq!(third.last_checkpoint().unwrap_err().kind(), ErrorKind::Fenced);
    new_life.complete(b"done").wait().unwrap();
    assert_eq!(third.last_checkpoint().unwrap_err().kind(), ErrorKind::AlreadyCompleted);
    engine.close().unwrap();
    assert_eq!(third.last_checkpoint().unwrap_err().kind(), ErrorKind::Closed);
}

pub(super) fn claims_of_an_engine_that_was_killed_are_orphans_of_its_successor(mut rig: impl Rig) {
    let engines = rig.open_all(&Bounds::default());
    for (nth, engine) in engines.iter().enumerate() {
        complete(engine, &format!("done {nth}"), b"x");
        let held = claim(engine, &format!("held {nth}"));
        held.checkpoint(b"half").wait().unwrap();
        // The process ends before the claim can be dropped.
        std::mem::forget(held);
    }
    rig.kill();
    let successors = rig.open_all(&Bounds::default());
    for engine in &successors {
        assert_eq!(engine.orphans().unwrap().len(), engines.len(), "listed at once");
    }
    for nth in 0..engines.len() {
        for engine in &successors {
            assert_eq!(replay(engine, &format!("done {nth}")).response(), Some(&b"x"[..]));
            let found = orphan(engine, &format!("held {nth}"));
            assert_eq!(
                (found.attempt(), checkpoint(found.last_checkpoint())),
                (1, b"half".to_vec())
            );
        }
        let last = orphan(&successors[0], &format!("held {nth}"));
        last.take_over().wait().unwrap().complete(b"y").wait().unwrap();
    }
}

pub(super) fn a_closed_engine_answers_closed_and_leaves_orphans(rig: impl Rig) {
    let engine = rig.open();
    complete(&engine, "done", b"x");
    let held = claim(&engine, "held");
    assert_eq!(engine.close().unwrap().in_flight, 1);
    assert_eq!(begin_error(&engine, "new").kind(), ErrorKind::Closed);
    assert_eq!(engine.close().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(engine.get(&key("done")).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(held.complete(b"late").wait().unwrap_err().kind(), ErrorKind::Closed);
    let engine = rig.open();
    orphan(&engine, "held").release().wait().unwrap();
    replay(&engine, "done");
}

pub(super) fn owners_may_end_what_they_hold_after_a_reopen(rig: impl Rig) {
    let engine = rig.open();
    let (slow, lost) = (claim(&engine, "slow"), claim(&engine, "lost"));
    engine.reopen().unwrap();
    orphan(&engine, "slow");
    slow.complete(b"late").wait().unwrap();
    assert_eq!(replay(&engine, "slow").response(), Some(&b"late"[..]));
    let taken = orphan(&engine, "lost").take_over().wait().unwrap();
    assert_eq!(lost.complete(b"too late").wait().unwrap_err().kind(), ErrorKind::Fenced);
    taken.complete(b"mine").wait().unwrap();
    complete(&engine, "new", b"x");
}
