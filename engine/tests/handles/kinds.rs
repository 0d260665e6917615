//! Directories, links, pipes, sockets and devices in the place of the files of a store.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;

use super::*;

type Kind = (&'static str, fn(&Path));

const KINDS: [Kind; 7] = [
    ("a directory", |path| fs::create_dir(path).unwrap()),
    ("a pipe", |path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }),
    ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
    ("a device", |path| symlink("/dev/null", path).unwrap()),
    ("a link to a directory", |path| symlink(".", path).unwrap()),
    ("a link to nothing", |path| symlink("nowhere", path).unwrap()),
    ("a link to itself", |path| symlink(path.file_name().unwrap(), path).unwrap()),
];

/// The names, modes and bytes of the files, without `LOCK`.
fn image(path: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let looks = |path: PathBuf| {
        let found = fs::symlink_metadata(&path).unwrap();
        let bytes = if found.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        (path, (found.mode(), bytes))
    };
    entries.filter(|path| !path.ends_with("LOCK")).map(looks).collect()
}

/// Repeats a call while the store is in use. A child that another test of this process forks holds the
/// locks until it runs its program.
fn when_free<T>(call: impl Fn() -> oncekey::Result<T>) -> oncekey::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::StoreInUse => std::thread::yield_now(),
            done => return done,
        }
    }
}

#[test]
fn another_thing_in_the_place_of_a_file_is_damage_and_nothing_is_changed() {
    let directory = scratch();
    let path = directory.path().join("store");
    let engine = options().open(&path).unwrap();
    pair(&engine, "folded").unwrap();
    engine.fold().unwrap();
    pair(&engine, "recent").unwrap();
    drop(engine);
    let named = |prefix: &str| {
        let mut names = image(&path).into_keys().map(|path| path.file_name().unwrap().to_owned());
        names.find(|name| name.to_string_lossy().starts_with(prefix)).unwrap()
    };
    let present = ["store.redb", "journal-0000.seg", "records-", "run-"].map(named);
    // Names that an interrupted fold, merge or preparation leaves.
    let leftover = ["journal-0099.seg", "records-00000fffffffffff", "run-0000000000000000"];
    for name in present.into_iter().chain(leftover.map(Into::into)) {
        for (kind, put) in KINDS {
            let (file, aside) = (path.join(&name), directory.path().join("aside"));
            let is_present = fs::rename(&file, &aside).is_ok();
            put(&file);
            let before = image(&path);
            let what = format!("{kind} as {}", name.display());
            let mut refused = vec![
                when_free(|| options().open(&path)).unwrap_err(),
                when_free(|| options().read(&path)).unwrap_err(),
            ];
            match when_free(|| options().verify(&path)) {
                Ok(found) => refused.push(found.damage()[0].error().clone()),
                Err(error) => refused.push(error),
            }
            for error in refused {
                let expected = match name == "store.redb" {
                    true => ErrorKind::StoreForeign,
                    false => ErrorKind::Corrupted,
                };
                assert_eq!(error.kind(), expected, "{what}: {error}");
                let message = error.to_string();
                assert!(message.contains(&*name.to_string_lossy()), "{what}: {message}");
                assert!(message.ends_with("not a regular file"), "{what}: {message}");
            }
            assert!(image(&path) == before, "{what}: changed");
            fs::remove_file(&file).or_else(|_| fs::remove_dir(&file)).unwrap();
            if is_present {
                fs::rename(&aside, &file).unwrap();
            }
            let engine = when_free(|| options().open(&path)).unwrap();
            assert!(is_replayed(&engine, "folded") && is_replayed(&engine, "recent"), "{what}");
        }
    }
}

/// The simulated disk answers as the real one does.
#[test]
fn a_directory_in_the_place_of_a_file_is_damage_on_a_simulated_disk_too() {
    for name in ["journal-0099.seg", "records-00000fffffffffff", "run-0000000000000000"] {
        let disk = SimDisk::new();
        let open = || options().disk(std::sync::Arc::new(disk.clone())).open("/store");
        open().unwrap().close().unwrap();
        disk.create_dir(&Path::new("/store").join(name)).unwrap();
        disk.start_trace();
        let refused = open().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupted, "{name}: {refused}");
        let mut changes = disk.take_trace();
        changes.retain(|op| op.kind.is_change() && op.kind != OpKind::Lock);
        assert_eq!(changes, [], "{name}");
    }
}

/// A note that went into the file would destroy it.
#[test]
fn a_lock_that_is_another_name_of_a_file_of_the_store_gets_no_note() {
    let directory = scratch();
    let path = directory.path().join("store");
    let noted = || when_free(|| options().owner_note("pid 1").open(&path));
    let engine = noted().unwrap();
    pair(&engine, "folded").unwrap();
    engine.fold().unwrap();
    pair(&engine, "recent").unwrap();
    drop(engine);
    for prefix in ["journal-0000.seg", "records-", "run-"] {
        fs::remove_file(path.join("LOCK")).unwrap();
        let files = image(&path).into_keys();
        let is_named =
            |file: &PathBuf| file.file_name().unwrap().to_string_lossy().starts_with(prefix);
        fs::hard_link(files.into_iter().find(is_named).unwrap(), path.join("LOCK")).unwrap();
        let engine = noted().unwrap();
        assert!(is_replayed(&engine, "folded") && is_replayed(&engine, "recent"), "{prefix}");
        let refused = engine.set_owner_note("pid 1").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Io, "{prefix}: {refused}");
        engine.close().unwrap();
    }
    fs::remove_file(path.join("LOCK")).unwrap();
    let engine = noted().unwrap();
    assert!(is_replayed(&engine, "folded") && is_replayed(&engine, "recent"));
    assert_eq!(oncekey::owner(&path).as_deref(), Some(&b"pid 1"[..]));
}
