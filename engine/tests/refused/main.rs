//! Refused opens: whatever the damage to a store, a refused open changes no file but `LOCK`. Once the damage is
//! undone, everything that was acknowledged is there.
//!
//! `ONCEKEY_SEEDS=0..10000 cargo test --release -p oncekey --test refused` runs the campaign.
#![allow(missing_docs, clippy::unwrap_used)]

mod changes;
#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::*;
use oncekey::{Error, ErrorKind};
use oncekey_testing::{CrashMode, Fault, OpKind, SimDisk};

/// Every file with its bytes, except for `LOCK`, whose bytes mean nothing.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(disk: &SimDisk) -> Files {
    let files = disk.files().into_iter().map(|(path, _)| path);
    let files = files.filter(|path| !path.ends_with("LOCK"));
    files.map(|path| (path.clone(), disk.read_file(&path))).collect()
}

/// Makes the store exactly these files.
fn put(disk: &SimDisk, wanted: &Files) {
    for path in files(disk).keys().filter(|path| !wanted.contains_key(*path)) {
        disk.remove(path).unwrap();
    }
    wanted.iter().for_each(|(path, bytes)| disk.put_file(path, bytes));
}

fn path(name: &str) -> PathBuf {
    Path::new("/store").join(name)
}

/// A store at several moments of its life. The last one is the present.
struct Life {
    sim: Sim,
    moments: Vec<Files>,
    /// The number of keys completed by then.
    completed: Vec<usize>,
}

impl Life {
    /// Each moment comes after a fold and some changes behind it.
    fn new(moments: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let sim = Sim::new();
        let engine = sim.open();
        let mut life = Self { sim, moments: Vec::new(), completed: Vec::new() };
        let mut count = 0;
        for _ in 0..moments {
            let folded = count + 20 + random.below(40) as usize;
            while count < folded {
                complete(&engine, &format!("key {count}"), &vec![1; random.below(4000) as usize]);
                count += 1;
            }
            engine.fold().unwrap();
            life.sim.clock.advance(Duration::from_millis(random.below(2500)));
            if random.below(3) == 0 {
                engine.sweep().unwrap();
            }
            for _ in 0..1 + random.below(8) {
                complete(&engine, &format!("key {count}"), b"journalled");
                count += 1;
            }
            life.moments.push(files(&life.sim.disk.crash(CrashMode::ProcessKill)));
            life.completed.push(count);
        }
        std::mem::forget(engine);
        life.sim = life.sim.on(life.sim.disk.crash(CrashMode::ProcessKill));
        life
    }

    fn present(&self) -> &Files {
        self.moments.last().unwrap()
    }

    /// The store at present with what `damage` did to it.
    fn damaged(&self, damage: impl FnOnce(&mut Files)) -> Damaged<'_> {
        let mut wanted = self.present().clone();
        damage(&mut wanted);
        let sim = self.sim.on(SimDisk::new());
        put(&sim.disk, &wanted);
        Damaged { life: self, sim }
    }
}

struct Damaged<'a> {
    life: &'a Life,
    sim: Sim,
}

impl Damaged<'_> {
    /// Opens the store. If the open is refused, nothing changed, and everything is there once the
    /// damage is undone. If it succeeds, everything is there now.
    fn open(&self) -> Option<Error> {
        let before = files(&self.sim.disk);
        match self.sim.options().open("/store") {
            Err(error) => {
                assert!(files(&self.sim.disk) == before, "a refused open changed files: {error}");
                put(&self.sim.disk, self.life.present());
                self.check(&self.sim.options().open_existing("/store").unwrap());
                Some(error)
            }
            Ok(engine) => {
                self.check(&engine);
                None
            }
        }
    }

    fn check(&self, engine: &oncekey::Engine) {
        for number in 0..*self.life.completed.last().unwrap() {
            replay(engine, &format!("key {number}"));
        }
    }

    #[track_caller]
    fn refused(&self, kinds: &[ErrorKind]) -> Error {
        let error = self.open().expect("refused");
        assert!(kinds.contains(&error.kind()), "{error:?}");
        error
    }
}

const CORRUPTED: &[ErrorKind] = &[ErrorKind::Corrupted];

#[test]
fn an_hours_old_store_file_is_refused_and_the_right_one_finds_everything() {
    let life = Life::new(12, 1);
    for earlier in 0..10 {
        let old = life.moments[earlier][&path("store.redb")].clone();
        life.damaged(|files| drop(files.insert(path("store.redb"), old))).refused(CORRUPTED);
    }
}

#[test]
fn a_store_file_of_one_fold_ago_is_refused_or_loses_nothing() {
    for seed in 0..8 {
        let life = Life::new(5, seed);
        let old = life.moments[3][&path("store.redb")].clone();
        life.damaged(|files| drop(files.insert(path("store.redb"), old))).open();
    }
}

#[test]
fn an_earlier_store_file_and_journal_beside_newer_records_are_refused_by_the_name_of_a_file() {
    let life = Life::new(6, 2);
    let earlier = &life.moments[2];
    let damaged = life.damaged(|files| {
        files.retain(|path, _| !path.to_string_lossy().contains("journal"));
        let core = |path: &Path| !path.to_string_lossy().contains("-0000000");
        let old = earlier.iter().filter(|(path, _)| core(path));
        files.extend(old.map(|(path, bytes)| (path.clone(), bytes.clone())));
        for (path, bytes) in earlier {
            files.entry(path.clone()).or_insert_with(|| bytes.clone());
        }
    });
    let error = damaged.refused(CORRUPTED);
    let text = error.to_string();
    assert!(text.contains("run-") || text.contains("records-"), "{text}");
}

#[test]
fn a_record_file_from_behind_the_end_of_the_journal_is_refused_by_its_name() {
    let life = Life::new(6, 3);
    let earlier = &life.moments[0];
    let newer = life
        .present()
        .keys()
        .find(|path| path.to_string_lossy().contains("records-") && !earlier.contains_key(*path));
    let newer = newer.expect("time went on").clone();
    let sim = life.sim.on(SimDisk::new());
    put(&sim.disk, earlier);
    sim.disk.put_file(&newer, &life.present()[&newer]);
    let before = files(&sim.disk);
    let error = sim.options().open("/store").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert!(error.to_string().contains(newer.file_name().unwrap().to_str().unwrap()), "{error}");
    assert!(files(&sim.disk) == before);
    assert!(!sim.options().verify("/store").unwrap().is_sound());
    sim.disk.remove(&newer).unwrap();
    replay(&sim.open(), "key 0");
}

#[test]
fn a_bit_of_redbs_header_that_flips_loses_nothing() {
    let life = Life::new(4, 4);
    for bit in 0..320 * 8 {
        // One bit of each byte, and all bits of the bytes that select the slot.
        if bit % 8 != bit / 8 % 8 && bit / 8 != 9 {
            continue;
        }
        let damaged = life.damaged(|files| {
            files.get_mut(&path("store.redb")).unwrap()[bit / 8] ^= 1 << (bit % 8);
        });
        if let Some(error) = damaged.open() {
            assert!(DAMAGE.contains(&error.kind()), "bit {bit}: {error:?}");
        }
    }
}

#[test]
fn a_store_file_that_is_truncated_or_of_another_store_is_refused() {
    let life = Life::new(3, 5);
    let len = life.present()[&path("store.redb")].len();
    for len in [0, 5, 320, 4096, len / 2, len - 4096, len - 1] {
        let damaged =
            life.damaged(|files| files.get_mut(&path("store.redb")).unwrap().truncate(len));
        damaged.refused(&[ErrorKind::StoreTruncated, ErrorKind::StoreEmpty, ErrorKind::Corrupted]);
    }
    let other = Life::new(3, 6);
    for moment in &other.moments {
        let foreign = moment[&path("store.redb")].clone();
        let damaged = life.damaged(|files| drop(files.insert(path("store.redb"), foreign)));
        damaged.refused(&[ErrorKind::Corrupted, ErrorKind::StoreForeign]);
    }
}

/// Otherwise creation would begin a new store in its place.
#[test]
fn a_missing_store_file_is_refused_whatever_else_is_left() {
    let life = Life::new(3, 7);
    for part in ["records-", "run-", "journal-"] {
        let damaged = life.damaged(|files| {
            files.retain(|path, _| path.to_string_lossy().contains(part));
        });
        damaged.refused(CORRUPTED);
    }
    // Segments whose first group rotted, and one that only stood ready.
    let damaged = life.damaged(|files| {
        files.retain(|path, _| path.to_string_lossy().contains("journal-0000"));
        files.get_mut(&path("journal-0000.seg")).unwrap()[4096..8192].fill(0);
    });
    damaged.refused(CORRUPTED);
    let damaged = life.damaged(|files| {
        files.retain(|path, _| path.to_string_lossy().contains("journal-0001"));
        files.get_mut(&path("journal-0001.seg")).unwrap()[4096..].fill(0);
    });
    damaged.refused(CORRUPTED);
}

#[test]
fn each_missing_file_is_refused_or_was_not_needed() {
    let life = Life::new(4, 8);
    let mut refused = 0;
    for missing in life.present().keys() {
        let damaged = life.damaged(|files| drop(files.remove(missing)));
        let error = damaged.open();
        let stored = ["records-", "run-"].iter().any(|n| missing.to_string_lossy().contains(n));
        assert!(error.is_some() || !stored, "{}", missing.display());
        refused += usize::from(error.is_some());
    }
    assert!(refused > 3);
}

#[test]
fn each_foreign_or_stale_segment_is_refused_or_was_not_needed() {
    let life = Life::new(6, 9);
    let other = Life::new(6, 10);
    let segments = life.present().keys().filter(|path| path.to_string_lossy().contains("journal-"));
    let mut refused = 0;
    for segment in segments {
        let versions = life.moments[..5].iter().filter_map(|moment| moment.get(segment));
        let foreign = other.present().get(segment).into_iter();
        for bytes in versions.chain(foreign) {
            if bytes == &life.present()[segment] {
                continue;
            }
            let bytes = bytes.clone();
            let damaged = life.damaged(|files| drop(files.insert(segment.clone(), bytes)));
            refused += usize::from(damaged.open().is_some());
        }
    }
    assert!(refused > 5, "{refused}");
}

/// The journal ends too early, as after a torn write, but the store file knows better.
#[test]
fn a_current_segment_of_a_minute_before_is_refused() {
    let sim = Sim::new();
    let options = sim.options().segment_bytes(1 << 20).recent_bytes(8 << 20);
    let engine = options.open("/store").unwrap();
    complete(&engine, "old", b"x");
    let stale = files(&sim.disk.crash(CrashMode::ProcessKill));
    for number in 0..48 {
        complete(&engine, &format!("new {number}"), b"x");
    }
    // Each sweep interval does this.
    engine.sweep().unwrap();
    std::mem::forget(engine);
    let sim = sim.on(sim.disk.crash(CrashMode::ProcessKill));
    let present = files(&sim.disk);
    let segment = path("journal-0000.seg");
    assert!(stale[&segment] != present[&segment]);
    sim.disk.put_file(&segment, &stale[&segment]);
    let before = files(&sim.disk);
    let error = sim.options().open("/store").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert!(!sim.options().verify("/store").unwrap().is_sound());
    assert!(files(&sim.disk) == before);
    put(&sim.disk, &present);
    let engine = sim.open();
    (0..48).for_each(|number| drop(replay(&engine, &format!("new {number}"))));
}

#[test]
fn a_segment_of_before_the_last_open_is_refused() {
    let sim = Sim::new();
    complete(&sim.open(), "k", b"x");
    let stale = files(&sim.disk.crash(CrashMode::ProcessKill));
    let engine = sim.open();
    std::mem::forget(engine);
    let sim = sim.on(sim.disk.crash(CrashMode::ProcessKill));
    let segment = path("journal-0000.seg");
    sim.disk.put_file(&segment, &stale[&segment]);
    assert_eq!(sim.options().open("/store").unwrap_err().kind(), ErrorKind::Corrupted);
}

#[test]
fn a_clock_that_jumped_leaves_every_file_as_it_was() {
    let life = Life::new(3, 11);
    life.sim.clock.jump_wall(40 * 86_400);
    let damaged = life.damaged(|_| {});
    let before = files(&damaged.sim.disk);
    let error = damaged.sim.options().open("/store").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClockJump);
    assert!(files(&damaged.sim.disk) == before);
    life.sim.clock.jump_wall(-40 * 86_400);
    assert!(damaged.open().is_none());
}

/// From the first write on, an open may fail at any operation, and the next one succeeds.
#[test]
fn an_open_that_fails_while_it_settles_is_recovered_by_the_next() {
    let life = Life::new(4, 12);
    let mut failed = 0;
    for kind in [OpKind::Write, OpKind::Sync, OpKind::SyncDir, OpKind::SetLen, OpKind::Remove] {
        for nth in 0.. {
            let damaged = life.damaged(|files| {
                // Left over from a preparation and a merge.
                files.insert(path("journal-0099.seg"), vec![0; 8192]);
                files.insert(path("run-0000000000000001"), vec![0; 100]);
            });
            damaged.sim.disk.inject(Fault::at_kind(kind, nth).errno(Fault::EIO));
            let opened = damaged.sim.options().sweep_interval(Duration::from_secs(3600));
            let opened = opened.open("/store");
            let fired = damaged.sim.disk.faults_fired() > 0;
            let refused = opened.is_err();
            drop(opened);
            damaged.sim.disk.clear_faults();
            assert!(damaged.open().is_none());
            if !refused {
                assert!(nth > 0 || !fired, "{kind:?}");
                break;
            }
            failed += 1;
        }
    }
    assert!(failed > 8, "{failed}");
}

const DAMAGE: [ErrorKind; 6] = [
    ErrorKind::Corrupted,
    ErrorKind::StoreTruncated,
    ErrorKind::StoreForeign,
    ErrorKind::StoreEmpty,
    ErrorKind::StoreMissing,
    ErrorKind::StoreNewerFormat,
];
