//! The note of an owner counts while the owner holds the store. An open may wait until the owner
//! lets go.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::this_test;
use oncekey::{Clock, Engine, ErrorKind, Options, OsClock, owner};

#[test]
fn a_note_is_there_from_open_to_close() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    assert_eq!(owner(&store), None);
    let engine = Options::new().owner_note("pid 7\n").open(&store).unwrap();
    assert_eq!(owner(&store).as_deref(), Some(&b"pid 7\n"[..]));
    engine.reopen().unwrap();
    assert_eq!(owner(&store).as_deref(), Some(&b"pid 7\n"[..]));
    engine.close().unwrap();
    assert_eq!(std::fs::read(store.join("LOCK")).unwrap(), b"");
    // A shorter one after a longer one, and the last handle dropped instead of closed.
    for note in ["a long note", "short"] {
        let engine = Options::new().owner_note(note).open(&store).unwrap();
        assert_eq!(owner(&store).as_deref(), Some(note.as_bytes()));
        drop(engine);
        assert_eq!(owner(&store), None);
    }
    let engine = Engine::open(&store).unwrap();
    assert_eq!(owner(&store), None);
    drop(engine);
    let long = Options::new().owner_note(vec![b'n'; 4097]).open(&store).unwrap_err();
    assert_eq!(long.kind(), ErrorKind::InvalidInput);
}

#[test]
fn an_open_engine_may_replace_its_note_until_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = Options::new().owner_note("the first, a long one").open(&store).unwrap();
    assert_eq!(engine.directory(), Some(store.as_path()));
    for note in ["the second", "another one, which is longer"] {
        engine.set_owner_note(note).unwrap();
        assert_eq!(owner(&store).as_deref(), Some(note.as_bytes()));
    }
    engine.reopen().unwrap();
    assert_eq!(owner(&store).as_deref(), Some(&b"another one, which is longer"[..]));
    let long = engine.set_owner_note(vec![b'n'; 4097]).unwrap_err();
    assert_eq!(long.kind(), ErrorKind::InvalidInput);
    engine.set_owner_note("").unwrap();
    assert_eq!(owner(&store), None);

    engine.set_owner_note("until it is closed").unwrap();
    let clone = engine.clone();
    engine.close().unwrap();
    assert_eq!(std::fs::read(store.join("LOCK")).unwrap(), b"");
    // The directory may belong to another engine by now.
    let next = Options::new().owner_note("next").open(&store).unwrap();
    assert_eq!(clone.set_owner_note("late").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(owner(&store).as_deref(), Some(&b"next"[..]));
    drop(next);
}

#[test]
fn a_note_is_written_into_the_file_that_is_locked_and_into_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = Options::new().owner_note("first").open(&store).unwrap();
    let lock = store.join("LOCK");
    for other in ["store.redb", "another file"] {
        std::fs::remove_file(&lock).unwrap();
        match other {
            "store.redb" => std::os::unix::fs::symlink(other, &lock).unwrap(),
            _ => std::fs::write(&lock, other).unwrap(),
        }
        let before = std::fs::read(&lock).unwrap();
        for note in ["second", ""] {
            assert_eq!(engine.set_owner_note(note).unwrap_err().kind(), ErrorKind::Io, "{other}");
        }
        assert!(std::fs::read(&lock).unwrap() == before, "{other} was written");
    }
    engine.close().unwrap();
    assert_eq!(std::fs::read(&lock).unwrap(), b"another file");
    drop(Engine::open(&store).unwrap());
}

/// Holds a store with a note until it is killed.
#[test]
#[ignore = "run by the tests of this file"]
fn child() {
    let dir = std::env::var("ONCEKEY_OWNED").unwrap();
    let engine = Options::new().owner_note("child").open(dir).unwrap();
    println!("open");
    std::thread::sleep(Duration::from_secs(60));
    drop(engine);
}

#[test]
fn the_note_of_a_killed_owner_is_none_and_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let mut child =
        this_test("child").env("ONCEKEY_OWNED", &store).stdout(Stdio::piped()).spawn().unwrap();
    let (mut said, mut byte) = (Vec::new(), [0]);
    let mut from = child.stdout.take().unwrap();
    while !said.ends_with(b"open\n") {
        from.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    assert_eq!(owner(&store).as_deref(), Some(&b"child"[..]));
    assert_eq!(Engine::open(&store).unwrap_err().kind(), ErrorKind::StoreInUse);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(std::fs::read(store.join("LOCK")).unwrap(), b"child");
    assert_eq!(owner(&store), None);
    // The next owner has no note. The note that is left is not taken for its own.
    let engine = Engine::open(&store).unwrap();
    assert_eq!(owner(&store), None);
    drop(engine);
}

/// Asks for the owner while the engine recovers, which reads the clock.
#[derive(Debug)]
struct Asking(std::path::PathBuf, std::sync::Mutex<Vec<Option<Vec<u8>>>>);

impl Clock for Asking {
    fn wall(&self) -> SystemTime {
        self.1.lock().unwrap().push(owner(&self.0));
        OsClock.wall()
    }

    fn boottime(&self) -> Duration {
        OsClock.boottime()
    }
}

#[test]
fn the_note_of_a_killed_owner_is_not_that_of_an_engine_that_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    drop(Engine::open(&store).unwrap());
    std::fs::write(store.join("LOCK"), "killed").unwrap();
    let clock = Arc::new(Asking(store.clone(), Default::default()));
    let engine = Options::new().owner_note("new").clock(clock.clone()).open(&store).unwrap();
    let seen = clock.1.lock().unwrap().clone();
    assert!(!seen.is_empty() && seen.iter().all(Option::is_none), "{seen:?}");
    assert_eq!(owner(&store).as_deref(), Some(&b"new"[..]));
    drop(engine);
}

#[test]
fn an_open_waits_for_the_lock_as_long_as_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = Engine::open(&store).unwrap();
    let waiting = |wait| Options::new().lock_wait(Duration::from_millis(wait));
    for error in [waiting(30).open(&store).unwrap_err(), waiting(30).read(&store).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::StoreInUse);
    }
    let (open, path) = (waiting(60_000), store.clone());
    let next = std::thread::spawn(move || open.open(path).map(drop));
    let (read, path) = (waiting(60_000), store.clone());
    let last = std::thread::spawn(move || read.read(path).map(drop));
    std::thread::sleep(Duration::from_millis(50));
    assert!(!next.is_finished() && !last.is_finished());
    engine.close().unwrap();
    next.join().unwrap().unwrap();
    last.join().unwrap().unwrap();
    assert!(store.join("LOCK").exists());
}
