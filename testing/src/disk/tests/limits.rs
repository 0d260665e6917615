use oncekey::disk::BLOCK;

use super::*;

/// `len` bytes at an address that is a multiple of [`BLOCK`], plus `shift`.
fn at_address(storage: &mut Vec<u8>, shift: usize, len: usize) -> &mut [u8] {
    storage.resize(len + shift + BLOCK, 3);
    let start = storage.as_ptr().align_offset(BLOCK) + shift;
    &mut storage[start..start + len]
}

#[test]
fn direct_files_insist_on_alignment_and_still_need_a_sync() {
    let disk = SimDisk::new();
    disk.put_file("/file", &[1; 3 * BLOCK]);
    let file = disk.open("/file".as_ref(), Caching::Direct).unwrap();
    let mut storage = Vec::new();
    for (shift, offset, len) in
        [(0, 1, BLOCK), (0, 512, BLOCK), (0, 0, BLOCK - 1), (0, 0, 512), (1, 0, BLOCK)]
    {
        let buffer = at_address(&mut storage, shift, len);
        assert_eq!(kind(file.write_at(offset, buffer)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(file.read_at(offset, buffer)), io::ErrorKind::InvalidInput);
    }
    let buffer = at_address(&mut storage, 0, BLOCK);
    file.write_at(BLOCK as u64, buffer).unwrap();
    file.read_at(0, buffer).unwrap();
    assert_eq!(buffer, [1; BLOCK]);
    assert_eq!(disk.crash(CrashMode::LoseAllUnsynced).read_file("/file"), [1; 3 * BLOCK]);
    file.sync().unwrap();
    assert_eq!(disk.crash(CrashMode::LoseAllUnsynced).read_file("/file")[BLOCK], 3);
}

#[test]
fn reading_past_the_end_is_an_unexpected_eof() {
    let (_disk, file) = disk_with(&[1; 10]);
    file.read_at(10, &mut []).unwrap();
    file.read_at(9, &mut [0]).unwrap();
    for (offset, len) in [(9, 2), (10, 1), (1 << 50, 1)] {
        let result = file.read_at(offset, &mut vec![0; len]);
        assert_eq!(kind(result), io::ErrorKind::UnexpectedEof);
    }
    file.write_at(20, &[]).unwrap();
    assert_eq!(file.len().unwrap(), 10, "writing nothing does not grow a file");
    file.write_at(15, &[2]).unwrap();
    let mut bytes = [9; 6];
    file.read_at(10, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 0, 0, 0, 2]);
    assert_eq!(kind(file.set_len(1 << 41)), io::ErrorKind::FileTooLarge);
    assert_eq!(kind(file.write_at(u64::MAX - 1, &[1; 9])), io::ErrorKind::FileTooLarge);
}

#[test]
fn a_full_disk_takes_what_fits() {
    let (disk, file) = disk_with(&[]);
    disk.set_capacity(Some(4 * BLOCK as u64));
    file.set_len(1 << 22).expect("a hole takes no space");
    file.write_at(0, &[0; 2 * BLOCK]).unwrap();
    assert_eq!(disk.used_bytes(), 2 * BLOCK as u64, "written zeros take space");
    let error = file.write_at(100_000, &[1; 4 * BLOCK]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(error.raw_os_error(), Some(Fault::ENOSPC));
    // 100,000 lies 1,696 bytes into a page: two pages are left for 2 * 4096 - 1696 bytes.
    let ones = disk.read_file("/file").iter().filter(|byte| **byte == 1).count();
    assert_eq!(ones, 2 * BLOCK - 1696);
    file.write_at(0, &[5; 2 * BLOCK]).expect("overwriting takes no space");
    assert_eq!(kind(file.write_at(1 << 20, &[1])), io::ErrorKind::StorageFull);

    let image = disk.crash(CrashMode::ProcessKill);
    let of_image = image.open("/file".as_ref(), Caching::Buffered).unwrap();
    assert_eq!(kind(of_image.write_at(1 << 20, &[1])), io::ErrorKind::StorageFull);

    file.set_len(BLOCK as u64).unwrap();
    file.write_at(1 << 20, &[1]).expect("truncating gave space back");
    disk.set_capacity(Some(0));
    assert_eq!(kind(file.write_at(1 << 21, &[1])), io::ErrorKind::StorageFull);
    disk.set_capacity(None);
    file.write_at(1 << 21, &[1]).unwrap();
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let (disk, file) = disk_with(&[1; 10]);
    file.write_at(0, &[2]).unwrap();
    create(&disk, "/new");
    disk.set_read_only(true);
    let path: &Path = "/file".as_ref();
    let refused = [
        kind(file.write_at(0, &[3])),
        kind(file.set_len(0)),
        kind(file.sync()),
        kind(disk.sync_dir("/".as_ref())),
        kind(disk.open(path, Caching::Buffered)),
        kind(disk.create("/other".as_ref(), Caching::Buffered)),
        kind(disk.create_dir("/dir".as_ref())),
        kind(disk.rename(path, "/other".as_ref())),
        kind(disk.remove(path)),
        kind(disk.lock(path)),
    ];
    assert!(refused.iter().all(|kind| *kind == io::ErrorKind::ReadOnlyFilesystem), "{refused:?}");
    disk.create_dir("/".as_ref()).unwrap();
    file.read_at(0, &mut [0]).unwrap();
    disk.set_read_only(false);
    file.sync().unwrap();
}

#[test]
fn a_disk_can_pose_as_a_network_filesystem() {
    let disk = SimDisk::new();
    assert_eq!(disk.network_filesystem("/".as_ref()).unwrap(), None);
    disk.set_network_filesystem(true);
    assert_eq!(disk.network_filesystem("/".as_ref()).unwrap(), Some("NFS"));
    assert_eq!(kind(disk.network_filesystem("/none".as_ref())), io::ErrorKind::NotFound);
}

#[test]
fn damage_is_seen_and_durable_at_once() {
    let blocks: Vec<u8> = (0..10_000u32).map(|at| (at / BLOCK as u32 + 1) as u8).collect();
    let (disk, _file) = disk_with(&blocks);
    let both = |disk: &SimDisk| {
        let seen = disk.read_file("/file");
        assert_eq!(disk.crash(CrashMode::LoseAllUnsynced).read_file("/file"), seen);
        seen
    };
    disk.flip_bit("/file", 5, 7);
    assert_eq!(both(&disk)[4..7], [1, 0x81, 1]);
    disk.copy_block("/file", 0, 2);
    assert_eq!(both(&disk)[2 * BLOCK + 4..2 * BLOCK + 7], [1, 0x81, 1]);
    assert_eq!(both(&disk).len(), 10_000, "the last block is short");
    disk.zero_block("/file", 1);
    assert!(both(&disk)[BLOCK..2 * BLOCK].iter().all(|byte| *byte == 0));
    disk.write_bytes("/file", 9_999, b"xyz");
    assert_eq!(both(&disk)[9_999..], *b"xyz");
    disk.truncate("/file", 3);
    assert_eq!(both(&disk), [1, 1, 1]);
    disk.truncate("/file", 30);
    assert_eq!(both(&disk).len(), 3, "truncating never grows");
    assert_eq!(disk.operations(), 1, "only the open counts");
}

#[test]
#[should_panic(expected = "before 10")]
fn damage_outside_a_file_is_a_mistake_of_the_test() {
    disk_with(&[0; 10]).0.flip_bit("/file", 10, 0);
}

#[test]
fn a_file_that_is_put_is_durable_whatever_happened_to_its_name_before() {
    let disk = SimDisk::new();
    disk.put_file("/a/b/file", b"old");
    disk.remove("/a/b/file".as_ref()).unwrap();
    create(&disk, "/a/unsynced");
    disk.put_file("/a/b/file", b"new");
    assert!(images(&disk, 100).all(|image| image.read_file("/a/b/file") == b"new"));
    assert!(images(&disk, 100).any(|image| !image.has_file("/a/unsynced")));
    disk.sync_all();
    assert!(images(&disk, 50).all(|image| image.has_file("/a/unsynced")));
}

#[test]
fn a_disk_goes_to_a_real_directory_and_back() {
    let dir = std::env::temp_dir().join(format!("oncekey-testing-{}", std::process::id()));
    let disk = SimDisk::new();
    disk.put_file("/top", b"top");
    disk.put_file("/dir/sub/file", &[7; 9_999]);
    disk.put_file("/dir/empty", b"");
    let sparse = disk.open("/dir/empty".as_ref(), Caching::Buffered).unwrap();
    sparse.set_len(100_000).unwrap();
    sparse.write_at(50_000, b"middle").unwrap();
    disk.dump_to(&dir).unwrap();
    let loaded = SimDisk::load_from(&dir);
    std::fs::remove_dir_all(&dir).unwrap();
    let loaded = loaded.unwrap().crash(CrashMode::LoseAllUnsynced);
    assert!(contents(&loaded) == contents(&disk));
    assert_eq!(names(&loaded), ["/dir/empty", "/dir/sub/file", "/top"]);
}

#[test]
fn several_threads_share_a_disk() {
    let disk = SimDisk::new();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let disk = disk.clone();
            scope.spawn(move || {
                let file = create(&disk, &format!("/{thread}"));
                for at in 0..200 {
                    file.write_at(at * 100, &[thread; 100]).unwrap();
                    file.sync().unwrap();
                    disk.sync_dir("/".as_ref()).unwrap();
                }
            });
        }
    });
    let image = disk.crash(CrashMode::LoseAllUnsynced);
    for thread in 0..4u8 {
        assert!(image.read_file(format!("/{thread}")) == vec![thread; 20_000]);
    }
    assert_eq!(disk.operations(), 4 * (1 + 3 * 200));
}
