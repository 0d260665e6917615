//! Runs: sorted, immutable indexes from hash to locator.
//!
//! A run is blocks that partition the range of hashes into equal shares, so a hash itself says
//! which block would hold it: no index is needed, and the blocks cover the whole range because
//! there are as many as the catalog says. Every block is stored, an empty one too; one that is
//! missing or another's is corruption, never "absent".
//!
//! A block: checksum u64 | run u64 | block u32 | blocks u32 | count u32 | count × (hash u128, locator u64).

use super::backend::failed;
use super::filter::{self, Filter, part};
use super::records::Locator;
use super::schema::{Bytes, RunMeta};
use crate::codec::{Decoder, Encode, checksum};
use crate::error::{Error, Result};
use crate::key::KeyHash;

/// Entries of a block on average. A page of 4 KiB takes 168; the count of a block varies by about
/// 12, so one in a hundred takes a page of 8 KiB.
const ENTRIES_PER_BLOCK: u64 = 140;
const HEAD: usize = 28;
const ENTRY: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) hash: KeyHash,
    pub(super) locator: Locator,
}

/// The blocks that a run of `entries` has.
pub(super) fn blocks_for(entries: u64) -> u32 {
    u32::try_from(entries.div_ceil(ENTRIES_PER_BLOCK).max(1)).unwrap_or(u32::MAX)
}

/// A verified block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    entries: &'a [[u8; ENTRY]],
}

impl<'a> Block<'a> {
    pub(super) fn decode(bytes: &'a [u8], run: &RunMeta, block: u32, seed: u64) -> Result<Self> {
        let damaged = |how| {
            Error::corrupted(format!("block {block} of {} of run {} {how}", run.blocks, run.id))
        };
        let mut decoder = Decoder::new(bytes);
        if decoder.u64()? != checksum(seed, &bytes[8..]) {
            return Err(damaged("fails its checksum"));
        }
        if (decoder.u64()?, decoder.u32()?, decoder.u32()?) != (run.id, block, run.blocks) {
            return Err(damaged("is another's"));
        }
        let count = decoder.u32()? as usize;
        let (entries, rest) = decoder.take(decoder.remaining())?.as_chunks();
        if entries.len() != count || !rest.is_empty() {
            return Err(damaged("has another size"));
        }
        Ok(Self { entries })
    }

    pub(super) fn find(&self, hash: KeyHash) -> Option<Locator> {
        let index = self.entries.binary_search_by_key(&hash, |entry| entry_of(entry).hash).ok()?;
        Some(entry_of(&self.entries[index]).locator)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + use<'a> {
        self.entries.iter().map(entry_of)
    }
}

fn entry_of(bytes: &[u8; ENTRY]) -> Entry {
    let ([hash], rest) = bytes.as_chunks::<16>() else { unreachable!("24 bytes hold 16 once") };
    let mut locator = [0; 8];
    locator.copy_from_slice(rest);
    Entry {
        hash: KeyHash(u128::from_le_bytes(*hash)),
        locator: Locator(u64::from_le_bytes(locator)),
    }
}

type Rows<'a, 'txn> = &'a mut redb::Table<'txn, (u64, u32), Bytes>;

/// Writes a run from entries in order of their hashes, over as many transactions as it takes: all
/// that is not written yet is in here.
#[derive(Debug)]
pub(super) struct RunWriter {
    /// `entries` is the expected number until [`finish`](Self::finish).
    pub(super) meta: RunMeta,
    seed: u64,
    filter: Filter,
    entries: u64,
    /// The block that is being filled, its head not yet made.
    block: Vec<u8>,
    next_block: u32,
    next_piece: u32,
    piece: Vec<u8>,
}

impl RunWriter {
    /// `meta.blocks` and `meta.lines` are set for at most `meta.entries` entries.
    pub(super) fn new(mut meta: RunMeta, seed: u64) -> Self {
        meta.blocks = blocks_for(meta.entries);
        meta.lines = filter::lines_for(meta.entries);
        Self {
            meta,
            seed,
            filter: Filter::new(meta.lines),
            entries: 0,
            block: vec![0; HEAD],
            next_block: 0,
            next_piece: 0,
            piece: Vec::new(),
        }
    }

    pub(super) fn push(
        &mut self,
        entry: Entry,
        blocks: Rows<'_, '_>,
        filters: Rows<'_, '_>,
    ) -> Result<()> {
        self.write_blocks_before(part(entry.hash, self.meta.blocks), blocks)?;
        self.write_pieces_before(self.filter.piece_of(entry.hash), filters)?;
        self.filter.insert(entry.hash);
        self.block.put_u128(entry.hash.0);
        self.block.put_u64(entry.locator.0);
        self.entries += 1;
        Ok(())
    }

    /// Writes what is left, and gives the run as it is now.
    pub(super) fn finish(
        &mut self,
        blocks: Rows<'_, '_>,
        filters: Rows<'_, '_>,
    ) -> Result<RunMeta> {
        self.write_blocks_before(self.meta.blocks, blocks)?;
        self.write_pieces_before(filter::pieces(self.meta.lines), filters)?;
        self.meta.entries = self.entries;
        Ok(self.meta)
    }

    pub(super) fn into_filter(self) -> Filter {
        self.filter
    }

    /// Writes the block being filled, and empty ones after it, until `block` is the one to fill.
    fn write_blocks_before(&mut self, block: u32, rows: Rows<'_, '_>) -> Result<()> {
        while self.next_block < block {
            let count = (self.block.len() - HEAD) / ENTRY;
            let mut head = Vec::with_capacity(HEAD);
            head.put_u64(0);
            head.put_u64(self.meta.id);
            head.put_u32(self.next_block);
            head.put_u32(self.meta.blocks);
            // A run has fewer than 2^32 blocks of 140 on average; no block comes near 2^32.
            head.put_u32(count as u32);
            self.block[..HEAD].copy_from_slice(&head);
            let sum = checksum(self.seed, &self.block[8..]);
            self.block[..8].copy_from_slice(&sum.to_le_bytes());
            rows.insert((self.meta.id, self.next_block), self.block.as_slice()).map_err(failed)?;
            self.block.truncate(HEAD);
            self.next_block += 1;
        }
        Ok(())
    }

    /// Writes the pieces of the filter that no later entry can change.
    fn write_pieces_before(&mut self, piece: u32, rows: Rows<'_, '_>) -> Result<()> {
        while self.next_piece < piece {
            let next = self.next_piece;
            self.filter.encode_piece(next, self.meta.id, self.seed, &mut self.piece);
            rows.insert((self.meta.id, next), self.piece.as_slice()).map_err(failed)?;
            self.next_piece += 1;
        }
        Ok(())
    }
}
