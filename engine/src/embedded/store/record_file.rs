//! Record files: the completed records, one [file](super::file_set) for each expiry bucket.
//!
//! A fold appends records to the files of their buckets, and syncs the files before its transaction
//! begins. The bytes before the end that the runs of a bucket state
//! ([`RunMeta::end`](super::schema::RunMeta)) never change. Bytes behind it are left over from a
//! fold that did not commit, and the next fold overwrites them. A file is removed once its bucket
//! has no run.
//!
//! Records are in their [stored form](crate::semantics::record_codec), each at a multiple of
//! [`UNIT`]. The records of one fold start at a multiple of [`BLOCK`], so that they are written
//! past the page cache. A [`Locator`] in an entry of a run tells the place of a record.

use super::file_set::{COPY_BYTES, FileName, Files, NewFile, Opener, StoredFile};
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::embedded::disk::{AlignedBuffer, BLOCK, Caching};
use crate::semantics::record::Record;
use crate::semantics::record_codec::{self, Stored};

/// Offsets and lengths of records are multiples of this.
pub(super) const UNIT: usize = 16;
/// The bytes that are gathered before a write: few, because the journal waits behind it.
const WRITE_BYTES: usize = 128 << 10;

/// Where a record is in its file, in units: 40 bits of offset, 24 bits of length. Of two records of
/// one key in one file the newer has the greater locator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Locator(pub(super) u64);

impl Locator {
    const LEN_BITS: u32 = 24;

    /// Both are in bytes and multiples of [`UNIT`]. `None` from an offset of 16 TiB or a length of
    /// 256 MiB on.
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

/// The seed of a record's checksum: from the seed of the store, the file and the offset. The record
/// itself contains its length.
pub(super) fn record_seed(seed: u64, bucket_end: u64, offset: u64) -> u64 {
    seed ^ bucket_end.rotate_left(32) ^ offset
}

/// The records of one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Records<'a> {
    bucket_end: u64,
    file: &'a StoredFile,
    seed: u64,
}

impl<'a> Records<'a> {
    pub(super) fn of(files: &'a Files, bucket_end: u64, seed: u64) -> Result<Self> {
        Ok(Self { bucket_end, file: files.get(FileName::Records(bucket_end))?, seed })
    }

    /// The stored form of the record that an entry lists, and at most 15 bytes more.
    pub(super) fn bytes(&self, locator: Locator) -> Result<SharedBytes> {
        SharedBytes::filled(locator.len(), |bytes| self.file.read(locator.offset(), bytes))
    }

    /// Reads and verifies the record that an entry lists.
    pub(super) fn record(&self, locator: Locator) -> Result<Stored> {
        self.decode(&self.bytes(locator)?, locator)
    }

    /// Verifies the bytes of the record that an entry lists.
    pub(super) fn decode(&self, bytes: &SharedBytes, locator: Locator) -> Result<Stored> {
        let seed = record_seed(self.seed, self.bucket_end, locator.offset());
        let stored = record_codec::decode(bytes, seed)?;
        if stored.len.next_multiple_of(UNIT) != bytes.len() {
            return Err(Error::corrupted("a record is not as long as its entry says"));
        }
        Ok(stored)
    }
}

/// The records of one bucket for a walk over all of them: they are read in pieces, and in the order of
/// their places.
pub(super) struct InOrder<'a> {
    records: Records<'a>,
    /// The end of the records that the walk asks for.
    end: u64,
    /// The piece that was read last, and its place.
    start: u64,
    piece: Vec<u8>,
}

impl<'a> InOrder<'a> {
    pub(super) fn of(records: Records<'a>, end: u64) -> Self {
        Self { records, end, start: 0, piece: Vec::new() }
    }

    /// As [`Records::bytes`]. A piece that cannot be read leaves each of its records to a read of its
    /// own.
    pub(super) fn bytes(&mut self, locator: Locator) -> Result<SharedBytes> {
        if self.held(locator).is_none() {
            let len = (self.end.saturating_sub(locator.offset())).min(COPY_BYTES);
            self.start = locator.offset();
            self.piece.resize(len as usize, 0);
            if self.records.file.read(self.start, &mut self.piece).is_err() {
                self.piece.clear();
            }
        }
        match self.held(locator) {
            Some(held) => SharedBytes::filled(held.len(), |bytes| {
                bytes.copy_from_slice(held);
                Ok(())
            }),
            None => self.records.bytes(locator),
        }
    }

    fn held(&self, locator: Locator) -> Option<&[u8]> {
        let from = usize::try_from(locator.offset().checked_sub(self.start)?).ok()?;
        self.piece.get(from..from.checked_add(locator.len())?)
    }
}

/// Appends the records of one fold to a file.
pub(super) struct Appender {
    bucket_end: u64,
    seed: u64,
    file: NewFile,
    /// The place of the buffer in the file.
    offset: u64,
    buffer: AlignedBuffer,
}

impl Appender {
    /// `start` is the end of the records in the file, a multiple of [`BLOCK`].
    pub(super) fn open(opener: &Opener, bucket_end: u64, start: u64, seed: u64) -> Result<Self> {
        let file = opener.create(FileName::Records(bucket_end), Caching::Direct)?;
        let buffer = AlignedBuffer::default();
        Ok(Self { bucket_end, seed, file, offset: start, buffer })
    }

    pub(super) fn push(&mut self, sequence: u64, record: &Record) -> Result<Locator> {
        let start = self.buffer.len();
        let offset = self.offset + start as u64;
        let seed = record_seed(self.seed, self.bucket_end, offset);
        record_codec::encode(&mut self.buffer, seed, sequence, record);
        let len = self.buffer.len() - start;
        let padding = len.next_multiple_of(UNIT) - len;
        self.buffer.extend(&[0; UNIT][..padding]);
        let locator = Locator::new(offset, len + padding).ok_or_else(|| {
            let name = FileName::Records(self.bucket_end);
            Error::new(ErrorKind::StoreFull, format!("{name} is too long"))
        })?;
        if self.buffer.len() >= WRITE_BYTES {
            self.write_blocks()?;
        }
        Ok(locator)
    }

    /// Makes the records durable, but not the file's name. Returns the new end of the records.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.buffer.pad();
        self.write_blocks()?;
        // Sets the exact length, whatever an earlier fold left. It also makes the length dirty: a
        // failed sync may have dropped a length that the page cache still shows.
        self.file.cut(self.offset)?;
        self.file.sync()?;
        Ok(self.offset)
    }

    /// Writes the whole blocks of the buffer, and keeps the rest.
    fn write_blocks(&mut self) -> Result<()> {
        let len = self.buffer.len() / BLOCK * BLOCK;
        self.file.write(self.offset, &self.buffer[..len])?;
        let rest = self.buffer[len..].to_vec();
        self.buffer.clear();
        self.buffer.extend(&rest);
        self.offset += len as u64;
        Ok(())
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
