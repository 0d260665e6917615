//! The answers to callers: the five outcomes, the ends of a claim, orphans, waiting, delivery.

use std::time::Duration;

use oncekey::{Begin, ErrorKind, Lookup, Mismatch};

use super::{Bounds, Rig, cases};
use crate::calls::*;

cases!($ semantics:
    a_retry_is_replayed_and_an_other_request_refused,
    a_duplicate_is_locked_and_a_modified_one_is_a_mismatch_first,
    scopes_do_not_meet,
    an_expired_record_is_a_new_key_whether_swept_or_not,
    a_ttl_of_its_own_and_a_response_that_is_not_kept,
    two_lives_of_one_key_in_two_expiry_buckets_give_the_newer,
    abort_frees_the_key_on_the_first_attempt_only,
    a_dropped_claim_is_an_orphan_at_once_never_locked,
    an_abandoned_claim_is_an_orphan_at_every_engine,
    a_panicking_owner_leaves_an_orphan,
    an_orphan_is_resolved_once,
    a_stale_orphan_handle_does_not_resolve_a_later_attempt,
    released_and_completed_orphans,
    orphans_are_listed_oldest_first_wherever_they_lie,
    max_execution_orphans_a_claim_whose_owner_may_still_complete,
    waiters_replay_when_the_owner_completes,
    one_waiter_claims_after_an_abort_and_the_others_wait_on,
    waiters_learn_of_an_orphan,
    a_wait_ends_at_its_bound,
    a_claim_that_is_never_taken_out_is_aborted,
    a_take_over_that_is_never_taken_out_leaves_the_orphan,
    dropping_any_other_pending_changes_nothing,
    futures_need_no_runtime_and_work_in_one,
    concurrent_duplicates_run_once,
    get_tells_each_state_and_changes_none,
    stats_count_what_happened,
    a_checkpoint_goes_where_its_record_goes,
    claims_of_an_engine_that_was_killed_are_orphans_of_its_successor,
    a_closed_engine_answers_closed_and_leaves_orphans,
    owners_may_end_what_they_hold_after_a_reopen,
);

fn a_retry_is_replayed_and_an_other_request_refused(rig: impl Rig) {
    let engine = rig.open();
    complete(&engine, "k", b"201 created");
    let recorded = replay(&engine, "k");
    assert_eq!(recorded.response(), Some(&b"201 created"[..]));
    assert_eq!(recorded.expires_at().duration_since(recorded.completed_at()).unwrap(), TTL);
    let other = engine.begin(&key("k"), body("b")).wait().unwrap();
    assert!(matches!(&other, Begin::Mismatch(m) if m.parts() == ["body"]), "{other:?}");
}

fn a_duplicate_is_locked_and_a_modified_one_is_a_mismatch_first(rig: impl Rig) {
    let engine = rig.open();
    let _claim = claim(&engine, "k");
    rig.advance(&engine, Duration::from_millis(250));
    let Begin::Locked(in_flight) = begin(&engine, "k") else { panic!("locked") };
    // An engine far from its store knows the time within bounds.
    assert!((Duration::from_millis(250)..TTL).contains(&in_flight.running_for()));
    assert!((Duration::from_millis(250)..TTL).contains(&in_flight.retry_after()));
    assert_eq!(in_flight.attempt(), 1);
    let Begin::Mismatch(mismatch) = engine.begin(&key("k"), body("b")).wait().unwrap() else {
        panic!("mismatch")
    };
    let _: &Mismatch = &mismatch;
    assert_eq!(mismatch.parts(), ["body"]);
}

fn scopes_do_not_meet(rig: impl Rig) {
    let engine = rig.open();
    let mine = oncekey::Key::new("a", "k").unwrap();
    let theirs = oncekey::Key::new("b", "k").unwrap();
    let Begin::Claimed(_first) = engine.begin(&mine, body("x")).wait().unwrap() else { panic!() };
    let Begin::Claimed(_second) = engine.begin(&theirs, body("y")).wait().unwrap() else {
        panic!("another scope is another key")
    };
}

fn an_expired_record_is_a_new_key_whether_swept_or_not(rig: impl Rig) {
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

fn a_ttl_of_its_own_and_a_response_that_is_not_kept(rig: impl Rig) {
    let engine = rig.open();
    let ttl = Duration::from_secs(3600);
    let completion = claim(&engine, "k").complete_with(None, Some(ttl)).wait().unwrap();
    assert!(!completion.response_kept());
    rig.advance(&engine, TTL * 2);
    assert_eq!(replay(&engine, "k").response(), None);
    rig.advance(&engine, ttl);
    let _claim = claim(&engine, "k");
}

fn two_lives_of_one_key_in_two_expiry_buckets_give_the_newer(rig: impl Rig) {
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

fn abort_frees_the_key_on_the_first_attempt_only(rig: impl Rig) {
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

fn a_dropped_claim_is_an_orphan_at_once_never_locked(rig: impl Rig) {
    let engine = rig.open();
    for round in 0..200 {
        let name = format!("k{round}");
        drop(claim(&engine, &name));
        orphan(&engine, &name);
    }
}

fn an_abandoned_claim_is_an_orphan_at_every_engine(rig: impl Rig) {
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

fn a_panicking_owner_leaves_an_orphan(rig: impl Rig) {
    let engine = rig.open();
    let claim = claim(&engine, "k");
    let panicked = std::thread::spawn(move || {
        let _claim = claim;
        panic!("the handler fails");
    });
    assert!(panicked.join().is_err());
    orphan(&engine, "k");
}

fn an_orphan_is_resolved_once(rig: impl Rig) {
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

fn a_stale_orphan_handle_does_not_resolve_a_later_attempt(rig: impl Rig) {
    let engine = rig.open();
    drop(claim(&engine, "k"));
    let stale = orphan(&engine, "k");
    // Another resolver's attempt dies as well: an orphan again, but of another attempt.
    drop(orphan(&engine, "k").take_over().wait().unwrap());
    assert_eq!(orphan(&engine, "k").attempt(), 2);
    assert_eq!(stale.clone().release().wait().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(stale.clone().complete(b"x").wait().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(stale.take_over().wait().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(orphan(&engine, "k").attempt(), 2);
}

fn released_and_completed_orphans(rig: impl Rig) {
    let engine = rig.open();
    drop(claim(&engine, "free"));
    orphan(&engine, "free").release().wait().unwrap();
    drop(claim(&engine, "free"));
    drop(claim(&engine, "found"));
    orphan(&engine, "found").complete(b"it happened").wait().unwrap();
    assert_eq!(replay(&engine, "found").response(), Some(&b"it happened"[..]));
}

fn orphans_are_listed_oldest_first_wherever_they_lie(rig: impl Rig) {
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

fn max_execution_orphans_a_claim_whose_owner_may_still_complete(rig: impl Rig) {
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

fn waiters_replay_when_the_owner_completes(rig: impl Rig) {
    let engine = rig.open();
    let owner = claim(&engine, "k");
    let waiting: Vec<_> = (0..5).map(|_| wait_for(&engine, "k")).collect();
    while engine.stats().waiters < 5 {
        std::thread::yield_now();
    }
    owner.complete(b"done").wait().unwrap();
    for pending in waiting {
        assert!(matches!(pending.wait().unwrap(), Begin::Replay(_)));
    }
    assert_eq!(engine.stats().waiters, 0);
}

fn one_waiter_claims_after_an_abort_and_the_others_wait_on(rig: impl Rig) {
    let engine = rig.open();
    let owner = claim(&engine, "k");
    let waiting: Vec<_> = (0..5).map(|_| wait_for(&engine, "k")).collect();
    owner.abort().wait().unwrap();
    // In the order in which they came.
    let mut waiting = waiting.into_iter();
    let Begin::Claimed(next) = waiting.next().unwrap().wait().unwrap() else { panic!("claimed") };
    next.complete(b"by a waiter").wait().unwrap();
    for pending in waiting {
        assert!(matches!(pending.wait().unwrap(), Begin::Replay(_)));
    }
}

fn waiters_learn_of_an_orphan(rig: impl Rig) {
    let engine = rig.open();
    let owner = claim(&engine, "k");
    let waiting: Vec<_> = (0..3).map(|_| wait_for(&engine, "k")).collect();
    drop(owner);
    for pending in waiting {
        assert!(matches!(pending.wait().unwrap(), Begin::Orphaned(_)));
    }
}

fn a_wait_ends_at_its_bound(rig: impl Rig) {
    let engine = rig.open();
    let _owner = claim(&engine, "k");
    let short = engine.begin_waiting(&key("k"), body("a"), Duration::from_millis(5));
    assert!(matches!(short.wait().unwrap(), Begin::Locked(_)));
    let other = engine.begin_waiting(&key("k"), body("b"), Duration::from_secs(600));
    assert!(matches!(other.wait().unwrap(), Begin::Mismatch(_)), "a mismatch does not wait");
    assert_eq!(engine.stats().waiters, 0);
}

fn a_claim_that_is_never_taken_out_is_aborted(rig: impl Rig) {
    let engine = rig.open();
    // Dropped before, or after, the claim arrived: the operation never ran, the key is free.
    for round in 0..200 {
        let name = format!("k{round}");
        let pending = engine.begin(&key(&name), body("a"));
        if round % 2 == 0 {
            while engine.stats().claimed <= round {
                std::thread::yield_now();
            }
        }
        drop(pending);
        let next = engine.begin_waiting(&key(&name), body("a"), Duration::from_secs(600));
        assert!(matches!(next.wait().unwrap(), Begin::Claimed(_)));
    }
}

fn a_take_over_that_is_never_taken_out_leaves_the_orphan(rig: impl Rig) {
    let engine = rig.open();
    drop(claim(&engine, "k"));
    drop(orphan(&engine, "k").take_over());
    let next = wait_for(&engine, "k").wait().unwrap();
    assert!(matches!(&next, Begin::Orphaned(orphan) if orphan.attempt() == 2), "{next:?}");
}

fn dropping_any_other_pending_changes_nothing(rig: impl Rig) {
    let engine = rig.open();
    let owner = claim(&engine, "k");
    drop(owner.checkpoint(b"saved"));
    drop(owner.complete(b"done"));
    let next = wait_for(&engine, "k").wait().unwrap();
    assert!(matches!(&next, Begin::Replay(r) if r.response() == Some(b"done")), "{next:?}");
}

fn futures_need_no_runtime_and_work_in_one(rig: impl Rig) {
    let engine = rig.open();
    let run = |engine: oncekey::Engine, name: &'static str| async move {
        let Begin::Claimed(claim) = engine.begin(&key(name), body("a")).await? else {
            panic!("claimed")
        };
        claim.checkpoint(b"half").await?;
        claim.complete(b"done").await?;
        engine.begin(&key(name), body("a")).await
    };
    let plain = pollster::block_on(run(engine.clone(), "plain")).unwrap();
    assert!(matches!(plain, Begin::Replay(_)));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let engine = engine.clone();
                tokio::spawn(async move {
                    engine.begin_waiting(&key("raced"), body("a"), TTL).await.map(|begin| {
                        match begin {
                            Begin::Claimed(claim) => {
                                claim.complete(b"once").wait().unwrap();
                                1
                            }
                            Begin::Replay(_) => 0,
                            other => panic!("{other:?}"),
                        }
                    })
                })
            })
            .collect();
        let mut executed = 0;
        for task in tasks {
            executed += task.await.unwrap().unwrap();
        }
        assert_eq!(executed, 1);
    });
}

fn concurrent_duplicates_run_once(rig: impl Rig) {
    let engine = rig.open();
    for round in 0..50 {
        let name = format!("k{round}");
        let executed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| match begin(&engine, &name) {
                        Begin::Claimed(claim) => {
                            claim.complete(b"done").wait().unwrap();
                            1
                        }
                        Begin::Locked(_) | Begin::Replay(_) => 0,
                        other => panic!("{other:?}"),
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(executed, 1);
    }
}

fn get_tells_each_state_and_changes_none(rig: impl Rig) {
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

fn stats_count_what_happened(rig: impl Rig) {
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

/// What an operation has saved goes with its record, and is read by those whom it concerns.
fn a_checkpoint_goes_where_its_record_goes(rig: impl Rig) {
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

fn claims_of_an_engine_that_was_killed_are_orphans_of_its_successor(mut rig: impl Rig) {
    let engines = rig.open_all(&Bounds::default());
    for (nth, engine) in engines.iter().enumerate() {
        complete(engine, &format!("done {nth}"), b"x");
        let held = claim(engine, &format!("held {nth}"));
        held.checkpoint(b"half").wait().unwrap();
        // Its process ends before anything else happens to it.
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

fn a_closed_engine_answers_closed_and_leaves_orphans(rig: impl Rig) {
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

fn owners_may_end_what_they_hold_after_a_reopen(rig: impl Rig) {
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
