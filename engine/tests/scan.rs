//! A walk through the store meets every record that stands, once, wherever it lies.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use common::{Random, Seed, Sim, claim, complete, key, orphan, seeds};
use oncekey::{Engine, ErrorKind, Listed, Lookup};

/// The lookup in a word, with the response if it is completed.
fn word(lookup: &Lookup) -> String {
    match lookup {
        Lookup::Absent => "absent".to_owned(),
        Lookup::InFlight(owner) => format!("in flight {}", owner.attempt()),
        Lookup::Orphaned(orphan) => format!("orphaned {}", orphan.attempt()),
        Lookup::Completed(recorded) => {
            format!("completed {}", String::from_utf8_lossy(recorded.response().unwrap()))
        }
        other => panic!("{other:?}"),
    }
}

type Page = oncekey::Result<(Vec<Listed>, Option<[u8; 16]>)>;

/// The whole walk, a page at a time; no key may come twice.
fn walk(limit: usize, page: impl Fn(Option<[u8; 16]>, usize) -> Page) -> BTreeMap<String, String> {
    let (mut after, mut met) = (None, BTreeMap::new());
    loop {
        let (listed, next) = page(after, limit).unwrap();
        assert!(listed.len() <= limit);
        assert!(listed.iter().map(Listed::place).is_sorted());
        assert!(listed.iter().all(|listed| Some(listed.place()) > after));
        for listed in listed {
            let name = String::from_utf8(listed.key().key().to_vec()).unwrap();
            let twice = met.insert(name, word(listed.lookup()));
            assert_eq!(twice, None);
        }
        assert!(next.is_none() || next > after, "the walk goes on");
        after = next;
        if after.is_none() {
            return met;
        }
    }
}

fn assert_same(met: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) {
    let differ = |name: &&String| met.get(*name) != expected.get(*name);
    let names: std::collections::BTreeSet<_> = met.keys().chain(expected.keys()).collect();
    let names = names.into_iter().filter(differ);
    let lines: Vec<_> = names.map(|name| (name, met.get(name), expected.get(name))).collect();
    assert!(lines.is_empty(), "{lines:?}");
}

fn walk_engine(engine: &Engine, limit: usize) -> BTreeMap<String, String> {
    walk(limit, |after, limit| engine.scan(after, limit))
}

/// Random histories: the walk and `get` agree on each key.
#[test]
fn a_walk_agrees_with_every_look_up() {
    for seed in seeds(0..12) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let sim = Sim::new();
        let mut engine = sim.open();
        let (mut held, mut names) = (Vec::new(), Vec::new());
        for number in 0..300 {
            let name = format!("k{number}");
            match random.below(10) {
                0 => held.push(claim(&engine, &name)),
                1 => drop(claim(&engine, &name)),
                2 => claim(&engine, &name).abort().wait().unwrap(),
                3 => {
                    drop(claim(&engine, &name));
                    orphan(&engine, &name).release().wait().unwrap();
                }
                4 => drop(held.pop().map(|claim| claim.complete(b"late").wait().unwrap())),
                _ => complete(&engine, &name, name.as_bytes()),
            }
            names.push(name);
            match random.below(60) {
                0 => engine.fold().unwrap(),
                1 => engine.reopen().unwrap(),
                2 => drop(engine.sweep().unwrap()),
                3 => sim.clock.advance(Duration::from_secs(random.below(30))),
                4 => {
                    held.clear();
                    engine.close().unwrap();
                    engine = sim.open();
                }
                _ => {}
            }
        }
        // The end of a dropped claim may be on its way. This begin comes behind it.
        complete(&engine, "last", b"last");
        names.push("last".to_owned());
        let state = |name: &String| (name.clone(), word(&engine.get(&key(name)).unwrap()));
        let mut expected: BTreeMap<_, _> = names.iter().map(state).collect();
        expected.retain(|_, word| word != "absent");
        for limit in [1, 7, 10_000] {
            assert_same(&walk_engine(&engine, limit), &expected);
        }
        engine.fold().unwrap();
        assert_same(&walk_engine(&engine, 13), &expected);
        // A reader sees the same. A key that was in flight still is, without an owner.
        let expected = walk_engine(&engine, 100);
        engine.close().unwrap();
        held.clear();
        let reader = sim.options().read("/store").unwrap();
        for limit in [1, 50] {
            assert_same(&walk(limit, |after, limit| reader.scan(after, limit)), &expected);
        }
    }
}

#[test]
fn a_page_of_long_responses_is_short() {
    let sim = Sim::new();
    let engine = sim.options().max_response(1 << 20).segment_bytes(4 << 20).open("/store").unwrap();
    for number in 0..12 {
        complete(&engine, &format!("k{number}"), &[b'x'; 1 << 20]);
    }
    engine.fold().unwrap();
    let (page, next) = engine.scan(None, 12).unwrap();
    assert!(page.len() < 8 && next.is_some(), "{} of 12 MiB at once", page.len());
    assert_eq!(walk_engine(&engine, 12).len(), 12);
    // Newer records behind the end of a short page belong to the next page.
    for number in 0..50 {
        complete(&engine, &format!("r{number}"), b"recent");
    }
    assert_eq!(walk_engine(&engine, 70).len(), 62);
}

#[test]
fn a_walk_that_meets_damage_says_so() {
    let sim = Sim::new();
    let engine = sim.open();
    for number in 0..20 {
        complete(&engine, &format!("k{number}"), b"response");
    }
    engine.close().unwrap();
    let names = sim.disk.list("/store".as_ref()).unwrap();
    let records = names.iter().find(|name| name.starts_with("records-")).unwrap();
    sim.disk.flip_bit(format!("/store/{records}"), 100, 3);
    let engine = sim.open();
    assert_eq!(engine.scan(None, 20).unwrap_err().kind(), ErrorKind::Corrupted);
}

#[test]
fn buckets_tell_what_expires_when() {
    let sim = Sim::new();
    let engine = sim.open();
    assert_eq!(engine.buckets().unwrap(), []);
    for number in 0..30 {
        complete(&engine, &format!("k{number}"), &[b'x'; 100]);
    }
    engine.fold().unwrap();
    let buckets = engine.buckets().unwrap();
    assert_eq!(buckets.iter().map(|bucket| bucket.records).sum::<u64>(), 30);
    assert!(buckets.iter().all(|bucket| bucket.bytes > 100 * bucket.records));
    let Lookup::Completed(recorded) = engine.get(&key("k3")).unwrap() else { panic!("completed") };
    let ends: Vec<SystemTime> = buckets.iter().map(|bucket| bucket.end).collect();
    assert!(ends.is_sorted() && ends.iter().any(|end| *end >= recorded.expires_at()));
    engine.close().unwrap();
    assert_eq!(sim.options().read("/store").unwrap().buckets().unwrap(), buckets);
    assert_eq!(engine.buckets().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(engine.scan(None, 1).unwrap_err().kind(), ErrorKind::Closed);
}
