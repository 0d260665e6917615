//! Chunks: completed records packed into values that just fill a redb page.
//!
//! A chunk is records in their [stored form](super::record), one after the other. An entry of a
//! run says where a record is with a [`Locator`]; a chunk never changes and a record never moves.

use super::record::{self, Stored};
use super::schema::value_of_page;
use crate::error::{Error, Result};
use crate::transition::Record;

/// The most bytes of a chunk of several records: what a page of 16 KiB takes behind its key. A
/// record that is larger by itself gets a chunk of its own, and the page that it needs.
pub(super) const CHUNK_BYTES: usize = value_of_page(16 * 1024, 16);

/// Where a record is: 48 bits of chunk, 16 bits of offset. Of two records of one key the newer has
/// the greater locator, because chunks are numbered by fold and a fold has one record for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Locator(pub(super) u64);

impl Locator {
    pub(super) fn chunk(self) -> u64 {
        self.0 >> 16
    }

    pub(super) fn offset(self) -> usize {
        usize::from(self.0 as u16)
    }

    /// The seed of the checksum of the record there.
    pub(super) fn seed(self, seed: u64) -> u64 {
        seed ^ self.0
    }
}

/// The chunk that records are being packed into. One buffer serves all chunks of a fold.
#[derive(Debug)]
pub(super) struct ChunkWriter {
    seed: u64,
    id: u64,
    bytes: Vec<u8>,
}

impl ChunkWriter {
    /// Chunks get the ids from `next` on.
    pub(super) fn new(seed: u64, next: u64) -> Self {
        Self { seed, id: next, bytes: Vec::with_capacity(CHUNK_BYTES) }
    }

    pub(super) fn fits(&self, record: &Record) -> bool {
        self.bytes.is_empty() || self.bytes.len() + record::encoded_len(record) <= CHUNK_BYTES
    }

    pub(super) fn push(&mut self, sequence: u64, record: &Record) -> Locator {
        debug_assert!(self.fits(record));
        // Every offset is below `CHUNK_BYTES`, hence below 2^16; ids reach 2^48 after 4 EiB.
        let locator = Locator(self.id << 16 | self.bytes.len() as u64);
        record::encode(&mut self.bytes, locator.seed(self.seed), sequence, record);
        locator
    }

    /// Hands the chunk, if it has records, to `store` with its id, and begins the next.
    pub(super) fn flush(&mut self, store: impl FnOnce(u64, &[u8]) -> Result<()>) -> Result<()> {
        if !self.bytes.is_empty() {
            store(self.id, &self.bytes)?;
            self.bytes.clear();
            self.id += 1;
        }
        Ok(())
    }

    /// The id of the chunk that would be written next.
    pub(super) fn next_id(&self) -> u64 {
        self.id
    }
}

/// The record at `locator` in its chunk.
pub(super) fn record_at(chunk: &[u8], locator: Locator, seed: u64) -> Result<Stored> {
    let bytes = chunk
        .get(locator.offset()..)
        .ok_or_else(|| Error::corrupted("a chunk ends before a record that is listed in it"))?;
    record::decode(bytes, locator.seed(seed))
}

/// Verifies every record of a chunk.
pub(super) fn verify(chunk: &[u8], id: u64, seed: u64) -> Result<()> {
    let mut offset = 0;
    while offset < chunk.len() {
        let Ok(place) = u16::try_from(offset) else {
            return Err(Error::corrupted("a chunk has a record beyond its reach"));
        };
        offset += record_at(chunk, Locator(id << 16 | u64::from(place)), seed)?.len;
    }
    Ok(())
}
