//! A store file that was made longer without a byte of data. A commit would write the allocator's state for all of
//! it.
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
