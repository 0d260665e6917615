//! Records that were replayed often enough to be kept in memory.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use oncekey::{Begin, Engine, ErrorKind, Lookup};
use oncekey_testing::{Fault, OpKind};

/// The cache keeps one of eight.
const OFTEN: usize = 64;

fn replay_often(engine: &Engine, name: &str, response: &[u8]) {
    for _ in 0..OFTEN {
        assert_eq!(replay(engine, name).response(), Some(response));
    }
}

fn folded_and_kept(engine: &Engine, name: &str, response: &[u8]) {
    complete(engine, name, response);
    engine.fold().unwrap();
    replay_often(engine, name, response);
}

#[test]
fn they_need_no_disk() {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "seldom", b"r");
    folded_and_kept(&engine, "often", b"r");
    sim.disk.inject(Fault::at_kind(OpKind::Read, 0).errno(Fault::EIO).forever());
    replay_often(&engine, "often", b"r");
    let other = engine.begin(&key("often"), body("other")).wait().unwrap();
    assert!(matches!(&other, Begin::Mismatch(m) if m.parts() == ["body"]), "{other:?}");
    let seldom = engine.begin(&key("seldom"), body("a")).wait().unwrap_err();
    assert_eq!(seldom.kind(), ErrorKind::Io, "{seldom}");
}

#[test]
fn a_later_life_of_the_key_is_what_counts() {
    let sim = Sim::new();
    let engine = sim.open();
    for life in 0..4 {
        folded_and_kept(&engine, "k", format!("life {life}").as_bytes());
        sim.clock.advance(TTL);
        if life % 2 == 0 {
            engine.sweep().unwrap();
        }
        // The kept record has expired too, and every caller sees the claim that follows it.
        let claim = claim(&engine, "k");
        engine.fold().unwrap();
        let locked = engine.begin(&key("k"), body("a")).wait().unwrap();
        assert!(matches!(locked, Begin::Locked(_)), "{locked:?}");
        claim.abort().wait().unwrap();
        engine.fold().unwrap();
        assert!(matches!(engine.get(&key("k")).unwrap(), Lookup::Absent));
    }
}

#[test]
fn an_orphan_that_follows_is_an_orphan() {
    let sim = Sim::new();
    let engine = sim.open();
    folded_and_kept(&engine, "k", b"r");
    sim.clock.advance(TTL);
    drop(claim(&engine, "k"));
    for fold in [false, true] {
        if fold {
            engine.fold().unwrap();
        }
        orphan(&engine, "k");
    }
}
