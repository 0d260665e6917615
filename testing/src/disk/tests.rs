//! The promises of the disk. Where a seed decides, the tests try many seeds.

mod faults;
mod limits;
mod namespace;
mod power_loss;

use std::path::PathBuf;

use oncekey::disk::{Disk, Lockable};

use super::*;

/// A disk with one open, durable file `/file`.
fn disk_with(bytes: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    disk.put_file("/file", bytes);
    let file = disk.open("/file".as_ref(), Caching::Buffered).unwrap();
    (disk, file)
}

fn create(disk: &SimDisk, path: &str) -> Arc<dyn DiskFile> {
    disk.create(path.as_ref(), Caching::Buffered).unwrap()
}

fn images(disk: &SimDisk, seeds: u64) -> impl Iterator<Item = SimDisk> {
    (0..seeds).map(|seed| disk.crash(CrashMode::PowerLoss { seed }))
}

fn contents(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.files().into_iter().map(|(path, _)| (path.clone(), disk.read_file(path))).collect()
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.files().iter().map(|(path, _)| path.display().to_string()).collect()
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("this must fail").kind()
}
