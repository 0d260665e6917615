//! Begins that wait for an owner, and whose callers stop waiting.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::stalled::*;
use common::*;
use oncekey::{Begin, ErrorKind, Pending};

/// No time passes and no owner ends, so only the drop makes room.
#[test]
fn a_waiting_begin_that_is_dropped_makes_room_at_once() {
    let Stalled { engine, .. } = stalled(|options| options.max_waiters(1));
    let owner = claim(&engine, "k");
    let wait = |name| engine.begin_waiting(&key(name), body("a"), Duration::from_secs(600));
    for polled in [false, true, false] {
        let mut pending = wait("k");
        if polled {
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut pending).poll(&mut context).is_pending());
        }
        // A wait that timed out is still a wait.
        let pending = unanswered(pending);
        assert_eq!(wait("k").wait().unwrap_err().kind(), ErrorKind::Overloaded);
        drop(pending);
        assert_eq!(engine.stats().waiters, 0);
    }
    // Another begin takes the place, and is the only one answered.
    let last = unanswered(wait("k"));
    owner.abort().wait().unwrap();
    let Begin::Claimed(claim) = last.wait().unwrap() else { panic!("the key is free") };
    assert_eq!(engine.stats().claimed, 2);
    claim.complete(b"x").wait().unwrap();
    assert_eq!(engine.stats().waiters, 0);
    // A drop after its engine is gone has no queue to leave.
    let _owner = common::claim(&engine, "held");
    let outlived = unanswered(wait("held"));
    drop(engine);
    drop(outlived);
}

#[test]
fn those_who_wait_beside_a_dropped_begin_are_answered_in_their_order() {
    let Stalled { engine, .. } = stalled(|options| options);
    let owner = claim(&engine, "k");
    let wait = || engine.begin_waiting(&key("k"), body("a"), Duration::from_secs(600));
    let [first, second, third] = [(); 3].map(|()| wait());
    drop(second);
    assert_eq!(engine.stats().waiters, 2);
    owner.abort().wait().unwrap();
    let Begin::Claimed(claim) = first.wait().unwrap() else { panic!("the first in the slot") };
    let third = unanswered(third);
    claim.complete(b"x").wait().unwrap();
    assert!(matches!(third.wait().unwrap(), Begin::Replay(_)));
    assert_eq!(engine.stats().claimed, 2);
}

/// A begin that is dropped while the disk makes its claim durable no longer waits for an owner. The
/// engine gives the claim back.
#[test]
fn a_waiting_begin_that_is_dropped_while_it_is_promoted_leaves_the_key_free() {
    let Stalled { held, engine, .. } = stalled(|options| options.max_waiters(1));
    let owner = claim(&engine, "k");
    let wait = || engine.begin_waiting(&key("k"), body("a"), Duration::from_secs(600));
    let promoted = wait();
    held.hold();
    let aborted = owner.abort();
    held.wait_for_sync();
    held.release_one();
    aborted.wait().unwrap();
    // The begin that waited is in the group that is being synced.
    held.wait_for_sync();
    drop(promoted);
    let next = wait();
    held.release();
    let Begin::Claimed(claim) = next.wait().unwrap() else { panic!("the key is free") };
    assert_eq!(claim.attempt(), 1);
    let stats = engine.stats();
    assert_eq!((stats.claimed, stats.aborted, stats.abandoned, stats.waiters), (3, 2, 0, 0));
    claim.abort().wait().unwrap();
}

/// A waker may drop another `Pending`: it runs on a thread of the engine, with none of its locks held.
#[test]
fn a_waiting_begin_can_be_dropped_by_a_waker() {
    struct Dropping(Mutex<Option<Pending<Begin>>>);
    impl Wake for Dropping {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    let Stalled { engine, .. } = stalled(|options| options);
    let owner = claim(&engine, "k");
    let wait = || engine.begin_waiting(&key("k"), body("a"), Duration::from_secs(600));
    let dropping = Arc::new(Dropping(Mutex::new(None)));
    let waker = Waker::from(dropping.clone());
    let mut context = Context::from_waker(&waker);
    let (mut first, second, other) = (wait(), wait(), unanswered(wait()));
    assert!(Pin::new(&mut first).poll(&mut context).is_pending());
    *dropping.0.lock().unwrap() = Some(second);
    owner.abort().wait().unwrap();
    // The first claims, whose waker drops the second.
    while dropping.0.lock().unwrap().is_some() || engine.stats().waiters != 1 {
        std::thread::yield_now();
    }
    let Begin::Claimed(claim) = first.wait().unwrap() else { panic!("the first in the slot") };
    claim.complete(b"x").wait().unwrap();
    assert!(matches!(other.wait().unwrap(), Begin::Replay(_)));
}

/// Owners end and waiters give up at the same moments; no waiter and no room for one is lost.
#[test]
fn waits_that_are_dropped_at_any_moment_lose_neither_room_nor_keys() {
    let Stalled { engine, .. } = stalled(|options| options.max_waiters(4));
    let giving_up = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (engine, giving_up) = (&engine, &giving_up);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                while giving_up.load(Ordering::Relaxed) {
                    let hour = Duration::from_secs(3600);
                    let pending = engine.begin_waiting(&key("k"), body("a"), hour);
                    (0..random.below(3)).for_each(|_| std::thread::yield_now());
                    drop(pending);
                }
            });
        }
        for _ in 0..200 {
            let hour = Duration::from_secs(3600);
            match engine.begin_waiting(&key("k"), body("a"), hour).wait().unwrap() {
                Begin::Claimed(claim) => claim.abort().wait().unwrap(),
                other => panic!("{other:?}"),
            }
        }
        giving_up.store(false, Ordering::Relaxed);
    });
    // The claim of the last dropped begin may still be on its way to the disk and back.
    let last = engine.begin_waiting(&key("k"), body("a"), Duration::from_secs(3600));
    let Begin::Claimed(last) = last.wait().unwrap() else { panic!("the key is free") };
    last.abort().wait().unwrap();
    let stats = engine.stats();
    assert_eq!((stats.waiters, stats.abandoned, stats.in_flight), (0, 0, 0));
}
