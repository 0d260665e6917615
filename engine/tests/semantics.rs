//! What callers see: the five answers, the ends of a claim, orphans, waiting, delivery.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use oncekey::{Begin, ErrorKind, Lookup, Mismatch, Pending};

#[test]
fn a_retry_is_replayed_and_an_other_request_refused() {
    let engine = Sim::new().open();
    complete(&engine, "k", b"201 created");
    let recorded = replay(&engine, "k");
    assert_eq!(recorded.response(), Some(&b"201 created"[..]));
    assert_eq!(recorded.expires_at().duration_since(recorded.completed_at()).unwrap(), TTL);
    let other = engine.begin(&key("k"), body("b")).wait().unwrap();
    assert!(matches!(&other, Begin::Mismatch(m) if m.parts() == ["body"]), "{other:?}");
}

#[test]
fn a_duplicate_is_locked_and_a_modified_one_is_a_mismatch_first() {
    let sim = Sim::new();
    let engine = sim.open();
    let _claim = claim(&engine, "k");
    sim.clock.advance(Duration::from_millis(250));
    let Begin::Locked(in_flight) = begin(&engine, "k") else { panic!("locked") };
    assert_eq!(in_flight.running_for(), Duration::from_millis(250));
    assert_eq!(in_flight.retry_after(), Duration::from_millis(250));
    assert_eq!(in_flight.attempt(), 1);
    let Begin::Mismatch(mismatch) = engine.begin(&key("k"), body("b")).wait().unwrap() else {
        panic!("mismatch")
    };
    let _: &Mismatch = &mismatch;
    assert_eq!(mismatch.parts(), ["body"]);
}

#[test]
fn scopes_do_not_meet() {
    let engine = Sim::new().open();
    let mine = oncekey::Key::new("a", "k").unwrap();
    let theirs = oncekey::Key::new("b", "k").unwrap();
    let Begin::Claimed(_first) = engine.begin(&mine, body("x")).wait().unwrap() else { panic!() };
    let Begin::Claimed(_second) = engine.begin(&theirs, body("y")).wait().unwrap() else {
        panic!("another scope is another key")
    };
}

#[test]
fn an_expired_record_is_a_new_key_whether_swept_or_not() {
    for sweep in [false, true] {
        for fold in [false, true] {
            let sim = Sim::new();
            let engine = sim.open();
            complete(&engine, "k", b"old");
            if fold {
                engine.fold().unwrap();
            }
            sim.clock.advance(TTL - Duration::from_millis(1));
            replay(&engine, "k");
            sim.clock.advance(Duration::from_millis(1));
            if sweep {
                engine.sweep().unwrap();
            }
            assert!(matches!(engine.get(&key("k")).unwrap(), Lookup::Absent));
            complete(&engine, "k", b"new");
            assert_eq!(replay(&engine, "k").response(), Some(&b"new"[..]));
        }
    }
}

#[test]
fn a_ttl_of_its_own_and_a_response_that_is_not_kept() {
    let sim = Sim::new();
    let engine = sim.open();
    let ttl = Duration::from_secs(3600);
    let completion = claim(&engine, "k").complete_with(None, Some(ttl)).wait().unwrap();
    assert!(!completion.response_kept());
    sim.clock.advance(TTL * 2);
    assert_eq!(replay(&engine, "k").response(), None);
    sim.clock.advance(ttl);
    let _claim = claim(&engine, "k");
}

#[test]
fn two_lives_of_one_key_in_two_expiry_buckets_give_the_newer() {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "k", b"first life");
    engine.fold().unwrap();
    sim.clock.advance(TTL);
    claim(&engine, "k").complete_with(Some(b"second life"), Some(TTL * 1000)).wait().unwrap();
    engine.fold().unwrap();
    assert_eq!(replay(&engine, "k").response(), Some(&b"second life"[..]));
    engine.sweep().unwrap();
    assert_eq!(replay(&engine, "k").response(), Some(&b"second life"[..]));
}

#[test]
fn abort_frees_the_key_on_the_first_attempt_only() {
    let engine = Sim::new().open();
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

#[test]
fn a_dropped_claim_is_an_orphan_at_once_never_locked() {
    let engine = Sim::new().open();
    for round in 0..200 {
        let name = format!("k{round}");
        drop(claim(&engine, &name));
        orphan(&engine, &name);
    }
}

#[test]
fn a_panicking_owner_leaves_an_orphan() {
    let engine = Sim::new().open();
    let claim = claim(&engine, "k");
    let panicked = std::thread::spawn(move || {
        let _claim = claim;
        panic!("the handler fails");
    });
    assert!(panicked.join().is_err());
    orphan(&engine, "k");
}

#[test]
fn an_orphan_is_resolved_once() {
    let engine = Sim::new().open();
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

#[test]
fn a_stale_orphan_handle_does_not_resolve_a_later_attempt() {
    let engine = Sim::new().open();
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

#[test]
fn released_and_completed_orphans() {
    let engine = Sim::new().open();
    drop(claim(&engine, "free"));
    orphan(&engine, "free").release().wait().unwrap();
    drop(claim(&engine, "free"));
    drop(claim(&engine, "found"));
    orphan(&engine, "found").complete(b"it happened").wait().unwrap();
    assert_eq!(replay(&engine, "found").response(), Some(&b"it happened"[..]));
}

#[test]
fn orphans_are_listed_oldest_first_wherever_they_lie() {
    let sim = Sim::new();
    let engine = sim.open();
    for name in ["in the store", "in memory"] {
        drop(claim(&engine, name));
        orphan(&engine, name);
        if name == "in the store" {
            engine.fold().unwrap();
        }
        sim.clock.advance(Duration::from_secs(1));
    }
    let listed = engine.orphans().unwrap();
    let names: Vec<_> = listed.iter().map(|orphan| orphan.key().key()).collect();
    assert_eq!(names, [&b"in the store"[..], b"in memory"]);
    assert_eq!(listed[0].age(), Duration::from_secs(2));
    sim.clock.advance(TTL);
    assert!(engine.orphans().unwrap().is_empty(), "orphans expire");
    let _claim = claim(&engine, "in the store");
}

#[test]
fn max_execution_orphans_a_claim_whose_owner_may_still_complete() {
    let sim = Sim::new();
    let limit = Duration::from_secs(5);
    let engine = sim.options().max_execution(Some(limit)).open("/store").unwrap();
    let slow = claim(&engine, "slow");
    let lost = claim(&engine, "lost");
    sim.clock.advance(limit - Duration::from_millis(1));
    locked(&engine, "slow");
    sim.clock.advance(Duration::from_millis(1));
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

#[test]
fn waiters_replay_when_the_owner_completes() {
    let engine = Sim::new().open();
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

#[test]
fn one_waiter_claims_after_an_abort_and_the_others_wait_on() {
    let engine = Sim::new().open();
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

#[test]
fn waiters_learn_of_an_orphan() {
    let engine = Sim::new().open();
    let owner = claim(&engine, "k");
    let waiting: Vec<_> = (0..3).map(|_| wait_for(&engine, "k")).collect();
    drop(owner);
    for pending in waiting {
        assert!(matches!(pending.wait().unwrap(), Begin::Orphaned(_)));
    }
}

#[test]
fn a_wait_ends_at_its_bound() {
    let engine = Sim::new().open();
    let _owner = claim(&engine, "k");
    let short = engine.begin_waiting(&key("k"), body("a"), Duration::from_millis(5));
    assert!(matches!(short.wait().unwrap(), Begin::Locked(_)));
    let other = engine.begin_waiting(&key("k"), body("b"), Duration::from_secs(600));
    assert!(matches!(other.wait().unwrap(), Begin::Mismatch(_)), "a mismatch does not wait");
    assert_eq!(engine.stats().waiters, 0);
}

fn wait_for(engine: &oncekey::Engine, name: &str) -> Pending<Begin> {
    engine.begin_waiting(&key(name), body("a"), Duration::from_secs(600))
}

#[test]
fn a_claim_that_is_never_taken_out_is_aborted() {
    let engine = Sim::new().open();
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

#[test]
fn a_take_over_that_is_never_taken_out_leaves_the_orphan() {
    let engine = Sim::new().open();
    drop(claim(&engine, "k"));
    drop(orphan(&engine, "k").take_over());
    let next = wait_for(&engine, "k").wait().unwrap();
    assert!(matches!(&next, Begin::Orphaned(orphan) if orphan.attempt() == 2), "{next:?}");
}

#[test]
fn dropping_any_other_pending_changes_nothing() {
    let engine = Sim::new().open();
    let owner = claim(&engine, "k");
    drop(owner.checkpoint(b"saved"));
    drop(owner.complete(b"done"));
    let next = wait_for(&engine, "k").wait().unwrap();
    assert!(matches!(&next, Begin::Replay(r) if r.response() == Some(b"done")), "{next:?}");
}

#[test]
fn futures_need_no_runtime_and_work_in_one() {
    let engine = Sim::new().open();
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

#[test]
fn concurrent_duplicates_run_once() {
    let engine = Sim::new().open();
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

#[test]
fn engines_and_handles_cross_threads() {
    fn send_sync<T: Send + Sync>() {}
    fn send<T: Send>() {}
    send_sync::<oncekey::Engine>();
    send_sync::<oncekey::Error>();
    send::<oncekey::Claim>();
    send::<oncekey::Orphan>();
    send::<Pending<Begin>>();
}

#[test]
fn stats_tell_what_happened() {
    let sim = Sim::new();
    let engine = sim.open();
    let _old = claim(&engine, "old");
    sim.clock.advance(Duration::from_secs(7));
    complete(&engine, "done", b"x");
    replay(&engine, "done");
    locked(&engine, "old");
    drop(claim(&engine, "gone"));
    orphan(&engine, "gone");
    let stats = engine.stats();
    assert_eq!((stats.in_flight, stats.oldest_claim), (1, Some(Duration::from_secs(7))));
    assert_eq!((stats.claimed, stats.completed, stats.replayed), (3, 1, 1));
    assert_eq!((stats.locked, stats.orphaned, stats.abandoned, stats.orphans), (1, 1, 1, 1));
    assert!(stats.groups > 0 && stats.entries >= stats.groups && stats.recent_bytes > 0);
}

#[test]
fn get_tells_each_state_and_changes_none() {
    let engine = Sim::new().open();
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

/// Claims and orphans with their checkpoints take no more than they may; ends are never refused.
#[test]
fn the_bytes_of_open_records_are_bounded() {
    const LIMIT: u64 = 64 << 10;
    let sim = Sim::new();
    let options = || sim.options().max_open_bytes(LIMIT);
    let engine = options().open("/store").unwrap();
    let mut held = Vec::new();
    let refused = loop {
        match engine.begin(&key(format!("k{}", held.len())), body("a")).wait() {
            Ok(oncekey::Begin::Claimed(claim)) => held.push(claim),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        let saved = held.last().unwrap().checkpoint(&[1; 1024]).wait();
        if let Err(error) = saved {
            break error;
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert!(held.len() > 15, "{}", held.len());
    // Whatever folds made of it.
    engine.fold().unwrap();
    let open = engine.stats().open_bytes;
    assert!((LIMIT / 4..=LIMIT).contains(&open), "{open}");
    let last = held.pop().unwrap();
    while last.checkpoint(&[2; 1024]).wait().is_ok() {
        let next = engine.begin(&key(format!("more {}", held.len())), body("a")).wait();
        let Ok(oncekey::Begin::Claimed(more)) = next else { break };
        drop(more.checkpoint(&[3; 1024]).wait());
        held.push(more);
    }
    assert_eq!(last.checkpoint(&[4; 1024]).wait().unwrap_err().kind(), ErrorKind::Overloaded);
    last.complete(b"done").wait().unwrap();
    drop(held);
    // Orphans count, also after a restart; resolved ones do not.
    engine.fold().unwrap();
    engine.close().unwrap();
    let engine = options().open("/store").unwrap();
    let open = engine.stats().open_bytes;
    assert!(open > LIMIT / 4, "{open}");
    for orphan in engine.orphans().unwrap() {
        orphan.release().wait().unwrap();
    }
    engine.fold().unwrap();
    assert_eq!(engine.stats().open_bytes, 0);
    claim(&engine, "new").checkpoint(&[1; 1024]).wait().unwrap();
}

/// 300 checkpoints of 64 KiB, of orphans and of claims that go on, are 19 MiB on disk, and in memory
/// only what is asked for.
#[test]
fn checkpoints_stay_on_disk_until_they_are_asked_for() {
    const COUNT: usize = 300;
    const LENGTH: usize = 64 << 10;
    const RECORD: u64 = 1024;
    let bytes_of = |number: usize| vec![number as u8; LENGTH];
    let sim = Sim::new();
    let options = || sim.options().max_checkpoint(LENGTH).segment_bytes(1 << 20);
    let engine = options().open("/store").unwrap();
    let mut held = Vec::new();
    for number in 0..COUNT {
        let claim = claim(&engine, &format!("k{number}"));
        claim.checkpoint(&bytes_of(number)).wait().unwrap();
        if number % 3 == 0 { drop(claim) } else { held.push((number, claim)) }
    }
    engine.fold().unwrap();
    let stats = engine.stats();
    assert!(stats.open_bytes > (COUNT * LENGTH) as u64, "{stats:?}");
    assert_eq!(stats.recent_bytes, 0);
    for (number, claim) in &held {
        assert_eq!(checkpoint(claim.last_checkpoint()), bytes_of(*number));
    }
    // What becomes of a claim has the record of the claim in it.
    for (_, claim) in held.drain(..COUNT / 3) {
        drop(claim);
    }
    for number in (0..COUNT).filter(|number| number % 3 != 0).take(COUNT / 3) {
        orphan(&engine, &format!("k{number}"));
    }
    let recent = engine.stats().recent_bytes;
    assert!((1..COUNT as u64 * RECORD).contains(&recent), "{recent}");
    engine.fold().unwrap();
    held.into_iter().for_each(|(_, claim)| std::mem::forget(claim));
    engine.close().unwrap();

    // Opening makes orphans of the claims that were held.
    let engine = options().open("/store").unwrap();
    let stats = engine.stats();
    assert!(stats.open_bytes > (COUNT * LENGTH) as u64, "{stats:?}");
    assert!((1..COUNT as u64 * RECORD).contains(&stats.recent_bytes), "{stats:?}");
    let orphans = engine.orphans().unwrap();
    assert_eq!(orphans.len(), COUNT);
    assert!(orphans.iter().all(|orphan| orphan.checkpoint_len() == Some(LENGTH)));
    for orphan in orphans {
        let number: usize = orphan.key().key()[1..]
            .iter()
            .fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
        assert_eq!(checkpoint(orphan.last_checkpoint()), bytes_of(number));
    }
}

/// A copy has them, and what an operation has saved goes with its record.
#[test]
fn a_checkpoint_goes_where_its_record_goes() {
    let sim = Sim::new();
    let engine = sim.open();
    claim(&engine, "k").checkpoint(b"first life").wait().unwrap();
    engine.fold().unwrap();
    engine.backup_to("/copy").unwrap();
    let copy = sim.options().open("/copy").unwrap();
    assert_eq!(checkpoint(orphan(&copy, "k").last_checkpoint()), b"first life");

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
    assert!(sim.options().verify("/store").unwrap().is_sound());
}

/// Rot of a checkpoint hits the one who asks for it and nobody else.
#[test]
fn a_damaged_checkpoint_is_an_error_of_its_own() {
    const NOTE: &[u8; 600] = &[0xa7; 600];
    let sim = Sim::new();
    let engine = sim.open();
    let saved = claim(&engine, "damaged");
    saved.checkpoint(NOTE).wait().unwrap();
    drop(saved);
    let whole = claim(&engine, "whole");
    whole.checkpoint(b"whole").wait().unwrap();
    drop(whole);
    engine.close().unwrap();
    let file = sim.disk.read_file("/store/store.redb");
    let at: Vec<_> =
        (0..file.len() - NOTE.len()).filter(|at| file[*at..].starts_with(NOTE)).collect();
    assert!(!at.is_empty());
    at.iter().for_each(|at| sim.disk.flip_bit("/store/store.redb", *at as u64 + 300, 3));

    let engine = sim.open();
    let damaged = orphan(&engine, "damaged");
    assert_eq!(damaged.last_checkpoint().unwrap_err().kind(), ErrorKind::Corrupted);
    assert_eq!(checkpoint(orphan(&engine, "whole").last_checkpoint()), b"whole");
    assert_eq!(engine.backup_to("/copy").unwrap_err().kind(), ErrorKind::Corrupted);
    assert_eq!(engine.stats().failures, 0);
    let claim = damaged.take_over().wait().unwrap();
    assert_eq!(claim.last_checkpoint().unwrap_err().kind(), ErrorKind::Corrupted);
    claim.checkpoint(b"another").wait().unwrap();
    engine.fold().unwrap();
    assert_eq!(checkpoint(claim.last_checkpoint()), b"another");
    claim.complete(b"done").wait().unwrap();
    assert_eq!(replay(&engine, "damaged").response(), Some(&b"done"[..]));
}
