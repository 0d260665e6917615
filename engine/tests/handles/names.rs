//! Names: a directory that is moved, files that are removed, files of others.

use super::*;

#[test]
fn a_store_opened_by_a_relative_path_survives_a_change_of_directory() {
    let directory = scratch();
    in_child("names::child_changes_its_directory", directory.path());
}

#[test]
#[ignore = "run by a_store_opened_by_a_relative_path…"]
fn child_changes_its_directory() {
    let elsewhere = scratch();
    std::env::set_current_dir(given()).unwrap();
    let engine = options().open("store").unwrap();
    std::env::set_current_dir(elsewhere.path()).unwrap();
    for number in 0..3_000 {
        pair(&engine, &format!("k{number}")).unwrap();
    }
    engine.fold().unwrap();
    engine.reopen().unwrap();
    pair(&engine, "after").unwrap();
    assert!(is_replayed(&engine, "k0"));
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_moved_directory_goes_on_being_the_store_and_the_one_in_its_place_is_not_written() {
    let directory = scratch();
    let (path, moved) = (directory.path().join("store"), directory.path().join("store.old"));
    let engine = options().open(&path).unwrap();
    pair(&engine, "before").unwrap();
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    let acknowledged =
        (0..3_000).take_while(|number| pair(&engine, &format!("k{number}")).is_ok()).count();
    assert_eq!(acknowledged, 3_000);
    engine.fold().unwrap();
    engine.reopen().unwrap();
    pair(&engine, "after").unwrap();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    drop(engine);
    let engine = options().open_existing(&moved).unwrap();
    for key in ["before", "after", "k0", "k2999"] {
        assert!(is_replayed(&engine, key), "{key}");
    }
}

/// Each loss, and each durability: the engine fails before it acknowledges another change.
#[test]
fn an_engine_whose_files_are_gone_fails_before_it_acknowledges() {
    type Loss = fn(&Path);
    let losses: [(&str, Loss); 6] = [
        ("the directory", |path| fs::remove_dir_all(path).unwrap()),
        ("the store file", |path| fs::remove_file(path.join("store.redb")).unwrap()),
        ("a segment", |path| fs::remove_file(path.join("journal-0000.seg")).unwrap()),
        ("a segment, moved", |path| {
            fs::rename(path.join("journal-0000.seg"), path.join("segment.old")).unwrap();
        }),
        ("a segment, replaced", |path| {
            fs::copy(path.join("journal-0000.seg"), path.join("copy")).unwrap();
            fs::rename(path.join("copy"), path.join("journal-0000.seg")).unwrap();
        }),
        ("a record file", |path| {
            let mut names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
            let is_records = |path: &PathBuf| path.to_string_lossy().contains("records-");
            fs::remove_file(names.find(is_records).unwrap()).unwrap();
        }),
    ];
    let durabilities = [Durability::Strict, Durability::Relaxed];
    for ((name, loss), durability) in
        losses.into_iter().flat_map(|loss| durabilities.map(|durability| (loss, durability)))
    {
        let directory = scratch();
        let path = directory.path().join("store");
        let engine = options().durability(durability).open(&path).unwrap();
        pair(&engine, "folded").unwrap();
        engine.fold().unwrap();
        pair(&engine, "before").unwrap();
        loss(&path);
        let first = pair(&engine, "during").unwrap_err();
        assert!(
            first.contains("OutcomeUnknown") || first.contains("Unavailable"),
            "{name}: {first}"
        );
        let later = pair(&engine, "after").unwrap_err();
        assert!(later.contains("Unavailable"), "{name}: {later}");
        assert!(later.contains("removed or replaced"), "{name} is said: {later}");
    }
}

#[test]
fn files_of_others_in_a_running_store_disturb_nothing() {
    let directory = scratch();
    let engine = options().open(directory.path()).unwrap();
    for (number, name) in [".DS_Store", "notes.txt", "records-old", "run-1"].iter().enumerate() {
        fs::write(directory.path().join(name), "theirs").unwrap();
        pair(&engine, &format!("k{number}")).unwrap();
        engine.fold().unwrap();
    }
    engine.close().unwrap();
    let engine = options().open_existing(directory.path()).unwrap();
    assert!(is_replayed(&engine, "k0"));
    assert_eq!(fs::read(directory.path().join("notes.txt")).unwrap(), b"theirs");
}

#[test]
fn a_store_is_created_beside_what_desktops_and_filesystems_leave_and_nothing_else() {
    let directory = scratch();
    let left = [".DS_Store", "Thumbs.db", "desktop.ini", "._x", ".nfs0001", ".gitkeep", "notes~"];
    for name in left.into_iter().chain([".notes.swp"]) {
        fs::write(directory.path().join(name), "theirs").unwrap();
    }
    fs::create_dir(directory.path().join("lost+found")).unwrap();
    options().open(directory.path()).unwrap().close().unwrap();
    for name in left {
        assert_eq!(fs::read(directory.path().join(name)).unwrap(), b"theirs", "{name}");
    }
    // A copy of a file may be all that is left of a store.
    for name in ["notes.txt", "store.redb~", ".store.redb.swp", "store.redb.bak", ".env"] {
        let foreign = scratch();
        fs::write(foreign.path().join(name), "mine").unwrap();
        let error = options().open(foreign.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreForeign);
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1, "{name}: left untouched");
    }
}
