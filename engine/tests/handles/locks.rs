//! Locks: one owner, whatever happens to the files that they are on.

use super::*;

#[test]
fn a_store_whose_lock_file_was_removed_or_replaced_is_still_in_use() {
    type Trick = fn(&Path);
    let tricks: [(&str, Trick); 8] = [
        ("removed", |_| {}),
        ("an empty file", |lock| fs::write(lock, "").unwrap()),
        ("a file with notes", |lock| fs::write(lock, "notes").unwrap()),
        ("a link to nothing", |lock| symlink("nowhere", lock).unwrap()),
        ("a link to the store", |lock| symlink("store.redb", lock).unwrap()),
        ("a directory", |lock| fs::create_dir(lock).unwrap()),
        ("a socket", |lock| drop(std::os::unix::net::UnixListener::bind(lock).unwrap())),
        ("a pipe", |lock| {
            assert!(Command::new("mkfifo").arg(lock).status().unwrap().success());
        }),
    ];
    for (name, trick) in tricks {
        let directory = scratch();
        let path = directory.path().join("store");
        let first = Engine::open(&path).unwrap();
        fs::remove_file(path.join("LOCK")).unwrap();
        trick(&path.join("LOCK"));
        let second = Engine::open(&path);
        assert_eq!(second.unwrap_err().kind(), ErrorKind::StoreInUse, "{name}");
        let verified = oncekey::verify(&path).unwrap_err();
        assert_eq!(verified.kind(), ErrorKind::StoreInUse, "{name}: {verified}");
        pair(&first, "k").unwrap();
        drop(first);
        if !fs::symlink_metadata(path.join("LOCK")).is_ok_and(|lock| lock.is_file()) {
            if let Err(error) = Engine::open(&path).map(drop) {
                assert_eq!(error.kind(), ErrorKind::StoreForeign, "{name}: {error}");
            }
            fs::remove_file(path.join("LOCK")).or_else(|_| fs::remove_dir(path.join("LOCK"))).ok();
        }
        assert!(is_replayed(&reopened(|| Engine::open(&path)), "k"), "{name}");
    }
}

/// Locking creates `LOCK` and no other file: an empty store file would hide that the store is gone.
#[test]
fn locking_a_store_file_that_vanished_meanwhile_creates_none() {
    let directory = scratch();
    let real = OsDisk.open_dir(directory.path()).unwrap();
    let simulated = SimDisk::new();
    simulated.create_dir(Path::new("/store")).unwrap();
    for dir in [real, simulated.open_dir(Path::new("/store")).unwrap()] {
        let missing = dir.lock(Lockable::File("store.redb")).map(drop).unwrap_err();
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
        assert!(dir.list().unwrap().is_empty());
        drop(dir.lock(Lockable::Created("LOCK")).unwrap());
        drop(dir.lock(Lockable::File("LOCK")).unwrap());
    }
}

#[test]
fn an_open_whose_store_file_vanishes_before_it_is_locked_finds_no_store() {
    let disk = SimDisk::new();
    let options = || options().disk(std::sync::Arc::new(disk.clone()));
    options().open("/store").unwrap().close().unwrap();
    let gone = Fault::at_kind(OpKind::Lock, 0).on_path("store.redb");
    disk.inject(gone.error(std::io::ErrorKind::NotFound));
    assert_eq!(options().open("/store").unwrap_err().kind(), ErrorKind::StoreMissing);
    options().open_existing("/store").unwrap();
}

#[test]
fn a_store_file_that_was_replaced_under_a_running_engine_gives_no_second_owner() {
    let directory = scratch();
    let path = directory.path().join("store");
    let first = options().open(&path).unwrap();
    pair(&first, "k").unwrap();
    fs::copy(path.join("store.redb"), path.join("copy")).unwrap();
    fs::rename(path.join("copy"), path.join("store.redb")).unwrap();
    fs::remove_file(path.join("LOCK")).unwrap();
    assert_eq!(Engine::open(&path).unwrap_err().kind(), ErrorKind::StoreInUse);
}

/// Each round creates a store anew, while LOCK is removed again and again.
#[test]
fn of_opens_that_race_to_create_a_store_one_owns_it() {
    use std::sync::atomic::{AtomicBool, Ordering};
    for round in 0..8 {
        let directory = scratch();
        let path = directory.path().join("store");
        let (barrier, done) = (std::sync::Barrier::new(5), AtomicBool::new(false));
        let opened: Vec<_> = std::thread::scope(|scope| {
            let opens = [(); 4].map(|()| {
                scope.spawn(|| {
                    barrier.wait();
                    Engine::open(&path)
                })
            });
            let remover = scope.spawn(|| {
                barrier.wait();
                while round % 2 == 1 && !done.load(Ordering::Relaxed) {
                    fs::remove_file(path.join("LOCK")).ok();
                }
            });
            let opened = opens.map(|open| open.join().unwrap()).into();
            done.store(true, Ordering::Relaxed);
            remover.join().unwrap();
            opened
        });
        let owners: Vec<_> = opened.iter().flatten().collect();
        assert!(owners.len() <= 1, "round {round}: {} owners", owners.len());
        let Some(owner) = owners.first() else {
            assert!(round % 2 == 1, "round {round}: no owner: {opened:?}");
            continue;
        };
        pair(owner, "k").unwrap();
        drop(opened);
        assert!(is_replayed(&reopened(|| Engine::open(&path)), "k"), "round {round}");
    }
}

/// A lock on the directory stands here for another creation whose `LOCK` was removed.
#[test]
fn a_store_that_another_open_creates_is_not_created_over() {
    let directory = scratch();
    // If the mode is wider, a lock on the directory does not count, since any user may take it.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let creating = fs::File::open(directory.path()).unwrap();
    creating.try_lock().unwrap();
    let error = Engine::open(directory.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreInUse);
    let names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["LOCK"]);
    drop(creating);
    pair(&reopened(|| Engine::open(directory.path())), "k").unwrap();
}

#[test]
fn verify_of_a_store_whose_lock_file_was_removed_says_that_it_is_in_use() {
    let directory = scratch();
    let path = directory.path().join("store");
    let _engine = options().open(&path).unwrap();
    fs::remove_file(path.join("LOCK")).unwrap();
    assert_eq!(oncekey::verify(&path).unwrap_err().kind(), ErrorKind::StoreInUse);
}

/// The modes keep an unprivileged process from opening the locked files.
#[test]
fn an_unprivileged_process_cannot_keep_the_engine_out() {
    if !is_root() {
        println!("left out: needs root to become another user");
        return;
    }
    let directory = scratch();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("store");
    for wide in [false, true] {
        let engine = options().open(&path).unwrap();
        pair(&engine, if wide { "second" } else { "first" }).unwrap();
        drop(engine);
        if wide {
            // An operator might do this to look into the directory. The files stay their owner's.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for name in ["", "LOCK", "store.redb"] {
            for how in ["-s", "-x"] {
                let mut holder = Command::new("setpriv")
                    .args(["--reuid=65534", "--regid=65534", "--clear-groups", "flock", "-n", how])
                    .arg(path.join(name))
                    .args(["sleep", "60"])
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                // The program is refused at once, or holds a lock for a minute.
                std::thread::sleep(std::time::Duration::from_millis(100));
                drop(reopened(|| options().open(&path)));
                holder.kill().ok();
                holder.wait().unwrap();
                if wide {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
                }
            }
        }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
