//! A new store is small, and its journal grows as groups are written.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::*;
use oncekey::{Engine, Options};
use oncekey_testing::{CrashMode, Fault, OpKind};

const MIB: u64 = 1 << 20;

/// The bytes that a directory takes.
fn taken(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
    files.map(|file| file.len().max(file.blocks() * 512)).sum()
}

#[test]
fn a_new_store_takes_less_than_8_mb_with_all_its_segments() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let engine = Engine::open(&store).unwrap();
    complete(&engine, "first", b"response");
    engine.fold().unwrap();
    // The fold worker prepares segments ahead before it sweeps, so they are ready now.
    engine.sweep().unwrap();
    let bytes = taken(&store);
    println!("{bytes} bytes");
    let names = fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().file_name());
    let segments = names.filter(|name| name.to_string_lossy().ends_with(".seg")).count();
    assert_eq!(segments, 3);
    assert!(bytes < 8_000_000, "{bytes}");
}

fn growing(sim: &Sim) -> Options {
    sim.options().max_response(100 << 10).segment_bytes(8 * MIB).recent_bytes(256 << 10)
}

/// The lengths of the segments, while none is being prepared: the fold worker prepares segments
/// ahead before it sweeps.
fn sizes(engine: &Engine, sim: &Sim) -> BTreeSet<u64> {
    engine.sweep().unwrap();
    let files = sim.disk.files().into_iter();
    let segments = files.filter(|(path, _)| path.to_string_lossy().ends_with(".seg"));
    segments.map(|(_, len)| len).collect()
}

fn write(engine: &Engine, numbers: std::ops::Range<usize>) {
    for number in numbers {
        complete(engine, &format!("k{number}"), &vec![number as u8; 100 << 10]);
    }
}

fn holds(engine: &Engine, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let replayed = replay(engine, &format!("k{number}"));
        assert_eq!(replayed.response(), Some(&vec![number as u8; 100 << 10][..]), "{number}");
    }
}

/// Crash images are taken while segments of several sizes hold the journal.
#[test]
fn segments_grow_as_they_are_filled_and_are_recovered_whatever_their_sizes() {
    let sim = Sim::new();
    let engine = growing(&sim).open("/store").unwrap();
    assert_eq!(sizes(&engine, &sim), BTreeSet::from([MIB]));
    let (mut seen, mut images) = (BTreeSet::new(), 0);
    for number in 0..120 {
        write(&engine, number..number + 1);
        // Between these rounds, groups are written while a segment grows.
        if number % 4 == 0 {
            seen.extend(sizes(&engine, &sim));
        }
        if number % 30 != 7 {
            continue;
        }
        for mode in [
            CrashMode::ProcessKill,
            CrashMode::LoseAllUnsynced,
            CrashMode::PowerLoss { seed: number as u64 },
        ] {
            let image = sim.on(sim.disk.crash(mode));
            let recovered = growing(&image).open("/store").unwrap();
            holds(&recovered, 0..number + 1);
            write(&recovered, number + 1..number + 30);
            drop(recovered);
            holds(&growing(&image).open("/store").unwrap(), 0..number + 30);
            images += 1;
        }
    }
    assert_eq!((seen.first(), seen.last()), (Some(&MIB), Some(&(8 * MIB))));
    assert!(seen.contains(&(4 * MIB)) && images == 12, "{seen:?}");
    // After the next open the journal goes on with the size that it had reached.
    engine.close().unwrap();
    let engine = growing(&sim).open("/store").unwrap();
    write(&engine, 120..140);
    holds(&engine, 0..140);
    assert_eq!(sizes(&engine, &sim).last(), Some(&(8 * MIB)));
}

/// The power fails while a segment grows.
#[test]
fn a_segment_that_was_growing_when_the_power_failed_is_sound() {
    for nth in 0..10 {
        let sim = Sim::new();
        let engine = growing(&sim).open("/store").unwrap();
        sim.disk.inject(Fault::at_kind(OpKind::Write, 20 + 30 * nth).on_path(".seg").power_off());
        let mut acknowledged = 0;
        while !sim.disk.is_powered_off() {
            let Ok(oncekey::Begin::Claimed(claim)) =
                engine.begin(&key(format!("k{acknowledged}")), body("a")).wait()
            else {
                break;
            };
            let response = vec![acknowledged as u8; 100 << 10];
            if claim.complete(&response).wait().is_err() {
                break;
            }
            acknowledged += 1;
        }
        drop(engine);
        let image = sim.on(sim.disk.crash(CrashMode::PowerLoss { seed: nth }));
        holds(&growing(&image).open("/store").unwrap(), 0..acknowledged);
    }
}

/// Small segments were prepared for small responses, and the next open allows longer ones.
#[test]
fn longer_responses_find_segments_that_hold_them() {
    let sim = Sim::new();
    let small = || sim.options().segment_bytes(32 * MIB);
    let engine = small().open("/store").unwrap();
    complete(&engine, "small", b"response");
    assert_eq!(sizes(&engine, &sim), BTreeSet::from([MIB]));
    engine.close().unwrap();
    let longer = || small().max_response(4 << 20).recent_bytes(32 << 20);
    let response = vec![7; 4 << 20];
    for number in 0..5 {
        let engine = longer().open("/store").unwrap();
        for part in 0..3 {
            complete(&engine, &format!("k{number}-{part}"), &response);
        }
        drop(engine);
    }
    let engine = longer().open("/store").unwrap();
    for number in 0..5 {
        assert_eq!(replay(&engine, &format!("k{number}-2")).response(), Some(&response[..]));
    }
    assert_eq!(replay(&engine, "small").response(), Some(&b"response"[..]));
}
