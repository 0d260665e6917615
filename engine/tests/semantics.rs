//! The answers to callers: the suite that every backend passes, and tests of the embedded store
//! alone.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use oncekey::{Begin, Engine, ErrorKind, Pending};
use oncekey_testing::CrashMode;
use oncekey_testing::conformance::Embedded;

oncekey_testing::semantics!(Embedded);

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
fn stats_tell_of_the_oldest_claim_and_of_memory() {
    let sim = Sim::new();
    let engine = sim.open();
    let _old = claim(&engine, "old");
    sim.clock.advance(Duration::from_secs(7));
    let Begin::Locked(in_flight) = begin(&engine, "old") else { panic!("locked") };
    assert_eq!(in_flight.running_for(), Duration::from_secs(7));
    drop(claim(&engine, "gone"));
    orphan(&engine, "gone");
    let stats = engine.stats();
    assert_eq!((stats.in_flight, stats.oldest_claim), (1, Some(Duration::from_secs(7))));
    assert_eq!(stats.orphans, 1);
    assert!(stats.recent_bytes > 0);
}

#[test]
fn orphans_are_counted_as_they_are_wherever_their_records_lie() {
    let sim = Sim::new();
    let engine = sim.open();
    let orphans = |engine: &Engine| {
        assert_eq!(engine.orphans().unwrap().len() as u64, engine.stats().orphans);
        engine.stats().orphans
    };
    let held: Vec<_> = ["a", "b", "c"].map(|name| claim(&engine, name)).into();
    engine.fold().unwrap();
    assert_eq!(orphans(&engine), 0, "claims that outlived a fold");
    engine.close().unwrap();
    drop(held);
    let sim = sim.on(sim.disk.crash(CrashMode::ProcessKill));
    let engine = sim.open();
    assert_eq!(orphans(&engine), 3, "in flight in the store file, orphaned in the journal");
    orphan(&engine, "a").release().wait().unwrap();
    assert_eq!(orphans(&engine), 2);
    engine.fold().unwrap();
    orphan(&engine, "b").release().wait().unwrap();
    assert_eq!(orphans(&engine), 1, "resolved since the fold");
    drop(claim(&engine, "d"));
    orphan(&engine, "d");
    assert_eq!(orphans(&engine), 2);
    let taken = orphan(&engine, "c").take_over().wait().unwrap();
    assert_eq!(orphans(&engine), 1, "taken over");
    drop(taken);
    orphan(&engine, "c");
    let sim = sim.on(sim.disk.crash(CrashMode::ProcessKill));
    let engine = sim.open();
    assert_eq!(orphans(&engine), 2);
    engine.fold().unwrap();
    assert_eq!(orphans(&engine), 2);
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
    // In any state that folds left.
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

/// 300 checkpoints of 64 KiB, of orphans and of claims that go on, take 19 MiB on disk. Only those that are asked for
/// are in memory.
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
    // Every later state of a claim contains the record of the claim.
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

#[test]
fn a_copy_has_the_checkpoints() {
    let sim = Sim::new();
    let engine = sim.open();
    claim(&engine, "k").checkpoint(b"first life").wait().unwrap();
    engine.fold().unwrap();
    engine.backup_to("/copy").unwrap();
    let copy = sim.options().open("/copy").unwrap();
    assert_eq!(checkpoint(orphan(&copy, "k").last_checkpoint()), b"first life");

    engine.close().unwrap();
    assert!(sim.options().verify("/store").unwrap().is_sound());
}

/// Rot of a checkpoint fails the caller that asks for it and no other.
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
