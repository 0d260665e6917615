//! Files that were made longer without a byte of data. Neither their length in memory nor their reading may end the
//! process or hold up an open.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs;

use common::{body, key};
use oncekey::{Begin, Engine, ErrorKind};

const TIB: u64 = 1 << 40;

fn pair(engine: &Engine, name: &str) {
    let Begin::Claimed(claim) = engine.begin(&key(name), body("a")).wait().unwrap() else {
        panic!("{name} is new")
    };
    claim.complete(b"response").wait().unwrap();
}

fn is_replayed(engine: &Engine, name: &str) -> bool {
    matches!(engine.begin(&key(name), body("a")).wait().unwrap(), Begin::Replay(_))
}

/// A commit would write the allocator's state for all of the file.
#[test]
fn a_stretched_store_file_is_refused_untouched_and_opens_once_it_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let file = store.join("store.redb");
    for clean in [true, false] {
        let engine = Engine::open(&store).unwrap();
        pair(&engine, if clean { "first" } else { "second" });
        engine.fold().unwrap();
        // The file that a process leaves when it is killed now.
        let killed = fs::read(&file).unwrap();
        engine.close().unwrap();
        if !clean {
            fs::write(&file, killed).unwrap();
        }
        let len = fs::metadata(&file).unwrap().len();
        let opened = fs::File::options().write(true).open(&file).unwrap();
        for longer in [2 * TIB, 4 * TIB, 16 << 30] {
            if opened.set_len(longer).is_err() {
                println!("left out: the filesystem has no files of {longer} bytes");
                continue;
            }
            let error = Engine::open(&store).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
            let message = error.to_string();
            assert!(message.contains(&format!("{longer} bytes")), "{message}");
            // The message names the length to cut the file to.
            assert!(message.contains(&format!("speaks of {len}:")), "{len}: {message}");
            let sound = oncekey::verify(&store).is_ok_and(|verified| verified.is_sound());
            assert!(!sound);
            assert_eq!(fs::metadata(&file).unwrap().len(), longer, "untouched");
        }
        opened.set_len(len).unwrap();
        let engine = Engine::open(&store).unwrap();
        assert!(is_replayed(&engine, "first"));
        assert!(clean || is_replayed(&engine, "second"));
    }
}

/// A crash may leave a file that redb had grown; it is opened as before, and nothing is lost.
#[test]
fn a_store_file_that_a_crash_left_a_little_longer_opens() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let file = store.join("store.redb");
    let engine = Engine::open(&store).unwrap();
    pair(&engine, "k");
    engine.close().unwrap();
    let len = fs::metadata(&file).unwrap().len();
    fs::File::options().write(true).open(&file).unwrap().set_len(2 * len).unwrap();
    let engine = Engine::open(&store).unwrap();
    assert!(is_replayed(&engine, "k"));
    pair(&engine, "another");
    engine.fold().unwrap();
    assert!(is_replayed(&engine, "another"));
}

/// Makes the file `name` longer, or creates it. `false` where the filesystem has no files of that length.
fn stretch(store: &std::path::Path, name: &str) -> bool {
    let file = fs::File::options().write(true).create(true).truncate(false).open(store.join(name));
    file.unwrap().set_len(2 * TIB).is_ok()
}

#[test]
fn a_store_with_other_stretched_files_opens_or_is_refused_by_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let options = || oncekey::Options::new().segment_bytes(4 << 20);
    let engine = options().open(&store).unwrap();
    pair(&engine, "folded");
    engine.fold().unwrap();
    pair(&engine, "recent");
    drop(engine);
    let entries = fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().file_name());
    let present = entries.map(|name| name.into_string().unwrap());
    let present: Vec<_> = present.filter(|name| name != "store.redb").collect();
    let leftover = ["journal-0099.seg", "records-00000fffffffffff", "run-0000000000000000"];
    for name in present.into_iter().chain(leftover.map(str::to_owned)) {
        let before = fs::metadata(store.join(&name)).map(|file| file.len());
        if !stretch(&store, &name) {
            println!("left out: the filesystem has no files of that length");
            continue;
        }
        let verified = options().verify(&store).unwrap();
        if name == "journal-0099.seg" {
            let error = options().open(&store).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
            assert!(error.to_string().contains(&name), "{error}");
            assert!(!verified.is_sound());
            fs::remove_file(store.join(&name)).unwrap();
            continue;
        }
        assert!(verified.is_sound(), "{name}: {verified:?}");
        let engine = options().open(&store).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(is_replayed(&engine, "folded") && is_replayed(&engine, "recent"), "{name}");
        drop(engine);
        match before {
            Ok(len) => {
                let file = fs::File::options().write(true).open(store.join(&name)).unwrap();
                file.set_len(len).unwrap();
            }
            Err(_) => assert!(!store.join(&name).exists(), "{name} is left over"),
        }
    }
}

#[test]
fn the_note_of_an_owner_is_no_longer_than_a_note_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let note = vec![b'n'; 4096];
    let engine = oncekey::Options::new().owner_note(note.clone()).open(directory.path()).unwrap();
    assert_eq!(oncekey::owner(directory.path()), Some(note));
    if stretch(directory.path(), "LOCK") {
        assert_eq!(oncekey::owner(directory.path()), None);
    }
    engine.close().unwrap();
}
