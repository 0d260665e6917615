//! A backup is whole or no store, disturbs no caller, and leaves no file behind when it fails.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod offline;
mod running;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::*;
use oncekey::disk::Disk;
use oncekey::{Begin, Engine, ErrorKind, Fingerprint, Key, Options};
use oncekey_testing::{CrashMode, Fault, OpKind, Ops, SimDisk};

fn names(disk: &SimDisk, folder: &str) -> Vec<String> {
    let names = disk.files().into_iter().map(|(path, _)| path.display().to_string());
    names.filter(|name| name.starts_with(folder)).collect()
}

/// A store with records of several folds, so that a backup has many files to copy.
fn filled() -> (Sim, Engine) {
    let sim = Sim::new();
    let engine = sim.open();
    for number in 0..40 {
        complete(&engine, &format!("k{number}"), &[number; 3000]);
        if number % 10 == 9 {
            engine.fold().unwrap();
        }
    }
    // The fold worker sweeps last: nothing but the backup writes from here on.
    engine.sweep().unwrap();
    (sim, engine)
}

fn holds_all(engine: &Engine) {
    for number in 0..40 {
        assert_eq!(replay(engine, &format!("k{number}")).response(), Some(&[number; 3000][..]));
    }
}

/// The power fails at each operation of a backup. It leaves nothing, a directory that no open takes for a store or
/// makes one in, or the whole backup. Another backup takes its place.
#[test]
fn a_backup_that_was_interrupted_anywhere_is_refused_or_whole() {
    let (mut missing, mut refused, mut whole) = (0, 0, 0);
    for nth in 0.. {
        let (sim, engine) = filled();
        sim.disk.inject(Fault::new(Ops::Changes, nth).power_off());
        let copied = engine.backup_to("/copies/first");
        if !sim.disk.is_powered_off() {
            copied.unwrap();
            sim.disk.clear_faults();
            // The engine's threads change files, too, so the power may not have failed before the
            // backup ended.
            holds_all(&sim.options().open_existing("/copies/first").unwrap());
            whole += 1;
            break;
        }
        copied.unwrap_err();
        drop(engine);
        for mode in
            [CrashMode::ProcessKill, CrashMode::LoseAllUnsynced, CrashMode::PowerLoss { seed: nth }]
        {
            let image = sim.on(sim.disk.crash(mode));
            match image.options().open_existing("/copies/first") {
                Ok(copy) => {
                    whole += 1;
                    holds_all(&copy);
                }
                Err(error) if error.kind() == ErrorKind::StoreMissing => {
                    missing += 1;
                    let listed = image.disk.list("/copies/first".as_ref());
                    assert_eq!(listed.unwrap_err().kind(), std::io::ErrorKind::NotFound, "{nth}");
                    another_takes_the_place(&image);
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.kind(), ErrorKind::StoreForeign, "{error}");
                    assert!(error.to_string().contains("not finished"), "{error}");
                    // No empty store is created there either.
                    let again = image.options().open("/copies/first").unwrap_err();
                    assert_eq!(again.kind(), ErrorKind::StoreForeign);
                    if nth % 16 == 0 {
                        another_takes_the_place(&image);
                    }
                }
            }
            holds_all(&image.open());
        }
    }
    println!("{missing} missing, {refused} refused, {whole} whole");
    assert!(missing > 5 && refused > 100 && whole > 0);
}

fn another_takes_the_place(image: &Sim) {
    image.open().backup_to("/copies/first").unwrap();
    holds_all(&image.options().open_existing("/copies/first").unwrap());
    let is_left = |name: &String| name.contains("unfinished") || name.contains("unmarked");
    assert!(!names(&image.disk, "/copies").iter().any(is_left));
}

/// The power fails at each operation of a backup into an empty directory, which stays an empty
/// directory until it is marked.
#[test]
fn a_backup_into_a_volume_that_was_interrupted_anywhere_is_refused_or_whole() {
    let is_refused = |error: &oncekey::Error| error.kind() == ErrorKind::StoreForeign;
    for nth in 0.. {
        let (sim, engine) = filled();
        sim.disk.create_dir("/volume".as_ref()).unwrap();
        sim.disk.sync_all();
        sim.disk.inject(Fault::new(Ops::Changes, nth).power_off());
        let _cut = engine.backup_to("/volume");
        if !sim.disk.is_powered_off() {
            break;
        }
        drop(engine);
        let image = sim.on(sim.disk.crash(CrashMode::PowerLoss { seed: nth }));
        let names = names(&image.disk, "/volume");
        match image.options().open_existing("/volume") {
            Ok(copy) => holds_all(&copy),
            Err(error) if names.iter().all(|name| name == "/volume/LOCK") => {
                assert_eq!(error.kind(), ErrorKind::StoreMissing);
            }
            Err(error) => assert!(is_refused(&error), "{nth}: {error}"),
        }
    }
}

#[test]
fn a_backup_takes_the_place_of_one_that_was_killed() {
    let (sim, engine) = filled();
    sim.disk.inject(Fault::new(Ops::Changes, 40).power_off());
    engine.backup_to("/copy").unwrap_err();
    let image = sim.on(sim.disk.crash(CrashMode::ProcessKill));
    assert!(names(&image.disk, "/copy").iter().any(|name| name.contains("unfinished")));
    let engine = image.open();
    engine.backup_to("/copy").unwrap();
    holds_all(&image.options().open_existing("/copy").unwrap());
}

#[test]
fn a_backup_that_fails_is_removed_and_may_be_tried_again() {
    let parts =
        ["/copy/store.redb", "/copy/records-", "/copy/run-", "/copy/journal", "/backup.unfinished"];
    let renaming = Fault::at_kind(OpKind::RenameDir, 0);
    let faults = parts.map(|part| Fault::new(Ops::Changes, 1).on_path(part));
    for fault in faults.into_iter().chain([renaming.clone(), renaming.applied()]) {
        let (sim, engine) = filled();
        sim.disk.inject(fault.clone().errno(Fault::EIO));
        engine.backup_to("/copy").unwrap_err();
        assert!(sim.disk.faults_fired() > 0, "{fault:?}");
        sim.disk.clear_faults();
        assert_eq!(names(&sim.disk, "/copy"), [] as [String; 0], "{fault:?}");
        for directory in ["/copy", "/copy.unmarked"] {
            sim.disk.open_dir(directory.as_ref()).unwrap_err();
        }
        holds_all(&engine);
        complete(&engine, "after", b"the engine goes on");
        engine.backup_to("/copy").unwrap();
        holds_all(&sim.options().open_existing("/copy").unwrap());
    }
}

#[test]
fn a_backup_that_does_not_fit_is_refused_before_it_takes_space() {
    let (sim, engine) = filled();
    let used = sim.disk.used_bytes();
    sim.disk.set_capacity(Some(used + 64 * 1024));
    let error = engine.backup_to("/copy").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreFull);
    assert!(error.to_string().contains("needs"), "{error}");
    assert_eq!(sim.disk.used_bytes(), used);
    assert_eq!(names(&sim.disk, "/copy"), [] as [String; 0]);
}

/// Space for what the check asks for is enough, whatever redb makes of the checkpoints.
#[test]
fn a_backup_that_the_check_of_space_lets_begin_fits() {
    for checkpoint in [0, 150, 700, 1400, 2100, 4096, 4500, 40_000, 65_536] {
        let sim = Sim::new();
        let options = sim.options().max_checkpoint(65_536).segment_bytes(256 << 10);
        let engine = options.recent_bytes(8 << 20).open("/store").unwrap();
        let mut claims = Vec::new();
        for number in 0..200 {
            let claim = claim(&engine, &format!("k{number}"));
            claim.checkpoint(&vec![7; checkpoint]).wait().unwrap();
            claims.push(claim);
        }
        engine.fold().unwrap();
        engine.sweep().unwrap();
        let used = sim.disk.used_bytes();
        sim.disk.set_capacity(Some(used));
        let error = engine.backup_to("/copy").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreFull);
        let message = error.to_string();
        let needs = message.split("needs ").nth(1).unwrap().split(' ').next().unwrap();
        let pages = needs.parse::<u64>().unwrap().next_multiple_of(4096);
        sim.disk.set_capacity(Some(used + pages));
        engine.backup_to("/copy").unwrap_or_else(|error| panic!("{checkpoint}: {error}"));
        let took = sim.disk.used_bytes() - used;
        println!("checkpoints of {checkpoint}: {needs} asked for, {took} taken");
    }
}

#[test]
fn a_backup_goes_into_an_empty_directory_and_into_no_other() {
    let (sim, engine) = filled();
    sim.disk.put_file("/volume/notes.txt", b"mine");
    let error = engine.backup_to("/volume").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("notes.txt"), "{error}");
    sim.disk.remove("/volume/notes.txt".as_ref()).unwrap();
    engine.backup_to("/volume").unwrap();
    let again = engine.backup_to("/volume").unwrap_err();
    assert_eq!(again.kind(), ErrorKind::InvalidInput);
    holds_all(&sim.options().open_existing("/volume").unwrap());
}

/// A directory whose name means something to a store keeps that store from opening.
#[test]
fn a_backup_in_the_directory_of_its_store_never_keeps_the_store_from_opening() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let open = || Options::new().segment_bytes(4 << 20).open(&store).unwrap();
    let engine = open();
    for name in [
        "backup.unfinished",
        "journal-0099.seg",
        "records-000001a22a2e3100",
        "run-0000000000000005",
    ] {
        let error = engine.backup_to(store.join(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(!store.join(name).exists());
    }
    engine.backup_to(store.join("backup")).unwrap();
    engine.close().unwrap();
    open().close().unwrap();
    // A backup that was killed at any operation does not keep the store from opening.
    for nth in 0.. {
        let (sim, engine) = filled();
        sim.disk.inject(Fault::new(Ops::Changes, nth).power_off());
        let _cut = engine.backup_to("/store/backup");
        if !sim.disk.is_powered_off() {
            break;
        }
        drop(engine);
        let image = sim.on(sim.disk.crash(CrashMode::ProcessKill));
        let opened = image.options().open("/store");
        holds_all(&opened.unwrap_or_else(|error| panic!("{nth}: {error}")));
    }
}

/// Files that every volume or desktop has are no reason to refuse, and are left alone.
#[test]
fn a_backup_goes_into_the_empty_directory_of_a_volume_again_and_again() {
    let (sim, engine) = filled();
    for other in ["lost+found", ".DS_Store"] {
        sim.disk.put_file(format!("/volume/{other}"), b"");
    }
    // The directory is not the backup's own, and stays when it fails: so may its lock.
    sim.disk.inject(Fault::new(Ops::Changes, 3).on_path("/volume/records-").errno(Fault::EIO));
    engine.backup_to("/volume").unwrap_err();
    sim.disk.clear_faults();
    engine.backup_to("/volume").unwrap();
    holds_all(&sim.options().open_existing("/volume").unwrap());
    assert!(names(&sim.disk, "/volume").contains(&"/volume/lost+found".to_owned()));
}

/// One of them succeeds, and its backup stays.
#[test]
fn of_two_backups_into_one_directory_one_wins() {
    for round in 0..40 {
        let (sim, engine) = filled();
        let back_up = || engine.backup_to(format!("/copy-{round}"));
        let ended = thread::scope(|scope| {
            let others = [(); 3].map(|()| scope.spawn(back_up));
            others.map(|other| other.join().unwrap())
        });
        let done = ended.iter().filter(|ended| ended.is_ok()).count();
        assert_eq!(done, 1, "round {round}: {ended:?}");
        holds_all(&sim.options().open_existing(format!("/copy-{round}")).unwrap());
    }
}
