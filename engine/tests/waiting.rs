//! "Waiting for the sync": the suite that every backend passes, and tests of the embedded store alone.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::stalled::*;
use common::*;
use oncekey::{Begin, Durability, ErrorKind, Lookup, Pending};
use oncekey_testing::conformance::Embedded;
use oncekey_testing::{CrashMode, Fault, HeldDisk, OpKind};

oncekey_testing::waiting!(Embedded);

#[test]
fn a_power_loss_before_the_sync_forgets_a_claim_that_nobody_was_told_of() {
    let Stalled { sim, held, engine } = stalled(|options| options);
    held.hold();
    let first = submit(&engine, "k");
    held.wait_for_sync();
    let first = unanswered(first);
    let lost = sim.disk.crash(CrashMode::LoseAllUnsynced);
    held.release();
    assert!(matches!(first.wait().unwrap(), Begin::Claimed(_)));
    // After a power loss at that moment the key is new, and no caller was told otherwise.
    let _claim = claim(&sim.on(lost).open(), "k");
}

#[test]
fn relaxed_claims_before_the_sync_and_nothing_else_does() {
    let Stalled { sim, held, engine } = stalled(|options| options.durability(Durability::Relaxed));
    held.hold();
    let taken = |name| match submit(&engine, name).wait().unwrap() {
        Begin::Claimed(claim) => claim,
        other => panic!("{other:?}"),
    };
    let claim = taken("k");
    // The claim survives kill -9, which loses no written byte. A power loss may forget it.
    let killed = sim.disk.crash(CrashMode::ProcessKill);
    let lost = sim.disk.crash(CrashMode::LoseAllUnsynced);
    let completed = unanswered(claim.complete(b"x"));
    held.release();
    completed.wait().unwrap();
    orphan(&sim.on(killed).open(), "k");
    let _again = common::claim(&sim.on(lost).open(), "k");
}

#[test]
fn a_token_that_a_power_loss_forgot_is_not_issued_again() {
    let Stalled { sim, held, engine } = stalled(|options| options.durability(Durability::Relaxed));
    let known = claim(&engine, "known");
    let token = known.token();
    // An end waits for its sync, so none is under way when the gate closes.
    known.complete(b"x").wait().unwrap();
    let known = token;
    held.hold();
    let first = submit(&engine, "first").wait().unwrap();
    held.wait_for_sync();
    // Three claims in one group, granted before a sync that never happens.
    let granted = ["a", "b", "c"].map(|name| submit(&engine, name));
    held.release_one();
    let granted = granted.map(|pending| pending.wait().unwrap());
    let forgotten = granted.each_ref().map(|begin| match begin {
        Begin::Claimed(claim) => claim.token(),
        other => panic!("{other:?}"),
    });
    held.wait_for_sync();
    let lost = sim.disk.crash(CrashMode::LoseAllUnsynced);
    held.release();
    let engine = sim.on(lost).open();
    drop((first, granted));
    for name in ["a", "b", "c", "d", "e"] {
        let token = claim(&engine, name).token();
        assert!(token > known && !forgotten.contains(&token), "{token} was issued before");
    }
}

#[test]
fn orphans_are_bounded() {
    let Stalled { engine, .. } = stalled(|options| options.max_orphans(2));
    for name in ["one", "two"] {
        drop(claim(&engine, name));
        orphan(&engine, name);
    }
    assert_eq!(begin_error(&engine, "three").kind(), ErrorKind::Overloaded);
    // This bound never refuses to resolve an orphan, and resolving makes room.
    orphan(&engine, "one").release().wait().unwrap();
    while engine.begin(&key("three"), body("a")).wait().is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn the_store_size_is_bounded() {
    let Stalled { sim, engine, .. } = stalled(|options| options.max_store_bytes(Some(1_000_000)));
    let mut refused = None;
    for round in 0..1000 {
        match engine.begin(&key(format!("k{round}")), body("a")).wait() {
            Ok(Begin::Claimed(claim)) => drop(claim.complete(&[1; 4096]).wait().unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
        if round % 10 == 0 {
            engine.fold().unwrap();
        }
    }
    let refused = refused.expect("the bound is reached");
    assert_eq!(refused.kind(), ErrorKind::StoreFull, "{refused:?}");
    let told = engine.stats().store_bytes;
    let used: u64 = sim.disk.files().iter().map(|(_, bytes)| bytes).sum();
    assert!((1_000_000..2_000_000).contains(&used), "{used} bytes");
    assert!((1_000_000..=used).contains(&told), "{told} of {used} bytes");
}

#[test]
fn begins_wait_for_memory_and_are_overloaded_when_folding_does_not_keep_up() {
    let Stalled { held, engine, .. } =
        stalled_at("redb", |options| options.overload_after(Duration::from_millis(50)));
    let mut owners: Vec<_> = (0..40).map(|n| claim(&engine, &format!("owner {n}"))).collect();
    held.hold();
    // The first half of recent memory is being folded, and the second fills up.
    for owner in owners.drain(..30) {
        owner.complete(&[1; 4096]).wait().unwrap();
    }
    held.wait_for_sync();
    let refused = begin_error(&engine, "new");
    assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused:?}");
    // The end of a claim is not refused.
    for owner in owners {
        owner.complete(&[1; 4096]).wait().unwrap();
    }
    held.release();
    while engine.begin(&key("new"), body("a")).wait().is_err() {
        std::thread::yield_now();
    }
    replay(&engine, "owner 0");
    replay(&engine, "owner 39");
}

/// A store whose folder has nothing to do, and a key that expired in its record file, so that a lookup of the key
/// must read.
fn cold() -> Stalled {
    let sim = Sim::new();
    let engine = sim.open();
    // The expiry is not at the end of a bucket, since a bucket that expired whole is not read.
    sim.clock.advance(Duration::from_secs(1));
    complete(&engine, "k", b"first");
    engine.close().unwrap();
    let held = HeldDisk::new(sim.disk.clone(), "records-");
    let options = sim.options().disk(Arc::new(held.clone()));
    let engine = options.open("/store").unwrap();
    // The sweep comes last, when filters are loaded.
    engine.sweep().unwrap();
    sim.clock.advance(TTL);
    Stalled { sim, held, engine }
}

/// Lets the stalled lookup go on, even if the test fails.
struct Release<'a>(&'a HeldDisk);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.release_read();
    }
}

/// Runs `lookup` on a thread, stalled in its read while `meanwhile` runs.
fn stall<T: Send>(
    held: &HeldDisk,
    lookup: impl FnOnce() -> T + Send,
    meanwhile: impl FnOnce(),
) -> T {
    std::thread::scope(|scope| {
        let release = Release(held);
        held.hold_next_read();
        let stalled = scope.spawn(lookup);
        while !held.holds_read() {
            assert!(!stalled.is_finished(), "the lookup read nothing");
            std::thread::yield_now();
        }
        meanwhile();
        assert!(held.holds_read() && !stalled.is_finished());
        drop(release);
        stalled.join().unwrap()
    })
}

#[test]
fn a_lookup_that_stalls_while_the_key_is_completed_folded_and_evicted() {
    let Stalled { held, engine, .. } = cold();
    let replayed = |name| replay(&engine, name).response().unwrap().to_vec();
    let found = stall(
        &held,
        || engine.get(&key("k")).unwrap(),
        || {
            complete(&engine, "k", b"second");
            engine.fold().unwrap();
            assert_eq!(engine.stats().recent_bytes, 0, "evicted");
            assert_eq!(replayed("k"), b"second");
        },
    );
    // The lookup overlaps all of these changes, so it may return an earlier state, but never the
    // expired response.
    match found {
        Lookup::Absent => {}
        Lookup::Completed(recorded) => assert_eq!(recorded.response(), Some(&b"second"[..])),
        other => panic!("{other:?}"),
    }
    assert_eq!(replayed("k"), b"second");
}

#[test]
fn a_begin_that_stalls_in_its_lookup_keeps_others_from_deciding() {
    let Stalled { held, engine, .. } = cold();
    let mut second = None;
    let first = stall(
        &held,
        || submit(&engine, "k").wait().unwrap(),
        || {
            second = Some(unanswered(submit(&engine, "k")));
            complete(&engine, "other", b"goes on");
            engine.fold().unwrap();
            engine.sweep().unwrap();
        },
    );
    assert!(matches!(first, Begin::Claimed(_)), "{first:?}");
    let second = second.unwrap().wait().unwrap();
    assert!(matches!(second, Begin::Locked(_)), "{second:?}");
}

/// Without a committer no thread watches the end of a wait, and no owner can end its claim.
#[test]
fn whoever_waits_for_an_owner_is_answered_when_the_engine_fails() {
    type MakeFault = fn() -> Fault;
    let failures: [(&str, MakeFault); 4] = [
        ("the journal", || Fault::at_kind(OpKind::Sync, 0).on_path("journal-0000")),
        ("the committer", || Fault::at_kind(OpKind::Sync, 0).on_path("journal-0000").panic()),
        ("the store file", || Fault::at_kind(OpKind::Sync, 0).on_path("store.redb")),
        ("the folder", || Fault::at_kind(OpKind::Write, 0).on_path("store.redb").panic()),
    ];
    for (what, fault) in failures {
        let sim = Sim::new();
        let engine = sim.open();
        let _owner = claim(&engine, "held");
        let hour = Duration::from_secs(3600);
        let waiter = unanswered(engine.begin_waiting(&key("held"), body("a"), hour));
        sim.disk.inject(fault());
        let other = engine.begin(&key("other"), body("a")).wait();
        assert!(other.is_err() || engine.fold().is_err());
        match waiter.wait_timeout(Duration::from_secs(60)) {
            Ok(answer) => assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable, "{what}"),
            Err(_) => panic!("still waiting after {what} failed"),
        }
        sim.disk.clear_faults();
        engine.reopen().unwrap();
        assert_eq!(engine.stats().waiters, 0);
    }
}

#[test]
fn a_batch_larger_than_a_segment_is_several_groups_of_which_the_first_to_fail_is_in_doubt() {
    for fails in [false, true] {
        let Stalled { sim, held, engine } = stalled(|options| options.recent_bytes(4 << 20));
        // One group of claims: the segment in use is still the first one.
        held.hold();
        let stuck = submit(&engine, "stuck");
        held.wait_for_sync();
        let begun: Vec<_> = (0..60).map(|n| submit(&engine, &format!("owner {n}"))).collect();
        held.release();
        drop(stuck.wait().unwrap());
        let owners = begun.into_iter().map(|pending| match pending.wait().unwrap() {
            Begin::Claimed(claim) => claim,
            other => panic!("{other:?}"),
        });
        let owners: Vec<_> = owners.collect();
        // The end of the dropped claim was queued before.
        orphan(&engine, "stuck");

        held.hold();
        let stuck = submit(&engine, "stuck again");
        held.wait_for_sync();
        let ends: Vec<_> = owners.into_iter().map(|owner| owner.complete(&[1; 4096])).collect();
        if fails {
            // The sync that is under way comes first.
            let fault = Fault::at_kind(OpKind::Sync, 1).errno(Fault::EIO);
            sim.disk.inject(fault.on_path("journal-0000"));
        }
        held.release();
        let _claim = stuck.wait().unwrap();
        let ended: Vec<_> = ends.into_iter().map(Pending::wait).collect();
        if !fails {
            assert!(ended.iter().all(|end| end.is_ok()));
            continue;
        }
        let failed: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
        let count = |kind| failed.iter().filter(|failed| failed.kind() == kind).count();
        let (unknown, refused) = (count(ErrorKind::OutcomeUnknown), count(ErrorKind::Unavailable));
        assert!(unknown > 0 && refused > 0, "{unknown} in doubt, {refused} not written");
        assert_eq!(unknown + refused, 60);
        assert!(failed.into_iter().all(|failed| failed.into_handle().is_some()));
    }
}
