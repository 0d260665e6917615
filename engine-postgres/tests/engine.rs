//! The engine over PostgreSQL, as its users hold it: several engines on one database, each a process.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::cluster;
use oncekey::{Begin, Claim, Engine, ErrorKind, Fingerprint, Key, Lookup, Orphan};
use oncekey_postgres::Options;

fn fingerprint(body: &str) -> Fingerprint {
    Fingerprint::builder().part("body", body).finish()
}

fn key(name: &str) -> Key {
    Key::new("scope", name).unwrap()
}

fn begin(engine: &Engine, name: &str) -> Begin {
    engine.begin(&key(name), fingerprint("body")).wait().unwrap()
}

fn claim(engine: &Engine, name: &str) -> Claim {
    match begin(engine, name) {
        Begin::Claimed(claim) => claim,
        other => panic!("{other:?}"),
    }
}

/// Waits: the end of a claim that is dropped is on its way when the drop returns.
fn orphan(engine: &Engine, name: &str) -> Orphan {
    let long = Duration::from_secs(60);
    match engine.begin_waiting(&key(name), fingerprint("body"), long).wait().unwrap() {
        Begin::Orphaned(orphan) => orphan,
        other => panic!("{other:?}"),
    }
}

fn replay(engine: &Engine, name: &str) -> Vec<u8> {
    match begin(engine, name) {
        Begin::Replay(recorded) => recorded.response().unwrap().to_vec(),
        other => panic!("{other:?}"),
    }
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
        match engine.begin(&key("a"), fingerprint("else")).wait().unwrap() {
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
    let long = Duration::from_secs(60);
    for (name, what) in [("complete", 0), ("abort", 1), ("drop", 2)] {
        let held = claim(&one, name);
        let pending: Vec<_> = [&one, &other, &other]
            .map(|engine| engine.begin_waiting(&key(name), fingerprint("body"), long))
            .into();
        match what {
            0 => drop(held.complete(b"done").wait().unwrap()),
            1 => held.abort().wait().unwrap(),
            _ => drop(held),
        }
        // Whichever of them is granted the key completes it, and the others wait for that.
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
        let waited =
            engine.begin_waiting(&key("bound"), fingerprint("body"), short).wait().unwrap();
        assert!(matches!(waited, Begin::Locked(_)));
    }
}

#[test]
fn closed_engines_leave_orphans_at_once_and_answer_closed() {
    let Some([one, other]) = fleet(|options| options) else { return };
    let held = claim(&one, "a");
    assert_eq!(one.close().unwrap().in_flight, 1);
    assert_eq!(
        one.begin(&key("b"), fingerprint("body")).wait().unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(one.close().unwrap_err().kind(), ErrorKind::Closed);
    let orphan = orphan(&other, "a");
    let failed = held.complete(b"late").wait().unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Closed);
    orphan.take_over().wait().unwrap().complete(b"done").wait().unwrap();
    assert_eq!(other.backup_to("/nowhere").unwrap_err().kind(), ErrorKind::Unsupported);
    other.fold().unwrap();
    other.sweep().unwrap();
    assert_eq!(other.stats().taken_over, 1);
}

#[test]
fn a_reopened_engine_leaves_orphans_that_their_owners_may_complete() {
    let Some([one, other]) = fleet(|options| options) else { return };
    let held = claim(&one, "a");
    one.reopen().unwrap();
    assert!(matches!(begin(&other, "a"), Begin::Orphaned(_)));
    assert!(matches!(begin(&one, "a"), Begin::Orphaned(_)));
    held.complete(b"late").wait().unwrap();
    assert_eq!(replay(&other, "a"), b"late");
    claim(&one, "b").complete(b"new").wait().unwrap();
}

#[test]
fn many_that_open_a_new_store_at_once_share_it() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let engines: Vec<Engine> = std::thread::scope(|scope| {
        let opening: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| cluster.options(&database, "").open().unwrap()))
            .collect();
        opening.into_iter().map(|opening| opening.join().unwrap()).collect()
    });
    claim(&engines[0], "a").complete(b"done").wait().unwrap();
    for engine in &engines {
        assert_eq!(replay(engine, "a"), b"done");
    }
}

#[test]
fn a_name_that_comes_again_ends_its_predecessor_which_goes_on_without_it() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let open = |lease| {
        let options = cluster.options(&database, "").instance_name("pod-3");
        options.lease(Duration::from_secs(lease)).open().unwrap()
    };
    let first = open(1);
    let held = claim(&first, "a");
    let second = open(600);
    assert_eq!(second.orphans().unwrap().len(), 1, "listed before anything asks for it");
    assert!(matches!(begin(&second, "a"), Begin::Orphaned(_)), "no lease is waited for");
    held.complete(b"it lived").wait().unwrap();
    assert_eq!(replay(&second, "a"), b"it lived");
    // It notices, and is another instance from then on.
    let other = claim(&first, "b");
    assert!(matches!(begin(&second, "b"), Begin::Locked(_)));
    other.complete(b"done").wait().unwrap();
    drop(open(600));
}

#[test]
fn an_instance_that_dies_leaves_orphans_after_its_lease() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let engine = oncekey::fleet::Options {
        lease: Duration::from_secs(1),
        upkeep_interval: Duration::from_secs(3_600),
        ..Default::default()
    };
    let living = cluster.options(&database, "").engine(engine).open().unwrap();
    // As a process that was killed: its instance is there, and no process renews it.
    let dead = cluster.open(&database, "", Duration::from_secs(1));
    let image = dead.claim(7);
    dead.surely(vec![image]);
    let start = std::time::Instant::now();
    // No upkeep is waited for, neither by the one that lives nor by one that comes.
    while living.orphans().unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "nobody declared it ended");
    }
    assert_eq!(cluster.options(&database, "").open().unwrap().orphans().unwrap().len(), 1);
}

#[test]
fn cut_connections_cost_no_answer_and_no_second_execution() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    // However slow the machine is, nobody loses patience.
    let patient = Duration::from_secs(120);
    let [one, other] = [(); 2].map(|()| {
        let engine = oncekey::fleet::Options {
            overload_after: patient,
            settle_for: patient,
            ..Default::default()
        };
        cluster.options(&database, "").engine(engine).open().unwrap()
    });
    let raw = cluster.raw("postgres");
    let cut = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'oncekey' AND datname = '{database}'"
    );
    std::thread::scope(|scope| {
        let workers: Vec<_> = [&one, &other]
            .into_iter()
            .enumerate()
            .map(|(at, engine)| {
                scope.spawn(move || {
                    for number in 0..60 {
                        let name = format!("{at}-{number}");
                        claim(engine, &name).complete(name.as_bytes()).wait().unwrap();
                    }
                })
            })
            .collect();
        // Connections are cut wherever a statement happens to be.
        let mut pause = 30;
        while workers.iter().any(|worker| !worker.is_finished()) {
            raw.run(&cut);
            pause = (pause * 7 / 6).min(500);
            std::thread::sleep(Duration::from_millis(pause));
        }
    });
    for (at, engine) in [&other, &one].into_iter().enumerate() {
        for number in 0..60 {
            let name = format!("{at}-{number}");
            assert_eq!(replay(engine, &name), name.as_bytes());
        }
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
                    let wait = Duration::from_secs(60);
                    match engine
                        .begin_waiting(&key(&name), fingerprint("body"), wait)
                        .wait()
                        .unwrap()
                    {
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

/// Pages by key, over rows of every state; the same walk at each engine.
#[test]
fn a_walk_through_the_store_meets_every_record_once() {
    let Some([one, other]) = fleet(|options| options) else { return };
    let mut expected = std::collections::BTreeMap::new();
    for number in 0..130 {
        let name = format!("k{number}");
        claim(&one, &name).complete(format!("response {number}").as_bytes()).wait().unwrap();
        expected.insert(name, "completed");
    }
    claim(&one, "gone").abort().wait().unwrap();
    drop(claim(&one, "orphan"));
    drop(orphan(&other, "orphan"));
    let held = claim(&other, "held");
    expected.extend([("orphan".to_owned(), "orphaned"), ("held".to_owned(), "in flight")]);
    for (engine, limit) in [(&one, 7), (&other, 10_000)] {
        let (mut after, mut met) = (None, std::collections::BTreeMap::new());
        loop {
            let (page, next) = engine.scan(after, limit).unwrap();
            assert!(page.len() <= limit);
            for listed in page {
                let word = match listed.lookup() {
                    Lookup::Completed(recorded) => {
                        assert!(recorded.response().unwrap().starts_with(b"response"));
                        "completed"
                    }
                    Lookup::Orphaned(_) => "orphaned",
                    Lookup::InFlight(_) => "in flight",
                    other => panic!("{other:?}"),
                };
                let name = String::from_utf8(listed.key().key().to_vec()).unwrap();
                assert_eq!(met.insert(name, word), None);
            }
            assert!(next.is_none() || next > after);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(met, expected);
        assert_eq!(engine.scan(Some([255; 16]), 10).unwrap().0.len(), 0);
    }
    drop(held);
}

#[test]
fn buckets_tell_what_expires_when() {
    let Some([one, other]) = fleet(|options| options) else { return };
    assert_eq!(one.buckets().unwrap(), []);
    for number in 0..5 {
        claim(&one, &format!("k{number}")).complete(&[b'r'; 100]).wait().unwrap();
    }
    let buckets = other.buckets().unwrap();
    assert_eq!(buckets.iter().map(|bucket| bucket.records).sum::<u64>(), 5);
    assert_eq!(buckets.iter().map(|bucket| bucket.bytes).sum::<u64>(), 500);
    let Lookup::Completed(recorded) = one.get(&key("k0")).unwrap() else { panic!("completed") };
    assert!(buckets.last().unwrap().end > recorded.expires_at());
}

#[test]
fn bounds_of_the_store_are_heeded_by_every_process_and_are_not_those_of_a_process() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let open = |engine| cluster.options(&database, "").engine(engine).open().unwrap();
    let options = oncekey::fleet::Options::default;
    let one = open(options());
    let few = open(oncekey::fleet::Options { max_orphans: 1, ..options() });
    let small = open(oncekey::fleet::Options { max_store_bytes: Some(1), ..options() });
    claim(&one, "done").complete(b"done").wait().unwrap();
    drop(claim(&one, "left"));
    orphan(&few, "left");
    // What a process counts is its own; what the store counts is told to each by the next upkeep.
    assert_eq!([&one, &few].map(|engine| engine.stats().claimed), [2, 0]);
    assert_eq!((small.stats().orphans, small.stats().full), (0, false));
    for engine in [&one, &few, &small] {
        engine.sweep().unwrap();
        let stats = engine.stats();
        assert_eq!(stats.orphans, 1);
        assert!(stats.store_bytes > 0);
    }
    assert!(small.stats().full && !one.stats().full);
    let refused =
        |engine: &Engine| engine.begin(&key("new"), fingerprint("body")).wait().unwrap_err().kind();
    assert_eq!(refused(&few), ErrorKind::Overloaded);
    assert_eq!(refused(&small), ErrorKind::StoreFull);
    for engine in [&few, &small] {
        assert_eq!(replay(engine, "done"), b"done", "everything but a new claim is answered");
        assert!(matches!(begin(engine, "left"), Begin::Orphaned(_)));
    }
    let full = orphan(&small, "left").take_over().wait().unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StoreFull);
    orphan(&few, "left").take_over().wait().unwrap().complete(b"done").wait().unwrap();
    few.sweep().unwrap();
    claim(&few, "new").complete(b"done").wait().unwrap();
}
