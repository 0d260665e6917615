//! Answers to callers that wait, that have gone, and that poll.

use std::time::Duration;

use oncekey::Begin;

use crate::calls::*;
use crate::conformance::Rig;

pub(super) fn waiters_replay_when_the_owner_completes(rig: impl Rig) {
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

pub(super) fn one_waiter_claims_after_an_abort_and_the_others_wait_on(rig: impl Rig) {
    let engine = rig.open();
    let owner = claim(&engine, "k");
    let waiting: Vec<_> = (0..5).map(|_| wait_for(&engine, "k")).collect();
    owner.abort().wait().unwrap();
    // The waiters claim the key in the order in which they came.
    let mut waiting = waiting.into_iter();
    let Begin::Claimed(next) = waiting.next().unwrap().wait().unwrap() else { panic!("claimed") };
    next.complete(b"by a waiter").wait().unwrap();
    for pending in waiting {
        assert!(matches!(pending.wait().unwrap(), Begin::Replay(_)));
    }
}

pub(super) fn waiters_learn_of_an_orphan(rig: impl Rig) {
    let engine = rig.open();
    let owner = claim(&engine, "k");
    let waiting: Vec<_> = (0..3).map(|_| wait_for(&engine, "k")).collect();
    drop(owner);
    for pending in waiting {
        assert!(matches!(pending.wait().unwrap(), Begin::Orphaned(_)));
    }
}

pub(super) fn a_wait_ends_at_its_bound(rig: impl Rig) {
    let engine = rig.open();
    let _owner = claim(&engine, "k");
    let short = engine.begin_waiting(&key("k"), body("a"), Duration::from_millis(5));
    assert!(matches!(short.wait().unwrap(), Begin::Locked(_)));
    let other = engine.begin_waiting(&key("k"), body("b"), Duration::from_secs(600));
    assert!(matches!(other.wait().unwrap(), Begin::Mismatch(_)), "a mismatch does not wait");
    assert_eq!(engine.stats().waiters, 0);
}

pub(super) fn a_claim_that_is_never_taken_out_is_aborted(rig: impl Rig) {
    let engine = rig.open();
    // The pending begin is dropped before or after the claim arrives: the operation never ran, so
    // the key is free.
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

pub(super) fn a_take_over_that_is_never_taken_out_leaves_the_orphan(rig: impl Rig) {
    let engine = rig.open();
    drop(claim(&engine, "k"));
    drop(orphan(&engine, "k").take_over());
    let next = wait_for(&engine, "k").wait().unwrap();
    assert!(matches!(&next, Begin::Orphaned(orphan) if orphan.attempt() == 2), "{next:?}");
}

pub(super) fn dropping_any_other_pending_changes_nothing(rig: impl Rig) {
    let engine = rig.open();
    let owner = claim(&engine, "k");
    drop(owner.checkpoint(b"saved"));
    drop(owner.complete(b"done"));
    let next = wait_for(&engine, "k").wait().unwrap();
    assert!(matches!(&next, Begin::Replay(r) if r.response() == Some(b"done")), "{next:?}");
}

pub(super) fn futures_need_no_runtime_and_work_in_one(rig: impl Rig) {
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

pub(super) fn concurrent_duplicates_run_once(rig: impl Rig) {
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
