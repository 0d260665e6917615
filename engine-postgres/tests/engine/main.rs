//! The engine over PostgreSQL, as its users hold it: several engines on one database, each a process.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod lives;
mod store;

use std::time::Duration;

use common::asking::{self, LONG, orphan};
use common::cluster;
use oncekey::{Begin, Engine, ErrorKind, Lookup};
use oncekey_postgres::Options;
use oncekey_testing::calls::{self, begin, begin_error, body, claim, key};

fn replay(engine: &Engine, name: &str) -> Vec<u8> {
    calls::replay(engine, name).response().unwrap().to_vec()
}

/// Two engines on a new database.
fn fleet(more: impl Fn(Options) -> Options) -> Option<[Engine; 2]> {
    let cluster = cluster()?;
    let database = cluster.database();
    let open = || more(cluster.options(&database, "")).open().unwrap();
    Some([open(), open()])
}

#[test]
fn the_five_answers_are_the_same_at_every_engine_of_the_fleet() {
    let Some([one, other]) = fleet(|options| options) else { return };
    let first = claim(&one, "a");
    assert_eq!((first.attempt(), first.last_checkpoint().unwrap().as_deref()), (1, None));
    for engine in [&one, &other] {
        assert!(matches!(begin(engine, "a"), Begin::Locked(_)));
        match engine.begin(&key("a"), body("b")).wait().unwrap() {
            Begin::Mismatch(mismatch) => assert_eq!(mismatch.parts(), ["body"]),
            other => panic!("{other:?}"),
        }
        assert!(matches!(engine.get(&key("a")).unwrap(), Lookup::InFlight(_)));
    }
    first.checkpoint(b"half").wait().unwrap();
    drop(first);
    for engine in [&other, &one] {
        let orphan = orphan(engine, "a");
        assert_eq!(orphan.last_checkpoint().unwrap().as_deref(), Some(&b"half"[..]));
        assert_eq!(engine.orphans().unwrap().len(), 1);
    }
    let (mine, late) = (orphan(&one, "a"), orphan(&other, "a"));
    let second = mine.take_over().wait().unwrap();
    assert_eq!(
        (second.attempt(), second.last_checkpoint().unwrap().as_deref()),
        (2, Some(&b"half"[..]))
    );
    assert_eq!(late.release().wait().unwrap_err().kind(), ErrorKind::Fenced);
    assert!(second.complete(b"done").wait().unwrap().response_kept());
    for engine in [&other, &one, &other] {
        assert_eq!(replay(engine, "a"), b"done");
    }
    assert!(one.orphans().unwrap().is_empty());
}

#[test]
fn an_aborted_and_a_released_key_is_new_with_a_greater_token() {
    let Some([one, other]) = fleet(|options| options) else { return };
    let first = claim(&one, "a");
    let oldest = first.token();
    first.abort().wait().unwrap();
    let second = claim(&other, "a");
    assert!(second.token() > oldest);
    drop(second);
    let dropped = orphan(&one, "a");
    let token = dropped.token();
    dropped.release().wait().unwrap();
    assert!(claim(&other, "a").token() > token);
    assert!(matches!(one.get(&key("b")).unwrap(), Lookup::Absent));
}

#[test]
fn a_later_attempt_that_aborts_leaves_the_orphan_and_an_orphan_may_be_completed() {
    let Some([one, other]) = fleet(|options| options) else { return };
    drop(claim(&one, "a"));
    orphan(&other, "a").take_over().wait().unwrap().abort().wait().unwrap();
    let left = orphan(&one, "a");
    assert_eq!(left.attempt(), 2);
    left.complete(b"found out").wait().unwrap();
    assert_eq!(replay(&other, "a"), b"found out");
}

#[test]
fn expired_is_new_again_everywhere() {
    let Some([one, other]) = fleet(|options| options.ttl(Duration::from_millis(1_500))) else {
        return;
    };
    claim(&one, "a").complete(b"done").wait().unwrap();
    assert_eq!(replay(&other, "a"), b"done");
    drop(claim(&one, "b"));
    orphan(&other, "b");
    std::thread::sleep(Duration::from_millis(1_600));
    claim(&other, "a").complete(b"again").wait().unwrap();
    assert_eq!(replay(&one, "a"), b"again");
    claim(&one, "b").complete(b"new").wait().unwrap();
}

#[test]
fn a_begin_that_waits_is_answered_by_the_end_at_another_engine() {
    let Some([one, other]) = fleet(|options| options) else { return };
    for (name, what) in [("complete", 0), ("abort", 1), ("drop", 2)] {
        let held = claim(&one, name);
        let pending: Vec<_> = [&one, &other, &other]
            .map(|engine| engine.begin_waiting(&key(name), body("a"), LONG))
            .into();
        match what {
            0 => drop(held.complete(b"done").wait().unwrap()),
            1 => held.abort().wait().unwrap(),
            _ => drop(held),
        }
        // The waiter that is granted the key completes it, and the others wait for its end.
        let claims: usize = std::thread::scope(|scope| {
            let waiting = pending.into_iter().map(|pending| {
                scope.spawn(move || match (pending.wait().unwrap(), what) {
                    (Begin::Replay(_), _) | (Begin::Orphaned(_), 2) => 0,
                    (Begin::Claimed(claim), 1) => {
                        claim.complete(b"by a waiter").wait().unwrap();
                        1
                    }
                    (other, _) => panic!("{name}: {other:?}"),
                })
            });
            let waiting: Vec<_> = waiting.collect();
            waiting.into_iter().map(|waiter| waiter.join().unwrap()).sum()
        });
        assert_eq!(claims, usize::from(what == 1), "{name}");
    }
    let _held = claim(&one, "bound");
    for engine in [&one, &other] {
        let short = Duration::from_millis(50);
        let waited = engine.begin_waiting(&key("bound"), body("a"), short).wait().unwrap();
        assert!(matches!(waited, Begin::Locked(_)));
    }
}

#[test]
fn many_callers_and_few_keys_run_each_operation_once() {
    let Some([one, other]) = fleet(|options| options) else { return };
    let runs = std::sync::Mutex::new(std::collections::BTreeMap::<String, u32>::new());
    std::thread::scope(|scope| {
        for at in 0..8 {
            let engine = if at % 2 == 0 { &one } else { &other };
            let runs = &runs;
            scope.spawn(move || {
                for number in 0..40 {
                    let name = format!("k{}", number % 20);
                    match asking::begin(engine, &name) {
                        Begin::Claimed(claim) => {
                            *runs.lock().unwrap().entry(name.clone()).or_default() += 1;
                            claim.complete(name.as_bytes()).wait().unwrap();
                        }
                        Begin::Replay(recorded) => {
                            assert_eq!(recorded.response(), Some(name.as_bytes()))
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    let runs = runs.into_inner().unwrap();
    assert_eq!(runs.len(), 20);
    assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
}
