//! The store directory: which opens are refused and leave it untouched; its clock, folds, failures
//! and copies.
#![allow(missing_docs, clippy::unwrap_used)]

mod clock;
#[path = "../common/mod.rs"]
mod common;
mod copies;
mod ends;
mod failures;
mod folds;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use oncekey::{Engine, ErrorKind, Lookup, Options};
use oncekey_testing::{CrashMode, Fault, OpKind, Ops, SimDisk};

/// Every file with its bytes, except for `LOCK`, whose bytes mean nothing.
fn contents(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files()
        .into_iter()
        .filter(|(path, _)| !path.ends_with("LOCK"))
        .map(|(path, _)| (path.clone(), disk.read_file(&path)))
        .collect()
}

/// A store with folded and journalled records, stopped as by `kill -9`.
fn stopped() -> Sim {
    let sim = Sim::new();
    let engine = sim.open();
    fold_one_of_two(&engine);
    let image = sim.disk.crash(CrashMode::ProcessKill);
    sim.on(image)
}

fn refused(sim: &Sim) -> oncekey::Error {
    let before = contents(&sim.disk);
    let error = sim.options().open("/store").unwrap_err();
    assert!(contents(&sim.disk) == before, "left untouched: {error}");
    error
}

const STORE: &str = "/store/store.redb";
const JOURNAL: &str = "/store/journal-0000.seg";

#[test]
fn a_store_that_is_no_store_is_refused_by_its_own_kind_and_left_untouched() {
    type Damage = fn(&SimDisk);
    let cases: [(ErrorKind, Damage); 8] = [
        (ErrorKind::StoreEmpty, |disk| disk.truncate(STORE, 0)),
        (ErrorKind::StoreTruncated, |disk| disk.truncate(STORE, 8192)),
        (ErrorKind::StoreTruncated, |disk| disk.truncate(JOURNAL, 8192)),
        (ErrorKind::StoreForeign, |disk| disk.put_file(STORE, b"someone's notes")),
        (ErrorKind::StoreForeign, |disk| {
            let other = Sim::new();
            other.open().close().unwrap();
            disk.put_file(JOURNAL, &other.disk.read_file(JOURNAL));
        }),
        (ErrorKind::Corrupted, |disk| disk.zero_block(JOURNAL, 0)),
        // Blocks 1 to 3, an epoch, a begin and a completion, are folded. Block 4 is the begin that
        // is only journalled.
        (ErrorKind::Corrupted, |disk| disk.zero_block(JOURNAL, 4)),
        (ErrorKind::StoreUnreadable, |disk| disk.set_read_only(true)),
    ];
    for (index, (kind, damage)) in cases.into_iter().enumerate() {
        let sim = stopped();
        damage(&sim.disk);
        let error = refused(&sim);
        assert_eq!(error.kind(), kind, "case {index}: {error:?}");
    }
}

#[test]
fn a_directory_with_other_files_is_foreign() {
    let sim = Sim::new();
    sim.disk.put_file("/store/notes.txt", b"mine");
    let error = refused(&sim);
    assert_eq!(error.kind(), ErrorKind::StoreForeign);
    assert!(error.to_string().contains("notes.txt"), "{error}");
}

#[test]
fn open_existing_refuses_to_create() {
    let sim = Sim::new();
    let error = sim.options().open_existing("/store").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreMissing);
    assert!(sim.disk.files().is_empty());
    sim.open().close().unwrap();
    sim.options().open_existing("/store").unwrap();
}

#[test]
fn a_journal_without_its_store_file_is_not_created_over() {
    let sim = stopped();
    let bytes = sim.disk.read_file(STORE);
    sim.disk.remove(STORE.as_ref()).unwrap();
    assert_eq!(refused(&sim).kind(), ErrorKind::Corrupted);
    let without = [
        sim.options().open_existing("/store").unwrap_err(),
        sim.options().read("/store").unwrap_err(),
        sim.options().verify("/store").unwrap_err(),
    ];
    for error in without {
        assert_eq!(error.kind(), ErrorKind::Corrupted);
        assert!(error.to_string().contains("store.redb is missing"), "{error}");
    }
    sim.disk.put_file(STORE, &bytes);
    replay(&sim.open(), "journalled");
}

#[test]
fn one_engine_at_a_time_and_the_error_names_the_path() {
    let sim = Sim::new();
    let engine = sim.open();
    let error = sim.options().open("/store").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreInUse);
    assert!(error.to_string().contains("/store/LOCK"), "{error}");
    drop(engine);
    sim.open();
}

#[test]
fn two_processes_can_not_share_a_store() {
    let dir = std::env::temp_dir().join(format!("oncekey-two-{}", std::process::id()));
    if std::env::var_os("ONCEKEY_TEST_CHILD").is_some() {
        let error = Options::new().open(std::env::var_os("ONCEKEY_TEST_CHILD").unwrap());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::StoreInUse);
        return;
    }
    let engine = Engine::open(&dir).unwrap();
    let mut child = this_test("two_processes_can_not_share_a_store");
    let child = child.env("ONCEKEY_TEST_CHILD", &dir).output().unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && told.contains("1 passed"), "{told}");
    drop(engine);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn network_filesystems_are_refused_unless_overridden() {
    let sim = Sim::new();
    sim.disk.set_network_filesystem(true);
    let error = sim.options().open("/store").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkFilesystem);
    assert!(sim.disk.files().is_empty());
    sim.options().allow_network_filesystem(true).open("/store").unwrap();
}

#[test]
fn options_outside_their_limits_are_refused_before_anything_happens() {
    let disk = Arc::new(SimDisk::new());
    let cases: Vec<fn(Options) -> Options> = vec![
        |options| options.ttl(Duration::ZERO),
        |options| options.max_execution(Some(Duration::ZERO)),
        |options| options.max_response((16 << 20) + 1),
        |options| options.max_in_flight(0),
        |options| options.max_queue(0),
        |options| options.recent_bytes(1),
        |options| options.sweep_interval(Duration::ZERO),
        |options| options.segment_bytes(1_000_000),
        |options| options.segment_bytes(1 << 20),
        |options| options.segment_bytes(8 << 30),
    ];
    for change in cases {
        let error = change(Options::new().disk(disk.clone())).open("/store").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(disk.files().is_empty());
    }
}

#[test]
fn a_reopen_refuses_another_store_that_was_put_into_the_directory() {
    let (sim, other) = (Sim::new(), Sim::new());
    let engine = sim.open();
    complete(&engine, "ours", b"one");
    complete(&other.open(), "theirs", b"two");
    let other = other.disk.crash(CrashMode::ProcessKill);
    for (path, bytes) in contents(&other) {
        sim.disk.put_file(path, &bytes);
    }
    assert_eq!(engine.reopen().unwrap_err().kind(), ErrorKind::StoreForeign);
}
