//! Every command refuses a damaged store with the exit code of damage, and says what to do.

use std::path::{Path, PathBuf};

use crate::support::{Offline, code, err, run, state};

/// A change to the files of a store that no process has open.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 15] = [
    ("no bytes in store.redb", |store| cut(store, "store.redb", 0)),
    ("half of store.redb", |store| cut(store, "store.redb", 2)),
    ("zeros in store.redb", |store| zero(store, "store.redb")),
    ("no store.redb", |store| remove(store, "store.redb")),
    ("another file in store.redb", |store| put(store, "store.redb", b"someone's notes\n")),
    ("a directory as store.redb", |store| mistake(store, "store.redb")),
    ("a directory as the journal", |store| mistake(store, "journal-0000.seg")),
    ("a directory as a run", |store| mistake(store, "run-")),
    ("a directory with the name of an interrupted merge", |store| {
        std::fs::create_dir(store.join("run-0000000000000000")).unwrap();
    }),
    ("no bytes in the journal", |store| cut(store, "journal-0000.seg", 0)),
    ("half of the journal", |store| cut(store, "journal-0000.seg", 2)),
    ("zeros in the journal", |store| zero(store, "journal-0000.seg")),
    ("no journal", |store| remove(store, "journal-0000.seg")),
    ("another file in the journal", |store| put(store, "journal-0000.seg", &[b'x'; 1 << 20])),
    ("another store's journal", |store| {
        let other = Offline::new();
        let segment = std::fs::read(other.path().join("journal-0000.seg")).unwrap();
        put(store, "journal-0000.seg", &segment);
    }),
];

/// The file of the store whose name begins with `prefix`.
fn named(store: &Path, prefix: &str) -> PathBuf {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    entries.into_iter().find(named).unwrap()
}

/// Changes one bit.
pub(crate) fn flip(store: &Path, prefix: &str, at: usize) {
    let path = named(store, prefix);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

fn cut(store: &Path, prefix: &str, part: u64) {
    let file = std::fs::File::options().write(true).open(named(store, prefix)).unwrap();
    file.set_len(file.metadata().unwrap().len().checked_div(part).unwrap_or(0)).unwrap();
}

fn zero(store: &Path, prefix: &str) {
    let path = named(store, prefix);
    let len = std::fs::metadata(&path).unwrap().len();
    std::fs::write(path, vec![0; len as usize]).unwrap();
}

fn put(store: &Path, prefix: &str, bytes: &[u8]) {
    std::fs::write(named(store, prefix), bytes).unwrap();
}

fn remove(store: &Path, prefix: &str) {
    std::fs::remove_file(named(store, prefix)).unwrap();
}

/// Puts a directory in the place of a file.
fn mistake(store: &Path, prefix: &str) {
    let path = named(store, prefix);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(path).unwrap();
}

/// The files of a store and their bytes, without `LOCK`: every open writes into it.
fn files(store: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = state(store).into_iter().filter(|(path, _)| !path.ends_with("LOCK"));
    files.map(|(path, (bytes, _))| (path, bytes)).collect()
}

#[test]
fn a_damaged_store_is_four_from_every_command_and_stays_as_it_is() {
    for (name, damage) in DAMAGES {
        let offline = Offline::new();
        damage(&offline.path());
        let (before, bytes) = (state(&offline.path()), files(&offline.path()));
        let store = offline.store();
        let to = offline.dir.path().join("copy").display().to_string();
        for command in [
            &["verify", "--store", &store][..],
            &["verify", &store],
            &["restore", &store, &to, "--yes"],
            &["stats", "--store", &store],
            &["get", "order-1", "--scope", "t", "--store", &store],
            &["backup", &to, "--store", &store],
            &[
                "resolve", "release", "lost", "--scope", "t", "--store", &store, "--yes",
                "--reason", "INC-1",
            ],
        ] {
            let output = run(command);
            let said = err(&output);
            assert_eq!(code(&output), 4, "{name}: {command:?}: {said}");
            assert!(said.contains("restore a backup"), "{name}: {command:?}: {said}");
            assert!(state(&offline.path()) == before, "{name}: {command:?} changed the store");
        }
        let output = run(&["proxy", "--store", &store, "--upstream", "http://127.0.0.1:1"]);
        assert_eq!(code(&output), 4, "{name}: {}", err(&output));
        assert!(err(&output).contains("restore a backup"), "{name}: {}", err(&output));
        assert!(files(&offline.path()) == bytes, "{name}: the proxy changed the store");
    }
}
