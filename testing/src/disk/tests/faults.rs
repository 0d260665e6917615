use super::*;

/// Operations on files and names, up to the first error.
fn workload(disk: &SimDisk) -> io::Result<()> {
    disk.create_dir("/dir".as_ref())?;
    let file = disk.create("/dir/temporary".as_ref(), Caching::Buffered)?;
    file.set_len(8192)?;
    file.write_at(0, &[7; 4096])?;
    file.sync()?;
    disk.rename("/dir/temporary".as_ref(), "/dir/file".as_ref())?;
    disk.sync_dir("/dir".as_ref())?;
    disk.sync_dir("/".as_ref())?;
    let file = disk.open("/dir/file".as_ref(), Caching::Buffered)?;
    file.read_at(0, &mut [0; 10])?;
    assert_eq!(file.len()?, 8192);
    assert_eq!(disk.list("/dir".as_ref())?, ["file"]);
    disk.remove("/dir/file".as_ref())
}

#[test]
fn every_operation_can_fail_once() {
    let count = {
        let disk = SimDisk::new();
        workload(&disk).unwrap();
        disk.operations()
    };
    assert_eq!(count, 13);
    for nth in 0..count {
        let disk = SimDisk::new();
        disk.inject(Fault::at(nth));
        let error = workload(&disk).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Fault::EIO));
        assert_eq!((disk.operations(), disk.faults_fired()), (nth + 1, 1));
    }
    let disk = SimDisk::new();
    disk.inject(Fault::at(count));
    workload(&disk).unwrap();
    assert_eq!(disk.faults_fired(), 0);
    assert!(workload(&disk).is_err(), "the fault waits for its operation");
}

#[test]
fn a_fault_counts_kinds_changes_or_paths_from_its_injection() {
    let (disk, file) = disk_with(&[0; 10]);
    let write = || file.write_at(0, &[1]);
    write().unwrap();
    disk.inject(Fault::at_kind(OpKind::Write, 1).errno(Fault::ENOSPC));
    file.len().unwrap();
    write().unwrap();
    file.sync().unwrap();
    assert_eq!(kind(write()), io::ErrorKind::StorageFull);
    write().unwrap();

    disk.inject(Fault::at_change(0).error(io::ErrorKind::TimedOut));
    file.read_at(0, &mut [0]).unwrap();
    assert_eq!(kind(file.sync()), io::ErrorKind::TimedOut);

    disk.inject(Fault::at(0).on_path("segment"));
    write().unwrap();
    assert!(disk.create("/segment-1".as_ref(), Caching::Buffered).is_err());
    assert_eq!(disk.faults_fired(), 3);
}

#[test]
fn a_fault_can_last_until_it_is_cleared() {
    let (disk, file) = disk_with(&[]);
    disk.inject(Fault::at_kind(OpKind::Write, 2).forever());
    let failed = (0..5).filter(|_| file.write_at(0, &[1]).is_err()).count();
    assert_eq!(failed, 3);
    disk.clear_faults();
    file.write_at(0, &[1]).unwrap();
}

#[test]
fn a_failed_operation_has_no_effect_or_all_of_it() {
    let (disk, file) = disk_with(&[1; 10]);
    let write = Fault::at_kind(OpKind::Write, 0);
    disk.inject(write.clone());
    file.write_at(0, &[2; 10]).unwrap_err();
    assert_eq!(disk.read_file("/file"), [1; 10]);
    disk.inject(write.applied());
    file.write_at(0, &[2; 10]).unwrap_err();
    assert_eq!(disk.read_file("/file"), [2; 10]);
    disk.inject(Fault::at_kind(OpKind::Sync, 0).applied());
    file.sync().unwrap_err();
    assert_eq!(disk.crash(CrashMode::LoseAllUnsynced).read_file("/file"), [2; 10]);
    for kind in [OpKind::Open, OpKind::Lock] {
        disk.inject(Fault::at_kind(kind, 0).applied());
    }
    disk.open("/file".as_ref(), Caching::Buffered).unwrap_err();
    disk.lock("/lock".as_ref()).unwrap_err();
    disk.lock("/lock".as_ref()).expect("a lock nobody was given is free");
}

#[test]
fn a_write_can_fail_half_way() {
    let (disk, file) = disk_with(&[1; 10]);
    for (bytes, written) in [(4, 4), (0, 0), (10, 9), (99, 9)] {
        disk.inject(Fault::at_kind(OpKind::Write, 0).partial(bytes));
        file.write_at(0, &[2; 10]).unwrap_err();
        let twos = disk.read_file("/file").iter().filter(|byte| **byte == 2).count();
        assert_eq!(twos, written);
        file.write_at(0, &[1; 10]).unwrap();
    }
    disk.inject(Fault::at_kind(OpKind::Sync, 0).partial(4));
    file.sync().unwrap_err();
}

#[test]
fn after_an_ordinary_failed_sync_a_later_one_makes_everything_durable() {
    let (disk, file) = disk_with(&[1; 8192]);
    file.write_at(0, &[2; 8192]).unwrap();
    disk.inject(Fault::at_kind(OpKind::Sync, 0));
    file.sync().unwrap_err();
    let kept = images(&disk, 200).filter(|image| image.read_file("/file") == [2; 8192]).count();
    assert!((20..180).contains(&kept), "a failed sync may have done its work: {kept}");
    file.sync().unwrap();
    assert_eq!(disk.crash(CrashMode::LoseAllUnsynced).read_file("/file"), [2; 8192]);
}

#[test]
fn what_a_failed_sync_dropped_is_seen_but_never_durable_unless_written_again() {
    let (disk, file) = disk_with(&[1; 8192]);
    file.write_at(0, &[2; 8192]).unwrap();
    disk.inject(Fault::at_kind(OpKind::Sync, 0).drop_dirty());
    file.sync().unwrap_err();
    file.sync().expect("the second sync finds nothing to do");
    assert_eq!(disk.read_file("/file"), [2; 8192]);
    assert!(images(&disk, 100).all(|image| image.read_file("/file") == [1; 8192]));

    file.write_at(4096, &[3; 4096]).unwrap();
    file.sync().unwrap();
    let durable = [[1; 4096], [3; 4096]].concat();
    assert!(images(&disk, 100).all(|image| image.read_file("/file") == durable));
    let killed = disk.crash(CrashMode::ProcessKill);
    assert_eq!(killed.read_file("/file"), [[2; 4096], [3; 4096]].concat());
    assert_eq!(killed.crash(CrashMode::LoseAllUnsynced).read_file("/file"), durable);

    file.write_at(0, &[2; 4096]).unwrap();
    file.sync().unwrap();
    assert!(images(&disk, 100).all(|image| image.read_file("/file")[..4096] == [2; 4096]));
}

#[test]
fn under_memory_pressure_dropped_pages_are_no_longer_seen() {
    let (disk, file) = disk_with(&[1; 8192]);
    file.write_at(0, &[2; 4096]).unwrap();
    disk.inject(Fault::at_kind(OpKind::Sync, 0).drop_dirty());
    file.sync().unwrap_err();
    file.write_at(8000, &[3; 192]).unwrap();
    disk.drop_caches();
    let seen = disk.read_file("/file");
    assert_eq!((seen[0], seen[8000]), (1, 3), "dirty pages stay");
    file.sync().unwrap();
    assert_eq!(disk.crash(CrashMode::LoseAllUnsynced).read_file("/file"), seen);
}

#[test]
fn without_power_nothing_works_and_the_operation_under_way_is_up_to_the_seed() {
    let (disk, file) = disk_with(&[1; 4096]);
    disk.power_off_at(1);
    file.len().unwrap();
    assert!(is_power_off(&file.write_at(0, &[2; 4096]).unwrap_err()));
    assert!(disk.is_powered_off());
    let operations = disk.operations();
    assert!(is_power_off(&workload(&disk).unwrap_err()));
    assert!(is_power_off(&file.sync().unwrap_err()));
    assert_eq!(disk.operations(), operations);
    assert!(!is_power_off(&io::Error::other("something else")));

    let kept = images(&disk, 200).filter(|image| image.read_file("/file") == [2; 4096]).count();
    let lost = images(&disk, 200).filter(|image| image.read_file("/file") == [1; 4096]).count();
    assert!(kept > 20 && lost > 20);
    let image = disk.crash(CrashMode::LoseAllUnsynced);
    assert_eq!(image.read_file("/file"), [1; 4096]);
    workload(&image).expect("an image has power and no faults");
}

#[test]
fn a_sync_cut_off_by_the_power_may_have_done_part_of_its_work() {
    let (disk, file) = disk_with(&[1; 4096]);
    file.write_at(0, &[2; 4096]).unwrap();
    disk.inject(Fault::at_kind(OpKind::Sync, 0).power_off());
    file.sync().unwrap_err();
    assert_eq!(disk.crash(CrashMode::LoseAllUnsynced).read_file("/file"), [1; 4096]);
    assert!(images(&disk, 100).any(|image| image.read_file("/file") == [2; 4096]));
    assert!(images(&disk, 100).any(|image| image.read_file("/file") == [1; 4096]));

    let disk = SimDisk::new();
    disk.power_off();
    assert!(is_power_off(&disk.list("/".as_ref()).unwrap_err()));
}

#[test]
fn the_trace_tells_kind_path_offset_and_length() {
    let (disk, file) = disk_with(&[0; 100]);
    file.len().unwrap();
    disk.start_trace();
    file.write_at(10, &[1; 20]).unwrap();
    file.set_len(50).unwrap();
    disk.inject(Fault::at(0));
    file.sync().unwrap_err();
    let trace = disk.take_trace();
    file.len().unwrap();
    let op = |kind, offset, len| Op { kind, path: "/file".into(), offset, len };
    let expected = [op(OpKind::Write, 10, 20), op(OpKind::SetLen, 0, 50), op(OpKind::Sync, 0, 0)];
    assert_eq!(trace, expected);
    assert!(disk.take_trace().is_empty());
}
