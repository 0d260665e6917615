//! Answers before and after a change is durable, and the bounds of the engine.

use std::time::Duration;

use oncekey::{Begin, ErrorKind};

use super::{Bounds, Rig, cases};
use crate::calls::*;

cases!($ waiting:
    a_claim_waits_until_it_is_durable_and_others_wait_for_the_claim,
    every_end_waits_until_it_is_durable,
    a_key_in_flight_is_answered_while_the_store_stands_still,
    the_queue_is_bounded_for_begins_and_open_for_ends,
    waiters_are_bounded,
    thousands_that_wait_for_one_key_are_answered_by_one_end,
    claims_in_flight_are_bounded,
    a_full_engine_replays_and_refuses_as_ever,
    responses_and_checkpoints_at_their_limit_and_one_past_it,
);

fn a_claim_waits_until_it_is_durable_and_others_wait_for_the_claim(rig: impl Rig) {
    let engine = rig.open();
    rig.hold(&engine);
    let first = submit(&engine, "k");
    rig.wait_until_held();
    // The claim is under way, but not durable: no caller is answered, not even with Locked or
    // Mismatch.
    let first = unanswered(first);
    let second = unanswered(submit(&engine, "k"));
    let other = unanswered(engine.begin(&key("k"), body("b")));
    rig.release();
    assert!(matches!(first.wait().unwrap(), Begin::Claimed(_)));
    assert!(matches!(second.wait().unwrap(), Begin::Locked(_) | Begin::Orphaned(_)));
    assert!(matches!(other.wait().unwrap(), Begin::Mismatch(_)));
}

fn every_end_waits_until_it_is_durable(rig: impl Rig) {
    let engine = rig.open();
    let [one, two, three] = ["one", "two", "three"].map(|name| claim(&engine, name));
    drop(claim(&engine, "four"));
    drop(claim(&engine, "five"));
    let (four, five) = (orphan(&engine, "four"), orphan(&engine, "five"));
    rig.hold(&engine);
    let completed = one.complete(b"x");
    let aborted = two.abort();
    let saved = three.checkpoint(b"half");
    let taken = four.take_over();
    let released = five.release();
    rig.wait_until_held();
    let completed = unanswered(completed);
    // The owner has sent its end: a begin waits until the end is durable, and is not told Locked.
    let replayed = unanswered(submit(&engine, "one"));
    let (aborted, saved) = (unanswered(aborted), unanswered(saved));
    let (taken, released) = (unanswered(taken), unanswered(released));
    rig.release();
    completed.wait().unwrap();
    aborted.wait().unwrap();
    saved.wait().unwrap();
    drop(taken.wait().unwrap());
    released.wait().unwrap();
    assert!(matches!(replayed.wait().unwrap(), Begin::Replay(_)));
}

fn a_key_in_flight_is_answered_while_the_store_stands_still(rig: impl Rig) {
    let engine = rig.open();
    let _owner = claim(&engine, "k");
    rig.hold(&engine);
    let _stuck = submit(&engine, "other");
    rig.wait_until_held();
    locked(&engine, "k");
    let mismatch = engine.begin(&key("k"), body("b")).wait().unwrap();
    assert!(matches!(mismatch, Begin::Mismatch(_)));
    rig.release();
}

fn the_queue_is_bounded_for_begins_and_open_for_ends(rig: impl Rig) {
    let bounds = Bounds { max_queue: 2, ..Bounds::default() };
    let engine = rig.open_nth(0, &bounds);
    let owner = claim(&engine, "owner");
    rig.hold(&engine);
    let stuck = submit(&engine, "stuck");
    rig.wait_until_held();
    // The backend decides whether the change under way counts.
    let queued = [submit(&engine, "q1"), submit(&engine, "q2")];
    let refused = begin_error(&engine, "q3");
    assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused:?}");
    let completed = owner.complete(b"x");
    rig.release();
    completed.wait().unwrap();
    assert!(matches!(stuck.wait().unwrap(), Begin::Claimed(_)));
    let [first, second] = queued.map(|pending| pending.wait());
    assert!(matches!(first.unwrap(), Begin::Claimed(_)));
    match second {
        Ok(begin) => assert!(matches!(begin, Begin::Claimed(_))),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded),
    }
    // The refused begin had no effect.
    let _claim = claim(&engine, "q3");
}

fn waiters_are_bounded(rig: impl Rig) {
    let bounds = Bounds { max_waiters: 2, ..Bounds::default() };
    let engine = rig.open_nth(0, &bounds);
    let owner = claim(&engine, "k");
    let waiting = [wait_for(&engine, "k"), wait_for(&engine, "k")];
    let refused = wait_for(&engine, "k").wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused:?}");
    owner.complete(b"x").wait().unwrap();
    for pending in waiting {
        assert!(matches!(pending.wait().unwrap(), Begin::Replay(_)));
    }
}

fn thousands_that_wait_for_one_key_are_answered_by_one_end(rig: impl Rig) {
    let engine = rig.open();
    let owner = claim(&engine, "k");
    let waiting: Vec<_> = (0..3_000).map(|_| wait_for(&engine, "k")).collect();
    owner.complete(b"done").wait().unwrap();
    for pending in waiting {
        assert!(matches!(pending.wait().unwrap(), Begin::Replay(_)));
    }
}

fn claims_in_flight_are_bounded(rig: impl Rig) {
    let bounds = Bounds { max_in_flight: 2, ..Bounds::default() };
    let engine = rig.open_nth(0, &bounds);
    let one = claim(&engine, "one");
    let _two = claim(&engine, "two");
    assert_eq!(begin_error(&engine, "three").kind(), ErrorKind::Overloaded);
    locked(&engine, "one");
    one.complete(b"x").wait().unwrap();
    let three = claim(&engine, "three");
    // Every end of a claim frees a place.
    drop(three);
    orphan(&engine, "three");
    let four = claim(&engine, "four");
    let refused = orphan(&engine, "three").take_over().wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    four.abort().wait().unwrap();
    let taken = refused.into_handle().unwrap().take_over().wait().unwrap();
    taken.abort().wait().unwrap();
    assert_eq!(engine.stats().in_flight, 1);
    let _five = claim(&engine, "five");
}

/// The bound refuses only a call that would make one more claim.
fn a_full_engine_replays_and_refuses_as_ever(rig: impl Rig) {
    let bounds = Bounds { max_in_flight: 1, ..Bounds::default() };
    let engine = rig.open_nth(0, &bounds);
    complete(&engine, "done", b"x");
    drop(claim(&engine, "gone"));
    orphan(&engine, "gone");
    let _held = claim(&engine, "held");
    replay(&engine, "done");
    orphan(&engine, "gone");
    let mismatch = engine.begin(&key("done"), body("b")).wait().unwrap();
    assert!(matches!(mismatch, Begin::Mismatch(_)), "{mismatch:?}");
    let waited = engine.begin_waiting(&key("held"), body("a"), Duration::from_millis(5));
    assert!(matches!(waited.wait().unwrap(), Begin::Locked(_)));
    orphan(&engine, "gone").release().wait().unwrap();
    assert_eq!(begin_error(&engine, "gone").kind(), ErrorKind::Overloaded);
}

fn responses_and_checkpoints_at_their_limit_and_one_past_it(rig: impl Rig) {
    let bounds = Bounds { max_response: 100, max_checkpoint: 10, ..Bounds::default() };
    let engine = rig.open_nth(0, &bounds);
    let at = claim(&engine, "at").complete(&[1; 100]).wait().unwrap();
    assert!(at.response_kept());
    // The claim is completed, and the caller learns that the response was not kept.
    let past = claim(&engine, "past").complete(&[1; 101]).wait().unwrap();
    assert!(!past.response_kept());
    assert_eq!(replay(&engine, "past").response(), None);

    let owner = claim(&engine, "k");
    owner.checkpoint(&[1; 10]).wait().unwrap();
    let refused = owner.checkpoint(&[2; 11]).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    drop(owner);
    assert_eq!(checkpoint(orphan(&engine, "k").last_checkpoint()), [1; 10]);
}
