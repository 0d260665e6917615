//! A reader changes nothing, keeps engines out, and shows what the next open finds.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::{body, checkpoint, claim, complete, key};
use oncekey::{Begin, Engine, ErrorKind, Lookup, Options};

/// The bytes, the times of change and the mode of a file.
type FileState = (Vec<u8>, [i64; 4], u32);

/// The state of every file, and of the directory.
fn state(dir: &Path) -> BTreeMap<String, FileState> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let stat = |path: &Path| {
        let meta = std::fs::metadata(path).unwrap();
        let bytes = if path.is_dir() { Vec::new() } else { std::fs::read(path).unwrap() };
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        (bytes, times, meta.mode())
    };
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let files = entries.map(|path| (name(&path), stat(&path)));
    files.chain([(".".to_owned(), stat(dir))]).collect()
}

fn options() -> Options {
    Options::new().segment_bytes(4 << 20).recent_bytes(1 << 20)
}

/// A store with records of each kind, folded and not, as a killed process leaves it.
fn killed(dir: &Path) {
    let store = dir.join("live");
    let engine = options().owner_note("pid 1").open(&store).unwrap();
    complete(&engine, "folded", b"first");
    drop(claim(&engine, "orphan, folded"));
    let held = claim(&engine, "held, folded");
    held.checkpoint(b"half").wait().unwrap();
    engine.fold().unwrap();
    complete(&engine, "recent", b"second");
    drop(claim(&engine, "orphan"));
    let other = claim(&engine, "held");
    other.checkpoint(b"most").wait().unwrap();
    // The files of a running process are the same as those that a kill leaves.
    std::fs::create_dir(dir.join("store")).unwrap();
    for entry in std::fs::read_dir(&store).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.join("store").join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn a_reader_shows_everything_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    let store = dir.path().join("store");
    let before = state(&store);
    let reader = options().read(&store).unwrap();
    let response = |name: &str| match reader.get(&key(name)).unwrap() {
        Lookup::Completed(recorded) => recorded.response().unwrap().to_vec(),
        other => panic!("{other:?}"),
    };
    assert_eq!((response("folded"), response("recent")), (b"first".to_vec(), b"second".to_vec()));
    assert!(matches!(reader.get(&key("other")).unwrap(), Lookup::Absent));
    for name in ["held", "held, folded"] {
        assert!(matches!(reader.get(&key(name)).unwrap(), Lookup::InFlight(_)), "{name}");
    }
    let mut orphans = BTreeMap::new();
    for orphan in reader.orphans().unwrap() {
        let name = String::from_utf8(orphan.key().key().to_vec()).unwrap();
        orphans.insert(name, orphan);
    }
    let names: Vec<_> = orphans.keys().map(String::as_str).collect();
    assert_eq!(names, ["held", "held, folded", "orphan", "orphan, folded"]);
    assert_eq!(checkpoint(orphans["held"].last_checkpoint()), b"most");
    assert_eq!(checkpoint(orphans["held, folded"].last_checkpoint()), b"half");
    let refused = orphans["orphan"].clone().release().wait().unwrap_err();
    assert_eq!(refused.error().kind(), ErrorKind::Unsupported);
    let stats = reader.stats();
    assert_eq!((stats.in_flight, stats.orphans, stats.folded_records), (2, 2, 1));
    let files = before.iter().filter(|(name, _)| *name != "LOCK");
    assert_eq!(stats.store_bytes, files.map(|(_, (bytes, ..))| bytes.len() as u64).sum::<u64>());
    assert!(reader.last_time() > std::time::SystemTime::UNIX_EPOCH);
    assert_eq!(reader.scan(None, 100).unwrap().0.len(), 6);
    assert_eq!(reader.buckets().unwrap().iter().map(|bucket| bucket.records).sum::<u64>(), 1);
    let verified = reader.verify().unwrap();
    assert!(verified.is_sound() && verified.records() == 3, "{verified:?}");
    drop(reader);
    let gone = orphans["orphan"].last_checkpoint().unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Closed);
    let verified = options().verify(&store).unwrap();
    assert!(verified.is_sound());
    assert_eq!(oncekey::owner(&store), None, "the note of a killed owner is none");
    assert_eq!(state(&store), before);
    // The tokens that the reader showed are those that resolve the orphans.
    let engine = options().open(&store).unwrap();
    for orphan in engine.orphans().unwrap() {
        let name = String::from_utf8(orphan.key().key().to_vec()).unwrap();
        assert_eq!(orphan.token(), orphans[&name].token(), "{name}");
        assert_eq!(orphan.since(), orphans[&name].since(), "{name}");
    }
    let begin = engine.begin(&key("recent"), body("a")).wait().unwrap();
    assert!(matches!(begin, Begin::Replay(_)));
}

/// A copy of a store may lack `LOCK`, whose bytes mean nothing.
#[test]
fn a_store_without_its_lock_file_is_read_and_gets_none() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    let store = dir.path().join("store");
    std::fs::remove_file(store.join("LOCK")).unwrap();
    let before = state(&store);
    let reader = options().read(&store).unwrap();
    assert_eq!(options().open(&store).unwrap_err().kind(), ErrorKind::StoreInUse);
    std::fs::remove_file(store.join("LOCK")).unwrap();
    assert_eq!(reader.orphans().unwrap().len(), 4);
    drop(reader);
    assert_eq!(state(&store).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(options().open(&store).is_ok());
}

#[test]
fn a_reader_and_an_engine_keep_each_other_out() {
    let dir = tempfile::tempdir().unwrap();
    let open = || options().open(dir.path().join("store"));
    let read = || options().read(dir.path().join("store"));
    assert_eq!(read().unwrap_err().kind(), ErrorKind::StoreMissing);
    assert!(!dir.path().join("store").exists());
    let engine = open().unwrap();
    assert_eq!(read().unwrap_err().kind(), ErrorKind::StoreInUse);
    engine.close().unwrap();
    let reader = read().unwrap();
    assert_eq!(open().unwrap_err().kind(), ErrorKind::StoreInUse);
    assert_eq!(read().unwrap_err().kind(), ErrorKind::StoreInUse);
    drop(reader);
    open().unwrap();
}

#[test]
fn one_flipped_byte_hides_no_other_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = Engine::open(&store).unwrap();
    for number in 0..10 {
        complete(&engine, &format!("k{number}"), &[b'r'; 500]);
    }
    engine.close().unwrap();
    let names = std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path());
    let records = names
        .into_iter()
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("records-"))
        .unwrap();
    let mut bytes = std::fs::read(&records).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&records, bytes).unwrap();
    let reader = Options::new().read(&store).unwrap();
    let verified = reader.verify().unwrap();
    assert_eq!(verified.damage().len(), 1);
    let damaged = verified.damage()[0].key().unwrap().clone();
    for number in 0..10 {
        let key = key(format!("k{number}"));
        match reader.get(&key) {
            Ok(Lookup::Completed(_)) => assert_ne!(key, damaged),
            Err(error) if error.kind() == ErrorKind::Corrupted => assert_eq!(key, damaged),
            other => panic!("{other:?}"),
        }
    }
}
