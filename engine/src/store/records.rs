//! Record files: the completed records, one file for each expiry bucket.
//!
//! A fold appends to the files of the buckets that it brings records for, and syncs them before its
//! transaction begins. What a file holds before the end that the runs of its bucket state
//! ([`RunMeta::end`](super::schema::RunMeta)) never changes; what lies behind is left over from a fold that did not commit,
//! and the next one writes over it. A file goes as a whole, once no run of its bucket is live.
//!
//! Records are in their [stored form](super::record), each at a multiple of [`UNIT`]; those of one
//! fold start at a multiple of [`BLOCK`], so that they are written past the page cache. An entry of
//! a run says with a [`Locator`] where a record is.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{self, Stored};
use crate::disk::{AlignedBuffer, BLOCK, Caching, Disk, DiskFile};
use crate::error::{Error, ErrorKind, Result};
use crate::transition::Record;

/// What the offsets and lengths of records are multiples of.
const UNIT: usize = 16;
/// What is gathered before it is written.
const WRITE_BYTES: usize = 1 << 20;

const PREFIX: &str = "records-";

/// The file of the bucket that ends then.
fn name(bucket_end: u64) -> String {
    format!("{PREFIX}{bucket_end:016x}")
}

/// The end of the bucket whose record file has this name.
pub(super) fn bucket_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Where a record is in its file, in units: 40 bits of offset, 24 bits of length. Of two records of
/// one key in one file the newer has the greater locator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Locator(pub(super) u64);

impl Locator {
    const LEN_BITS: u32 = 24;

    /// Both in bytes and multiples of [`UNIT`]. `None` behind 16 TiB, or for 256 MiB.
    fn new(offset: u64, len: usize) -> Option<Self> {
        let (offset, len) = (offset / UNIT as u64, (len / UNIT) as u64);
        let fits = offset >> (64 - Self::LEN_BITS) == 0 && len >> Self::LEN_BITS == 0;
        fits.then_some(Self(offset << Self::LEN_BITS | len))
    }

    pub(super) fn offset(self) -> u64 {
        (self.0 >> Self::LEN_BITS) * UNIT as u64
    }

    pub(super) fn len(self) -> usize {
        (self.0 & ((1 << Self::LEN_BITS) - 1)) as usize * UNIT
    }
}

/// The seed of the checksum of a record, from that of the store, its file and its place there. The
/// length is the record's own to state.
fn record_seed(seed: u64, bucket_end: u64, offset: u64) -> u64 {
    seed ^ bucket_end.rotate_left(32) ^ offset
}

/// What is freed of a removed file at once.
const SHRINK_BYTES: u64 = 64 << 20;

/// An open record file. Any number of threads may read it, also after it was removed.
#[derive(Debug)]
pub(super) struct RecordFile {
    bucket_end: u64,
    file: Arc<dyn DiskFile>,
}

impl RecordFile {
    fn open(disk: &dyn Disk, dir: &Path, bucket_end: u64) -> Result<Self> {
        let name = name(bucket_end);
        let file =
            disk.open(&dir.join(&name), Caching::Buffered).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    Error::caused_by(ErrorKind::Corrupted, format!("{name} is missing"), error)
                }
                _ => Error::io(format!("opening {name}"), error),
            })?;
        Ok(Self { bucket_end, file })
    }

    /// The stored form of the record that an entry lists, and at most 15 bytes more.
    pub(super) fn bytes(&self, locator: Locator) -> Result<Vec<u8>> {
        let mut bytes = vec![0; locator.len()];
        self.read(locator.offset(), &mut bytes)?;
        Ok(bytes)
    }

    /// Reads and verifies the record that an entry lists.
    pub(super) fn record(&self, locator: Locator, seed: u64) -> Result<Stored> {
        self.decode(&self.bytes(locator)?, locator, seed)
    }

    /// Verifies the bytes of the record that an entry lists.
    pub(super) fn decode(&self, bytes: &[u8], locator: Locator, seed: u64) -> Result<Stored> {
        let stored = record::decode(bytes, record_seed(seed, self.bucket_end, locator.offset()))?;
        if stored.len.next_multiple_of(UNIT) != bytes.len() {
            return Err(Error::corrupted("a record is not as long as its entry says"));
        }
        Ok(stored)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, buffer).map_err(|error| {
            let name = name(self.bucket_end);
            match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::corrupted(format!("{name} is cut short")),
                _ => Error::io(format!("reading {name}"), error),
            }
        })
    }

    /// Cuts off what lies behind `end`.
    pub(super) fn cut(&self, end: u64) -> Result<()> {
        let cut = self.file.set_len(end);
        cut.map_err(|error| Error::io(format!("cutting {}", name(self.bucket_end)), error))
    }

    /// Gives the last bytes of a removed file back to the filesystem, which for all of a large file at
    /// once takes long, and holds up whoever syncs another; gives whether some are left.
    pub(super) fn shrink(&self) -> bool {
        let left = self.file.len().unwrap_or(0).saturating_sub(SHRINK_BYTES);
        // What can not be cut goes when the file is closed.
        left > 0 && self.file.set_len(left).is_ok()
    }

    /// Copies what lies before `end` into a new file of the same name in `target`. Durable, but for its name.
    pub(super) fn copy_to(&self, disk: &dyn Disk, target: &Path, end: u64) -> Result<()> {
        let name = name(self.bucket_end);
        let failed = |error| Error::io(format!("writing the copy of {name}"), error);
        let copy = disk.create(&target.join(&name), Caching::Buffered).map_err(failed)?;
        let mut buffer = vec![0; WRITE_BYTES];
        let mut offset = 0;
        while offset < end {
            let len = (end - offset).min(WRITE_BYTES as u64) as usize;
            self.read(offset, &mut buffer[..len])?;
            copy.write_at(offset, &buffer[..len]).map_err(failed)?;
            offset += len as u64;
        }
        copy.sync().map_err(failed)
    }
}

/// The record files that are open, by the end of their bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct RecordFiles(BTreeMap<u64, Arc<RecordFile>>);

impl RecordFiles {
    /// Opens the files of these buckets.
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &Path,
        buckets: impl Iterator<Item = u64>,
    ) -> Result<Self> {
        let mut files = Self::default();
        for bucket_end in buckets {
            let file = RecordFile::open(disk, dir, bucket_end)?;
            files.0.insert(bucket_end, Arc::new(file));
        }
        Ok(files)
    }

    pub(super) fn get(&self, bucket_end: u64) -> Result<&RecordFile> {
        let file = self.0.get(&bucket_end);
        file.map(|file| &**file)
            .ok_or_else(|| Error::corrupted(format!("{} is not open", name(bucket_end))))
    }

    /// Opens the file of a bucket that may not have one yet.
    pub(super) fn create(&mut self, disk: &dyn Disk, dir: &Path, bucket_end: u64) -> Result<()> {
        if self.0.contains_key(&bucket_end) {
            return Ok(());
        }
        let name = name(bucket_end);
        let path = dir.join(&name);
        let created = match disk.create(&path, Caching::Buffered) {
            // By a fold that did not commit.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.open(&path, Caching::Buffered)
            }
            created => created,
        };
        let file = created.map_err(|error| Error::io(format!("creating {name}"), error))?;
        self.0.insert(bucket_end, Arc::new(RecordFile { bucket_end, file }));
        Ok(())
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = u64> {
        self.0.keys().copied()
    }

    /// Takes the file out. It is closed once its last reader has let go of it.
    pub(super) fn take(&mut self, bucket_end: u64) -> Option<Arc<RecordFile>> {
        self.0.remove(&bucket_end)
    }
}

/// Removes the record file of a bucket. That it is gone already is fine.
pub(super) fn remove(disk: &dyn Disk, dir: &Path, bucket_end: u64) -> Result<()> {
    let name = name(bucket_end);
    match disk.remove(&dir.join(&name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {name}"), error))
        }
        _ => Ok(()),
    }
}

/// Appends the records of one fold to a file.
pub(super) struct Appender {
    path: PathBuf,
    bucket_end: u64,
    seed: u64,
    file: Arc<dyn DiskFile>,
    /// Where the buffer goes.
    offset: u64,
    buffer: AlignedBuffer,
}

impl Appender {
    /// `start` is the end of what the file holds, a multiple of [`BLOCK`].
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &Path,
        bucket_end: u64,
        start: u64,
        seed: u64,
    ) -> Result<Self> {
        let path = dir.join(name(bucket_end));
        let file = disk
            .open(&path, Caching::Direct)
            .map_err(|error| Error::io(format!("opening {}", path.display()), error))?;
        let buffer = AlignedBuffer::default();
        Ok(Self { path, bucket_end, seed, file, offset: start, buffer })
    }

    pub(super) fn push(&mut self, sequence: u64, record: &Record) -> Result<Locator> {
        let start = self.buffer.len();
        let offset = self.offset + start as u64;
        let seed = record_seed(self.seed, self.bucket_end, offset);
        record::encode(&mut self.buffer, seed, sequence, record);
        let len = self.buffer.len() - start;
        let padding = len.next_multiple_of(UNIT) - len;
        self.buffer.extend(&[0; UNIT][..padding]);
        let locator = Locator::new(offset, len + padding).ok_or_else(|| {
            Error::new(ErrorKind::StoreFull, format!("{} is too long", self.path.display()))
        })?;
        if self.buffer.len() >= WRITE_BYTES {
            self.write_blocks().map_err(|error| self.failed(error))?;
        }
        Ok(locator)
    }

    /// Makes all of it durable, but for the file's name. Gives the end of what the file holds now.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.buffer.pad();
        self.write_blocks()
            // Exactly this long, whatever an earlier fold left; and dirty, though a sync that failed may
            // have dropped a length that the page cache still shows.
            .and_then(|()| self.file.set_len(self.offset))
            .and_then(|()| self.file.sync())
            .map_err(|error| self.failed(error))?;
        Ok(self.offset)
    }

    /// Writes the whole blocks of the buffer, and keeps the rest.
    fn write_blocks(&mut self) -> io::Result<()> {
        let len = self.buffer.len() / BLOCK * BLOCK;
        self.file.write_at(self.offset, &self.buffer[..len])?;
        let rest = self.buffer[len..].to_vec();
        self.buffer.clear();
        self.buffer.extend(&rest);
        self.offset += len as u64;
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io(format!("writing {}", self.path.display()), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_a_place_changes_the_seed_of_its_checksum() {
        for seed in [0, u64::MAX] {
            let here = record_seed(seed, 0, 0);
            for bit in (0..64).map(|bit| 1 << bit) {
                assert_ne!(record_seed(seed, bit, 0), here);
                assert_ne!(record_seed(seed, 0, bit), here);
                assert_ne!(record_seed(seed ^ bit, 0, 0), here);
            }
        }
    }
}
