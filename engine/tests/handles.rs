//! A store is what its handles mean: the directory that was opened, the files in it, their owner.
//! Names that are removed, moved or replaced behind the engine's back give no store two owners and
//! lose nothing that was acknowledged.
//!
//! Tests that change the process itself (its directory, descriptors, umask, limits) run in a child:
//! the test binary calls itself with the name of an ignored test.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oncekey::disk::{Disk, Lockable, OsDisk};
use oncekey::{Begin, Durability, Engine, ErrorKind, Fingerprint, Key, Options};
use oncekey_testing::{Fault, OpKind, SimDisk};

fn options() -> Options {
    Options::new().segment_bytes(4 << 20).recent_bytes(1 << 20)
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Begins and completes `key`, or says why not.
fn pair(engine: &Engine, key: &str) -> Result<(), String> {
    let key = Key::new("", key).unwrap();
    match engine.begin(&key, Fingerprint::builder().finish()).wait() {
        Ok(Begin::Claimed(claim)) => match claim.complete(&[7; 1024]).wait() {
            Ok(_) => Ok(()),
            Err(failed) => Err(format!("{:?}: {failed}", failed.kind())),
        },
        other => Err(format!("{other:?}")),
    }
}

fn is_replayed(engine: &Engine, key: &str) -> bool {
    let key = Key::new("", key).unwrap();
    let begun = engine.begin(&key, Fingerprint::builder().finish()).wait();
    matches!(begun, Ok(Begin::Replay(_)))
}

/// Runs the ignored test `name` in a child, with the directory in its environment.
fn in_child(name: &str, directory: &Path) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env("ONCEKEY_DIRECTORY", directory)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let (out, error) =
        (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && out.contains("1 passed"), "{out}\n{error}");
}

fn given() -> PathBuf {
    std::env::var_os("ONCEKEY_DIRECTORY").unwrap().into()
}

// Locks.

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
        assert!(is_replayed(&Engine::open(&path).unwrap(), "k"), "{name}");
    }
}

/// Only LOCK is created by locking it: an empty store file would hide that the store is gone.
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
        assert!(is_replayed(&Engine::open(&path).unwrap(), "k"), "round {round}");
    }
}

/// The lock of another creation whose LOCK was removed stands for it here.
#[test]
fn a_store_that_another_open_creates_is_not_created_over() {
    let directory = scratch();
    // In a wider one a lock on the directory does not count, since any user may take it.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let creating = fs::File::open(directory.path()).unwrap();
    creating.try_lock().unwrap();
    let error = Engine::open(directory.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreInUse);
    let names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["LOCK"]);
    drop(creating);
    pair(&Engine::open(directory.path()).unwrap(), "k").unwrap();
}

#[test]
fn verify_of_a_store_whose_lock_file_was_removed_says_that_it_is_in_use() {
    let directory = scratch();
    let path = directory.path().join("store");
    let _engine = options().open(&path).unwrap();
    fs::remove_file(path.join("LOCK")).unwrap();
    assert_eq!(oncekey::verify(&path).unwrap_err().kind(), ErrorKind::StoreInUse);
}

/// Modes keep it from opening what the lock is on.
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
            // As an operator might, to look into it. The files stay their owner's.
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
                // Refused at once, or it holds a lock for a minute.
                std::thread::sleep(std::time::Duration::from_millis(100));
                options().open(&path).unwrap();
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

// The directory.

#[test]
fn a_store_opened_by_a_relative_path_survives_a_change_of_directory() {
    let directory = scratch();
    in_child("child_changes_its_directory", directory.path());
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

/// What is removed, how, and whether the engine may go on.
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
    // A copy of a file of the store may be all that is left of it.
    for name in ["notes.txt", "store.redb~", ".store.redb.swp", "store.redb.bak", ".env"] {
        let foreign = scratch();
        fs::write(foreign.path().join(name), "mine").unwrap();
        let error = options().open(foreign.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreForeign);
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1, "{name}: left untouched");
    }
}

// Modes.

#[test]
fn directories_are_0700_and_files_0600_whatever_the_umask() {
    for child in ["child_without_umask", "child_with_every_umask"] {
        let directory = scratch();
        in_child(child, directory.path());
        let mut checked = 0;
        let mut folders = vec![directory.path().join("parent")];
        while let Some(folder) = folders.pop() {
            assert_eq!(mode(&folder), 0o700, "{}", folder.display());
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                checked += 1;
            }
        }
        assert!(checked > 8, "{checked} files");
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn fill(directory: &Path) {
    let engine = options().open(directory.join("parent/store")).unwrap();
    pair(&engine, "k").unwrap();
    engine.fold().unwrap();
    engine.backup_to(directory.join("parent/backup")).unwrap();
    engine.close().unwrap();
}

#[test]
#[ignore = "run by directories_are_0700…"]
fn child_without_umask() {
    // SAFETY: changes an attribute of this process, which runs nothing else.
    unsafe { libc::umask(0) };
    fill(&given());
}

#[test]
#[ignore = "run by directories_are_0700…"]
fn child_with_every_umask() {
    // SAFETY: as above.
    unsafe { libc::umask(0o777) };
    fill(&given());
}

#[test]
fn wider_modes_are_narrowed_by_an_open_that_succeeds_and_by_no_other() {
    let directory = scratch();
    let path = directory.path().join("store");
    let engine = options().open(&path).unwrap();
    pair(&engine, "k").unwrap();
    engine.close().unwrap();
    fs::write(path.join("notes.txt"), "theirs").unwrap();
    let widen = || {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        for entry in fs::read_dir(&path).unwrap() {
            fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o644)).unwrap();
        }
    };
    widen();
    let bytes = fs::read(path.join("store.redb")).unwrap();
    fs::write(path.join("store.redb"), b"no store").unwrap();
    options().open(&path).unwrap_err();
    assert_eq!((mode(&path), mode(&path.join("store.redb"))), (0o755, 0o644));
    fs::write(path.join("store.redb"), bytes).unwrap();
    let engine = options().open(&path).unwrap();
    assert!(is_replayed(&engine, "k"));
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap().path();
        let theirs = entry.ends_with("notes.txt");
        assert_eq!(mode(&entry), if theirs { 0o644 } else { 0o600 }, "{}", entry.display());
    }
    assert_eq!(mode(&path), 0o700);
}

// Descriptors.

#[test]
fn no_file_of_the_store_gets_the_number_of_a_standard_stream() {
    let directory = scratch();
    in_child("child_closes_its_streams", directory.path());
}

#[test]
#[ignore = "run by no_file_of_the_store…"]
fn child_closes_its_streams() {
    let directory = given();
    let mut report = fs::File::create(directory.join("report")).unwrap();
    assert!(report.as_raw_fd() > 2);
    // Kept, so that this test can tell its outcome.
    // SAFETY: plain calls on the streams of this process, which nothing else uses.
    let kept: Vec<_> =
        (0..3).map(|fd| unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100) }).collect();
    // SAFETY: as above.
    let close = || (0..3).for_each(|fd| assert!(unsafe { libc::close(fd) } <= 0));
    close();
    let path = directory.join("store");
    let engine = options().open(&path).unwrap();
    let mut below = standard(&path);
    for number in 0..1_500 {
        pair(&engine, &format!("k{number}")).unwrap();
    }
    engine.fold().unwrap();
    engine.backup_to(directory.join("backup")).unwrap();
    engine.reopen().unwrap();
    below.extend(standard(&directory));
    // A host may close them later, too: whatever it prints then must not reach the store.
    close();
    for number in 0..1_500 {
        pair(&engine, &format!("later{number}")).unwrap();
    }
    engine.fold().unwrap();
    below.extend(standard(&directory));
    engine.close().unwrap();
    writeln!(report, "{below:?}").unwrap();
    for (fd, kept) in kept.iter().enumerate() {
        // SAFETY: as above.
        assert!(unsafe { libc::dup2(*kept, fd as i32) } >= 0);
    }
    assert!(below.is_empty(), "{below:?}");
}

/// The descriptors below 3 that lie under `directory`.
fn standard(directory: &Path) -> Vec<PathBuf> {
    let link = |fd| fs::read_link(format!("/proc/self/fd/{fd}"));
    (0..3).filter_map(|fd| link(fd).ok()).filter(|path| path.starts_with(directory)).collect()
}

// Limits.

/// With `SIGXFSZ` ignored a write beyond the limit fails, and does not end the process.
#[test]
fn a_limit_of_the_size_of_files_is_put_off_like_a_full_disk() {
    let directory = scratch();
    in_child("child_with_a_limit_of_the_size_of_files", directory.path());
    let engine = options().open(directory.path().join("store")).unwrap();
    let told = fs::read_to_string(directory.path().join("acknowledged")).unwrap();
    assert!(told.lines().count() > 10);
    for key in told.lines() {
        assert!(is_replayed(&engine, key), "{key}");
    }
}

#[test]
#[ignore = "run by a_limit_of_the_size_of_files…"]
fn child_with_a_limit_of_the_size_of_files() {
    let directory = given();
    let engine = options().open(directory.join("store")).unwrap();
    let mut told = fs::File::create(directory.join("acknowledged")).unwrap();
    let mut acknowledged = |key: &str| writeln!(told, "{key}").unwrap();
    let limit = |bytes| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: plain calls about this process.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
        }
    };
    for number in 0..20 {
        pair(&engine, &format!("before{number}")).unwrap();
        acknowledged(&format!("before{number}"));
    }
    engine.fold().unwrap();
    limit(6 << 20);
    let mut refused = Vec::new();
    for number in 0..20_000 {
        let key = format!("k{number}");
        match pair(&engine, &key) {
            Ok(()) => acknowledged(&key),
            Err(error) => {
                refused.push(error);
                if refused.len() > 3 {
                    break;
                }
            }
        }
    }
    assert!(refused.len() > 3, "the limit is met");
    assert!(refused.iter().all(|error| error.contains("StoreFull")), "{refused:?}");
    limit(libc::RLIM_INFINITY);
    let healed = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        pair(&engine, "healed").is_ok()
    });
    assert!(healed, "{:?}", engine.fold());
    acknowledged("healed");
}
