use std::collections::HashSet;
use std::ops::Range;

use super::*;

/// The offsets at which old bytes change to new ones, or new bytes to old ones.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    (1..bytes.len()).filter(|at| bytes[at - 1] != bytes[*at]).collect()
}

#[test]
fn synced_bytes_survive_every_crash() {
    let (disk, file) = disk_with(&[]);
    file.write_at(0, &[1; 10_000]).unwrap();
    file.write_at(3_000, &[2; 500]).unwrap();
    file.set_len(9_000).unwrap();
    file.sync().unwrap();
    let expected = disk.read_file("/file");
    assert_eq!(expected.len(), 9_000);
    for image in images(&disk, 200).chain([disk.crash(CrashMode::LoseAllUnsynced)]) {
        assert_eq!(image.read_file("/file"), expected);
    }
}

#[test]
fn an_unsynced_write_is_lost_kept_or_torn() {
    let (disk, file) = disk_with(&[1; 8192]);
    file.write_at(0, &[2; 8192]).unwrap();
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for image in images(&disk, 300) {
        let bytes = image.read_file("/file");
        assert_eq!(bytes.len(), 8192);
        assert!(bytes.iter().all(|byte| [1, 2].contains(byte)));
        match bytes.iter().filter(|byte| **byte == 2).count() {
            0 => lost += 1,
            8192 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(lost > 30 && kept > 30 && torn > 30, "{lost} {kept} {torn}");
    assert_eq!(disk.crash(CrashMode::LoseAllUnsynced).read_file("/file"), [1; 8192]);
    assert_eq!(file_bytes(&*file), [2; 8192], "taking images must not change the disk");
}

fn file_bytes(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn writes_are_torn_at_every_granularity() {
    let (disk, file) = disk_with(&[1; 65_536]);
    file.write_at(0, &[2; 65_536]).unwrap();
    let (mut by_byte, mut by_sector, mut by_page, mut scattered) = (0, 0, 0, 0);
    for image in images(&disk, 500) {
        let boundaries = boundaries(&image.read_file("/file"));
        let all = |unit: usize| boundaries.iter().all(|at| at.is_multiple_of(unit));
        match boundaries.len() {
            0 => continue,
            _ if all(4096) => by_page += 1,
            _ if all(512) => by_sector += 1,
            _ => by_byte += 1,
        }
        scattered += u64::from(boundaries.len() > 2);
    }
    let counts = [by_byte, by_sector, by_page, scattered];
    assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
}

#[test]
fn unsynced_writes_are_reordered_and_later_ones_overlay_earlier_ones() {
    let (disk, file) = disk_with(&[0; 12_288]);
    file.write_at(0, &[1; 8192]).unwrap();
    file.write_at(4096, &[2; 8192]).unwrap();
    let (mut only_first, mut only_second, mut both) = (false, false, false);
    for image in images(&disk, 500) {
        let bytes = image.read_file("/file");
        let whole = |range: Range<usize>, value| bytes[range].iter().all(|byte| *byte == value);
        only_first |= whole(0..8192, 1) && whole(8192..12_288, 0);
        only_second |= whole(0..4096, 0) && whole(4096..12_288, 2);
        both |= whole(0..4096, 1) && whole(4096..12_288, 2);
        assert!(!bytes[8192..].contains(&1));
        assert!(!bytes[..4096].contains(&2));
    }
    assert!(only_first && only_second && both);
}

#[test]
fn a_pair_of_writes_to_two_files_survives_in_all_four_ways() {
    let (disk, first) = disk_with(&[0]);
    disk.put_file("/second", &[0]);
    let second = disk.open("/second".as_ref(), Caching::Buffered).unwrap();
    first.write_at(0, &[1]).unwrap();
    second.write_at(0, &[1]).unwrap();
    let seen: BTreeSet<_> = images(&disk, 300)
        .map(|image| (image.read_file("/file")[0], image.read_file("/second")[0]))
        .collect();
    assert_eq!(seen.len(), 4);
}

#[test]
fn of_many_writes_one_alone_can_be_missing_or_present() {
    let (disk, file) = disk_with(&[0; 32]);
    for at in 0..32 {
        file.write_at(at, &[1]).unwrap();
    }
    let counts: BTreeSet<_> = images(&disk, 1000)
        .map(|image| image.read_file("/file").iter().filter(|byte| **byte == 1).count())
        .collect();
    for rare in [0, 1, 31, 32] {
        assert!(counts.contains(&rare), "{counts:?}");
    }
}

#[test]
fn an_append_can_leave_any_part_of_its_length_with_zeros_or_bytes() {
    let (disk, file) = disk_with(&[1; 100]);
    file.write_at(100, &[2; 9000]).unwrap();
    let (mut old, mut whole, mut zeros, mut between) = (false, false, false, false);
    for image in images(&disk, 500) {
        let bytes = image.read_file("/file");
        assert_eq!(bytes[..100], [1; 100]);
        old |= bytes.len() == 100;
        whole |= bytes.len() == 9100 && bytes[100..].iter().all(|byte| *byte == 2);
        zeros |= bytes.len() == 9100 && bytes[100..].iter().all(|byte| *byte == 0);
        between |= (101..9100).contains(&bytes.len());
        assert!(bytes.len() <= 9100);
    }
    assert!(old && whole && zeros && between);
}

#[test]
fn unsynced_lengths_are_lost_or_kept() {
    let (disk, file) = disk_with(&[1; 100]);
    file.set_len(50).unwrap();
    file.set_len(200).unwrap();
    let lens: BTreeSet<_> = images(&disk, 200)
        .map(|image| {
            let bytes = image.read_file("/file");
            let ones = bytes.iter().filter(|byte| **byte == 1).count();
            assert!(bytes[ones..].iter().all(|byte| *byte == 0));
            (ones, bytes.len())
        })
        .collect();
    let expected = [(50, 50), (50, 200), (100, 100), (100, 200)];
    assert_eq!(lens.into_iter().collect::<Vec<_>>(), expected);
    file.sync().unwrap();
    assert!(images(&disk, 50).all(|image| image.read_file("/file").len() == 200));
}

#[test]
fn the_same_seed_gives_the_same_image() {
    let run = || {
        let disk = SimDisk::new();
        disk.create_dir("/dir".as_ref()).unwrap();
        for name in 0..5u8 {
            let file = create(&disk, &format!("/dir/{name}"));
            (0..20).for_each(|at| file.write_at(at * 1777, &[name + 1; 5000]).unwrap());
        }
        disk.sync_dir("/".as_ref()).unwrap();
        disk
    };
    let (disk, again) = (run(), run());
    let mut different = BTreeSet::new();
    for seed in 0..50 {
        let mode = CrashMode::PowerLoss { seed };
        let image = contents(&disk.crash(mode));
        assert!(image == contents(&disk.crash(mode)));
        assert!(image == contents(&again.crash(mode)));
        different.insert(image);
    }
    assert!(different.len() > 35, "{}", different.len());
}

#[test]
fn a_killed_process_loses_nothing_but_a_power_loss_after_it_still_can() {
    let (disk, file) = disk_with(&[1; 4096]);
    file.write_at(0, &[2; 4096]).unwrap();
    create(&disk, "/new").write_at(0, b"bytes").unwrap();
    let killed = disk.crash(CrashMode::ProcessKill);
    assert_eq!(contents(&killed), contents(&disk));
    assert_eq!(killed.operations(), 0);

    let lost = killed.crash(CrashMode::LoseAllUnsynced);
    assert_eq!(names(&lost), ["/file"]);
    assert_eq!(lost.read_file("/file"), [1; 4096]);

    let reopened = killed.open("/file".as_ref(), Caching::Buffered).unwrap();
    reopened.sync().unwrap();
    assert_eq!(killed.crash(CrashMode::LoseAllUnsynced).read_file("/file"), [2; 4096]);
}

#[test]
fn images_are_independent_of_each_other_and_of_the_disk() {
    let (disk, file) = disk_with(&[1; 4096]);
    let image = disk.crash(CrashMode::LoseAllUnsynced);
    let other = image.crash(CrashMode::LoseAllUnsynced);
    image.open("/file".as_ref(), Caching::Buffered).unwrap().write_at(0, &[7]).unwrap();
    file.write_at(1, &[8]).unwrap();
    assert_eq!(disk.read_file("/file")[..2], [1, 8]);
    assert_eq!(image.read_file("/file")[..2], [7, 1]);
    assert_eq!(other.read_file("/file")[..2], [1, 1]);
}

#[test]
fn a_thousand_images_of_64_mib_share_their_pages() {
    let (disk, file) = disk_with(&[]);
    let pages = 64 * 256;
    file.write_at(0, &vec![5; pages * 4096]).unwrap();
    file.sync().unwrap();
    file.write_at(0, &[6; 8 * 4096]).unwrap();
    let images: Vec<_> = images(&disk, 1000).collect();
    let (mut chunks, mut owned) = (HashSet::new(), HashSet::new());
    for image in images.iter().chain([&disk]) {
        let state = image.state.lock();
        for (_, node) in state.tree.files() {
            let file = state.tree.file(node);
            assert_eq!(file.seen.allocated_pages(), pages as u64);
            file.seen.allocations(&mut chunks, &mut owned);
            file.durable.allocations(&mut chunks, &mut owned);
        }
    }
    // The pages of the file and of the write, and for each torn image the pages that are partly
    // new.
    assert!(owned.len() < pages + 8 + 8 * 1000, "{}", owned.len());
    assert!(owned.len() > pages + 8, "some write must have been torn within a page");
    // Each image may have a chunk of pointers (512 bytes) that differs from that of the old file.
    assert!(chunks.len() <= pages / 64 + 1 + 1000, "{}", chunks.len());
}
