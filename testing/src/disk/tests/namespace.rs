use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn path(text: &str) -> &Path {
    text.as_ref()
}

#[test]
fn a_created_name_is_durable_only_after_its_directory_is_synced() {
    let disk = SimDisk::new();
    let file = create(&disk, "/a");
    file.write_at(0, b"bytes").unwrap();
    file.sync().unwrap();
    let kept = images(&disk, 100).filter(|image| image.has_file("/a")).count();
    assert!((10..90).contains(&kept), "{kept}");
    disk.sync_dir(path("/")).unwrap();
    assert!(images(&disk, 100).all(|image| image.read_file("/a") == b"bytes"));
    assert_eq!(names(&disk.crash(CrashMode::LoseAllUnsynced)), ["/a"]);
}

#[test]
fn a_synced_name_without_a_synced_file_may_have_no_bytes() {
    let disk = SimDisk::new();
    create(&disk, "/a").write_at(0, b"bytes").unwrap();
    disk.sync_dir(path("/")).unwrap();
    assert!(images(&disk, 100).all(|image| image.has_file("/a")));
    assert!(images(&disk, 100).any(|image| image.read_file("/a").is_empty()));
}

#[test]
fn a_directory_is_a_name_in_its_parent() {
    let disk = SimDisk::new();
    disk.create_dir(path("/a/b")).unwrap();
    create(&disk, "/a/b/file").sync().unwrap();
    disk.sync_dir(path("/a/b")).unwrap();
    disk.sync_dir(path("/a")).unwrap();
    assert!(images(&disk, 100).any(|image| image.list(path("/a")).is_err()));
    disk.sync_dir(path("/")).unwrap();
    assert!(images(&disk, 100).all(|image| image.has_file("/a/b/file")));
}

#[test]
fn a_rename_is_atomic() {
    let disk = SimDisk::new();
    disk.put_file("/target", b"old");
    disk.put_file("/temporary", b"new");
    disk.rename(path("/temporary"), path("/target")).unwrap();
    assert_eq!(contents(&disk), [("/target".into(), b"new".to_vec())]);
    let (mut lost, mut kept) = (0, 0);
    for image in images(&disk, 200) {
        match contents(&image).as_slice() {
            [(_, old), (_, new)] if old == b"old" && new == b"new" => lost += 1,
            [(target, new)] if target == path("/target") && new == b"new" => kept += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(lost > 20 && kept > 20);
    disk.sync_dir(path("/")).unwrap();
    assert!(images(&disk, 50).all(|image| names(&image) == ["/target"]));
}

#[test]
fn a_directory_is_renamed_with_what_is_in_it_and_stays_open_and_locked() {
    let disk = SimDisk::new();
    disk.create_dir(path("/old")).unwrap();
    let directory = disk.open_dir(path("/old")).unwrap();
    let lock = directory.lock(Lockable::Created("LOCK")).unwrap();
    directory.sync().unwrap();
    disk.create_dir(path("/empty")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    disk.rename_dir(path("/old"), path("/empty")).unwrap();
    assert_eq!(directory.list().unwrap(), ["LOCK"]);
    let moved = disk.open_dir(path("/empty")).unwrap();
    let taken = moved.lock(Lockable::Created("LOCK")).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::WouldBlock);
    drop(lock);
    drop(moved.lock(Lockable::Created("LOCK")).unwrap());
    disk.create_dir(path("/other")).unwrap();
    let occupied = disk.rename_dir(path("/other"), path("/empty")).unwrap_err();
    assert_eq!(occupied.kind(), io::ErrorKind::DirectoryNotEmpty);
    // The new name is not durable before the parent is synced.
    let lost = disk.crash(CrashMode::LoseAllUnsynced);
    assert_eq!(lost.list(path("/old")).unwrap(), ["LOCK"]);
    disk.sync_dir(path("/")).unwrap();
    let kept = disk.crash(CrashMode::LoseAllUnsynced);
    assert_eq!(kept.list(path("/empty")).unwrap(), ["LOCK"]);
    assert_eq!(kept.list(path("/old")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_rename_into_another_directory_waits_for_both() {
    for first in ["/from", "/to"] {
        let disk = SimDisk::new();
        disk.create_dir(path("/to")).unwrap();
        disk.put_file("/from/file", b"bytes");
        disk.sync_all();
        disk.rename(path("/from/file"), path("/to/file")).unwrap();
        disk.sync_dir(path(first)).unwrap();
        assert_eq!(names(&disk.crash(CrashMode::LoseAllUnsynced)), ["/from/file"]);
        assert!(images(&disk, 50).all(|image| names(&image).len() == 1));
        disk.sync_dir(path("/from")).unwrap();
        disk.sync_dir(path("/to")).unwrap();
        assert_eq!(names(&disk.crash(CrashMode::LoseAllUnsynced)), ["/to/file"]);
    }
}

#[test]
fn a_synced_change_takes_the_changes_along_that_it_follows() {
    let disk = SimDisk::new();
    disk.create_dir(path("/to")).unwrap();
    disk.put_file("/from/file", b"bytes");
    disk.sync_all();
    disk.rename(path("/from/file"), path("/to/file")).unwrap();
    disk.remove(path("/to/file")).unwrap();
    disk.sync_dir(path("/to")).unwrap();
    assert!(images(&disk, 50).all(|image| names(&image).is_empty()));
}

#[test]
fn changes_of_other_names_are_reordered_and_those_of_one_name_are_not() {
    let disk = SimDisk::new();
    disk.put_file("/a", b"first");
    disk.put_file("/other", b"");
    disk.rename(path("/a"), path("/b")).unwrap();
    create(&disk, "/a").write_at(0, b"second").unwrap();
    disk.remove(path("/other")).unwrap();
    let mut seen = BTreeSet::new();
    for image in images(&disk, 300) {
        // Whichever changes are lost, the durable file has exactly one of its names.
        let firsts = contents(&image).iter().filter(|(_, bytes)| bytes == b"first").count();
        assert_eq!(firsts, 1);
        seen.insert(names(&image).join(" "));
    }
    let expected = ["/a", "/a /b", "/a /b /other", "/a /other", "/b", "/b /other"];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_removed_file_may_come_back_until_the_directory_is_synced() {
    let (disk, file) = disk_with(b"bytes");
    disk.remove(path("/file")).unwrap();
    assert!(!disk.has_file("/file"));
    let mut bytes = [0; 5];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"bytes", "an open file outlives its name");
    let back = images(&disk, 100).filter(|image| image.has_file("/file")).count();
    assert!((10..90).contains(&back), "{back}");
    disk.sync_dir(path("/")).unwrap();
    assert!(!images(&disk, 50).any(|image| image.has_file("/file")));
    assert_eq!(disk.used_bytes(), 4096);
    assert_eq!(disk.state.lock().tree.node_count(), 2);
    drop(file);
    assert_eq!(disk.used_bytes(), 0);
    assert_eq!(disk.state.lock().tree.node_count(), 1, "only the root is left");
}

#[test]
fn names_behave_like_those_of_an_operating_system() {
    use io::ErrorKind::*;
    let (disk, _file) = disk_with(b"bytes");
    disk.create_dir(path("dir/sub")).unwrap();
    disk.create_dir(path("/dir/./sub")).unwrap();
    create(&disk, "dir/file");
    let mut list = disk.list(path("/dir")).unwrap();
    list.sort();
    assert_eq!(list, ["file", "sub"]);
    assert_eq!(kind(disk.create(path("/file"), Caching::Buffered)), AlreadyExists);
    assert_eq!(kind(disk.create(path("/none/file"), Caching::Buffered)), NotFound);
    assert_eq!(kind(disk.create_dir(path("/file"))), NotADirectory);
    assert_eq!(kind(disk.open(path("/dir"), Caching::Buffered)), IsADirectory);
    assert_eq!(kind(disk.open(path("/none"), Caching::Buffered)), NotFound);
    assert_eq!(kind(disk.open(path("/file/x"), Caching::Buffered)), NotADirectory);
    assert_eq!(kind(disk.list(path("/none"))), NotFound);
    assert_eq!(kind(disk.list(path("/file"))), NotADirectory);
    assert_eq!(kind(disk.remove(path("/none"))), NotFound);
    assert_eq!(kind(disk.remove(path("/dir"))), IsADirectory);
    assert_eq!(kind(disk.rename(path("/none"), path("/file"))), NotFound);
    assert_eq!(kind(disk.rename(path("/file"), path("/dir"))), IsADirectory);
    assert_eq!(kind(disk.sync_dir(path("/file"))), NotADirectory);
    disk.rename(path("/file"), path("/file")).unwrap();
    assert_eq!(disk.read_file("/file"), b"bytes");
}

#[test]
fn a_lock_is_exclusive_per_disk_until_its_guard_is_dropped() {
    let disk = SimDisk::new();
    let guard = disk.lock(path("/lock")).unwrap();
    assert!(disk.has_file("/lock"));
    assert_eq!(kind(disk.clone().lock(path("lock"))), io::ErrorKind::WouldBlock);
    let _other = disk.lock(path("/other")).unwrap();
    for mode in [CrashMode::ProcessKill, CrashMode::PowerLoss { seed: 1 }] {
        let image = disk.crash(mode);
        let _of_image = image.lock(path("/lock")).unwrap();
        assert_eq!(kind(disk.lock(path("/lock"))), io::ErrorKind::WouldBlock);
    }
    drop(guard);
    drop(disk.lock(path("/lock")).unwrap());
}

/// Another thread moves the directory away and makes a new one with its old name.
#[test]
fn a_handle_never_changes_the_directory_that_got_its_old_name() {
    let disk = SimDisk::new();
    disk.create_dir("/a".as_ref()).unwrap();
    let handle = disk.open_dir("/a".as_ref()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                disk.rename_dir("/a".as_ref(), "/b".as_ref()).unwrap();
                disk.create_dir("/a".as_ref()).unwrap();
                disk.remove_dir("/a".as_ref()).unwrap();
                disk.rename_dir("/b".as_ref(), "/a".as_ref()).unwrap();
                // Without this sync the changes that are not durable pile up and slow down each
                // operation.
                disk.sync_all();
            }
        });
        let failed = (0..5_000).find_map(|_| {
            let created = handle.create("file", Caching::Buffered).map(drop);
            created.and_then(|()| handle.remove("file")).err()
        });
        done.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "{failed:?}");
    });
}
