//! Runs: sorted, immutable indexes from hash to locator, each in a [file](crate::embedded::store::file_set) of its own.
//!
//! The blocks of a run divide the range of hashes into equal shares. So a hash alone determines its
//! block, and the number of blocks in the catalog ensures that they cover the whole range. Every
//! block is stored, even an empty one, and names its run and its number. A missing block, or
//! another in its place, is corruption, never "absent".
//!
//! ```text
//! blocks × (checksum u64 | run u64 | block u32 | blocks u32 | count u32 | count × (hash u128, locator u64))
//! | starts: checksum u64 | run u64 | (blocks + 1) × u32, the entries before each block, and of all
//! | the filter's pieces
//! ```
//! The starts tell the place of each block in the file. They are used without their checksum until
//! they are loaded: a block that is read from a wrong place fails its own checks.

pub(crate) mod block_cache;
pub(crate) mod filter;

use std::fmt;
use std::sync::Arc;

use self::filter::{Filter, part};
use crate::base::bytes::Hidden;
use crate::base::codec::{Decoder, Encode, checksum, seal};
use crate::base::error::{Error, Result};
use crate::embedded::disk::Directory;
use crate::embedded::store::file_set::{Copied, FileName, Files, NewFile, StoredFile};
use crate::embedded::store::record_file::Locator;
use crate::embedded::store::schema::RunMeta;
use crate::semantics::key::KeyHash;

/// Entries of a block on average: with its head about 3.4 KB.
const ENTRIES_PER_BLOCK: u32 = 140;
/// No block has more: hashes are uniform, and the count of a block varies by about 12.
const MOST_ENTRIES: u32 = 4096;
const HEAD: usize = 28;
const ENTRY: usize = 24;
const STARTS_HEAD: usize = 16;
/// Keeps the checksum of the starts apart from those of other values.
const STARTS_SEED: u64 = 0x7374_6172;
/// The bytes that are gathered before a write.
const WRITE_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) hash: KeyHash,
    pub(crate) locator: Locator,
}

/// The number of blocks of a run with `entries` entries.
pub(crate) fn blocks_for(entries: u32) -> u32 {
    entries.div_ceil(ENTRIES_PER_BLOCK).max(1)
}

/// A verified block.
#[derive(Clone)]
pub(crate) struct Block {
    bytes: Vec<u8>,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Block").field(&Hidden(&self.bytes)).finish()
    }
}

impl Block {
    pub(crate) fn decode(bytes: Vec<u8>, run: &RunMeta, block: u32, seed: u64) -> Result<Self> {
        let damaged = |how| {
            Error::corrupted(format!("block {block} of {} of run {} {how}", run.blocks, run.id))
        };
        let mut decoder = Decoder::new(&bytes);
        if decoder.u64()? != checksum(seed, &bytes[8..]) {
            return Err(damaged("fails its checksum"));
        }
        if (decoder.u64()?, decoder.u32()?, decoder.u32()?) != (run.id, block, run.blocks) {
            return Err(damaged("is another's"));
        }
        if decoder.u32()? as usize * ENTRY != decoder.remaining() {
            return Err(damaged("has another size"));
        }
        Ok(Self { bytes })
    }

    /// Its stored form.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn find(&self, hash: KeyHash, blocks: u32) -> Option<Locator> {
        let entries = self.slice();
        // Hashes are uniform: a hash is about as far among the entries as in the block's share of
        // the range.
        let within = ((hash.0 >> 64) as u64).wrapping_mul(u64::from(blocks));
        let guess = (u128::from(within) * entries.len() as u128) >> 64;
        let (before, behind) = entries.split_at(guess as usize);
        let near = match behind.first() {
            Some(entry) if entry_of(entry).hash <= hash => {
                behind.iter().map(entry_of).find(|entry| entry.hash >= hash)
            }
            _ => before.iter().rev().map(entry_of).find(|entry| entry.hash <= hash),
        };
        near.filter(|entry| entry.hash == hash).map(|entry| entry.locator)
    }

    pub(crate) fn entry(&self, position: usize) -> Option<Entry> {
        self.slice().get(position).map(entry_of)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.slice().iter().map(entry_of)
    }

    fn slice(&self) -> &[[u8; ENTRY]] {
        // `decode` has checked that no byte is left over.
        self.bytes[HEAD..].as_chunks().0
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

/// For each block of a run the number of entries before it; at the end the number of all entries.
pub(crate) type Starts = Arc<[u32]>;

/// The place of a run's starts in its file.
fn starts_at(meta: &RunMeta) -> u64 {
    u64::from(meta.blocks) * HEAD as u64 + u64::from(meta.entries) * ENTRY as u64
}

fn filter_at(meta: &RunMeta) -> u64 {
    starts_at(meta) + STARTS_HEAD as u64 + (u64::from(meta.blocks) + 1) * 4
}

/// The length of a run's file.
pub(crate) fn file_len(meta: &RunMeta) -> u64 {
    filter_at(meta) + filter::stored_len(meta.lines)
}

/// Reads a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunReader<'a> {
    meta: &'a RunMeta,
    file: &'a StoredFile,
    seed: u64,
}

impl<'a> RunReader<'a> {
    pub(crate) fn of(files: &'a Files, meta: &'a RunMeta, seed: u64) -> Result<Self> {
        Ok(Self { meta, file: files.get(FileName::Run(meta.id))?, seed })
    }

    /// Reads and verifies a block.
    pub(crate) fn block(&self, block: u32, starts: Option<&Starts>) -> Result<Block> {
        let (start, end) = match starts {
            Some(starts) => (starts[block as usize], starts[block as usize + 1]),
            None => self.bounds(block)?,
        };
        let count = end.checked_sub(start).filter(|count| *count <= MOST_ENTRIES);
        let count = count.ok_or_else(|| self.damaged("lists a block with no size"))?;
        let offset = u64::from(block) * HEAD as u64 + u64::from(start) * ENTRY as u64;
        let mut bytes = vec![0; HEAD + count as usize * ENTRY];
        self.file.read(offset, &mut bytes)?;
        Block::decode(bytes, self.meta, block, self.seed)
    }

    /// Where a block starts and ends, not verified.
    fn bounds(&self, block: u32) -> Result<(u32, u32)> {
        let mut bytes = [0; 8];
        self.file
            .read(starts_at(self.meta) + STARTS_HEAD as u64 + u64::from(block) * 4, &mut bytes)?;
        let mut decoder = Decoder::new(&bytes);
        Ok((decoder.u32()?, decoder.u32()?))
    }

    pub(crate) fn starts(&self) -> Result<Starts> {
        let mut bytes = vec![0; STARTS_HEAD + (self.meta.blocks as usize + 1) * 4];
        self.file.read(starts_at(self.meta), &mut bytes)?;
        let mut decoder = Decoder::new(&bytes);
        let sum = checksum(self.seed ^ STARTS_SEED, &bytes[8..]);
        if (decoder.u64()?, decoder.u64()?) != (sum, self.meta.id) {
            return Err(self.damaged("fails the checksum of its starts"));
        }
        (0..=self.meta.blocks).map(|_| decoder.u32()).collect()
    }

    pub(crate) fn filter(&self) -> Result<Filter> {
        let mut filter = Filter::new(self.meta.lines);
        let mut offset = filter_at(self.meta);
        let mut bytes = Vec::new();
        for piece in 0..filter::pieces(self.meta.lines) {
            bytes.resize(filter::piece_len(piece, self.meta.lines), 0);
            self.file.read(offset, &mut bytes)?;
            filter.decode_piece(piece, self.meta.id, self.seed, &bytes)?;
            offset += bytes.len() as u64;
        }
        Ok(filter)
    }

    /// Copies the file. The copy is durable, its name is not.
    pub(crate) fn copy_to(&self, target: &dyn Directory, copied: &mut Copied<'_>) -> Result<()> {
        self.file.copy_to(target, file_len(self.meta), copied)
    }

    fn damaged(&self, how: &str) -> Error {
        Error::corrupted(format!("run {} {how}", self.meta.id))
    }
}

/// A run whose file is durable, but not the file's name.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) meta: RunMeta,
    pub(crate) starts: Starts,
    pub(crate) filter: Arc<Filter>,
}

/// Writes a run from entries in order of their hashes.
#[derive(Debug)]
pub(crate) struct RunWriter {
    /// `entries` is the expected number until [`finish`](Self::finish).
    meta: RunMeta,
    seed: u64,
    filter: Filter,
    starts: Vec<u32>,
    entries: u32,
    /// The place of the buffer in the file.
    offset: u64,
    buffer: Vec<u8>,
    /// The start, in the buffer, of the block that is being filled. The head of the block is not
    /// made yet.
    block: usize,
    file: NewFile,
}

impl RunWriter {
    /// `meta.blocks` and `meta.lines` are set for at most `meta.entries` entries.
    pub(crate) fn new(mut meta: RunMeta, seed: u64, file: NewFile) -> Self {
        meta.blocks = blocks_for(meta.entries);
        meta.lines = filter::lines_for(meta.entries);
        Self {
            meta,
            seed,
            filter: Filter::new(meta.lines),
            starts: vec![0],
            entries: 0,
            offset: 0,
            buffer: vec![0; HEAD],
            block: 0,
            file,
        }
    }

    pub(crate) fn meta(&self) -> &RunMeta {
        &self.meta
    }

    pub(crate) fn push(&mut self, entry: Entry) -> Result<()> {
        self.seal_blocks_before(part(entry.hash, self.meta.blocks))?;
        self.filter.insert(entry.hash);
        self.buffer.put_u128(entry.hash.0);
        self.buffer.put_u64(entry.locator.0);
        self.entries += 1;
        Ok(())
    }

    /// Makes the sealed blocks durable, so that [`finish`](Self::finish) does not take long.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let unsealed = self.buffer.split_off(self.block);
        self.write()?;
        self.buffer = unsealed;
        self.file.sync()
    }

    /// Writes the rest and makes the run durable, but not the file's name.
    pub(crate) fn finish(mut self) -> Result<Written> {
        self.seal_blocks_before(self.meta.blocks)?;
        // Without the head of a further block.
        self.buffer.truncate(self.block);
        self.meta.entries = self.entries;
        let mut starts = Vec::with_capacity(STARTS_HEAD + self.starts.len() * 4);
        starts.put_u64(0);
        starts.put_u64(self.meta.id);
        self.starts.iter().for_each(|start| starts.put_u32(*start));
        seal(&mut starts, self.seed ^ STARTS_SEED);
        self.buffer.put(&starts);
        for piece in 0..filter::pieces(self.meta.lines) {
            self.filter.encode_piece(piece, self.meta.id, self.seed, &mut self.buffer);
            self.write_if_much()?;
        }
        self.write()?;
        self.file.sync()?;
        Ok(Written { meta: self.meta, starts: self.starts.into(), filter: Arc::new(self.filter) })
    }

    /// Seals the block being filled, and empty ones after it, until `block` is the one to fill.
    fn seal_blocks_before(&mut self, block: u32) -> Result<()> {
        // `starts` has one entry for each block up to the one being filled: at most as many as
        // blocks.
        while self.starts.len() as u32 <= block {
            let number = self.starts.len() as u32 - 1;
            let count = ((self.buffer.len() - self.block - HEAD) / ENTRY) as u32;
            let mut head = Vec::with_capacity(HEAD);
            head.put_u64(0);
            head.put_u64(self.meta.id);
            head.put_u32(number);
            head.put_u32(self.meta.blocks);
            head.put_u32(count);
            let sealed = &mut self.buffer[self.block..];
            sealed[..HEAD].copy_from_slice(&head);
            seal(sealed, self.seed);
            self.starts.push(self.entries);
            self.block = self.buffer.len();
            self.write_if_much()?;
            self.buffer.put(&[0; HEAD]);
        }
        Ok(())
    }

    fn write_if_much(&mut self) -> Result<()> {
        if self.buffer.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    /// Writes the buffer. No block in it may be unsealed.
    fn write(&mut self) -> Result<()> {
        self.file.write(self.offset, &self.buffer)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        self.block = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::disk::Caching;
    use crate::embedded::store::file_set::Opener;
    use crate::embedded::store::tests::Dir;
    use crate::semantics::samples::Noise;

    const SEED: u64 = 42;

    fn meta(entries: u32) -> RunMeta {
        RunMeta { id: 7, bucket_end: 5, entries, end: 0, blocks: 0, lines: 0, level: 0 }
    }

    /// Writes a run for `expected` entries out of these.
    fn write(dir: &Dir, expected: u32, entries: &[Entry], sync_each: usize) -> (Files, Written) {
        let opener = Opener::new(dir.handle(), 8);
        let file = opener.create(FileName::Run(7), Caching::Buffered).unwrap();
        let mut files = Files::none(opener);
        files.insert(FileName::Run(7));
        let mut writer = RunWriter::new(meta(expected), SEED, file);
        for (index, entry) in entries.iter().enumerate() {
            writer.push(*entry).unwrap();
            if (index + 1) % sync_each == 0 {
                writer.sync().unwrap();
            }
        }
        (files, writer.finish().unwrap())
    }

    fn entries(hashes: impl Iterator<Item = KeyHash>) -> Vec<Entry> {
        let mut entries: Vec<_> =
            hashes.zip(1..).map(|(hash, at)| Entry { hash, locator: Locator(at) }).collect();
        entries.sort_unstable_by_key(|entry| entry.hash);
        entries
    }

    /// All are found, by the starts in memory and by those in the file, and nothing else is.
    fn check(dir: &Dir, files: &Files, run: &Written, entries: &[Entry]) {
        let Written { meta, starts, filter } = run;
        assert_eq!(meta.entries as usize, entries.len());
        let path = dir.path().join(FileName::Run(7).to_string());
        assert_eq!(std::fs::metadata(path).unwrap().len(), file_len(meta));
        let reader = RunReader::of(files, meta, SEED).unwrap();
        assert_eq!(reader.starts().unwrap(), *starts);
        let stored = reader.filter().unwrap();
        let find = |hash: KeyHash| {
            let number = part(hash, meta.blocks);
            let blocks = [Some(starts), None].map(|starts| reader.block(number, starts).unwrap());
            let [found, again] = blocks.map(|block| block.find(hash, meta.blocks));
            assert_eq!(found, again);
            assert!(found.is_none() || filter.may_contain(hash) && stored.may_contain(hash));
            found
        };
        for entry in entries {
            assert_eq!(find(entry.hash), Some(entry.locator));
            for beside in [entry.hash.0.wrapping_sub(1), entry.hash.0.wrapping_add(1)] {
                let there = entries.binary_search_by_key(&KeyHash(beside), |entry| entry.hash);
                assert_eq!(find(KeyHash(beside)).is_some(), there.is_ok());
            }
        }
        let read = (0..meta.blocks)
            .flat_map(|number| reader.block(number, None).unwrap().entries().collect::<Vec<_>>());
        assert_eq!(read.collect::<Vec<_>>(), entries);
    }

    #[test]
    fn every_entry_is_found_and_nothing_else() {
        let mut noise = Noise::new(9);
        for (count, expected, sync_each) in
            [(0, 1, 1), (1, 1, 1), (1, 900, 1), (140, 140, 50), (5_000, 5_000, 33), (900, 2_000, 7)]
        {
            let dir = Dir::new();
            let entries = entries((0..count).map(|_| noise.hash()));
            let (files, run) = write(&dir, expected, &entries, sync_each);
            assert_eq!(run.meta.blocks, expected.div_ceil(140).max(1));
            check(&dir, &files, &run, &entries);
        }
    }

    /// The entries are not uniform, as hashes are: they are at both ends and side by side.
    #[test]
    fn a_block_is_searched_wherever_its_entries_are() {
        let ends = [0, 1, 2, u128::MAX - 1, u128::MAX].map(KeyHash);
        let crowd = (0..300).map(|at| KeyHash((1 << 100) + at * at));
        let entries = entries(ends.into_iter().chain(crowd));
        let dir = Dir::new();
        let (files, run) = write(&dir, 305, &entries, 400);
        check(&dir, &files, &run, &entries);
    }

    #[test]
    fn much_is_written_in_pieces() {
        let mut noise = Noise::new(10);
        let entries = entries((0..100_000).map(|_| noise.hash()));
        let dir = Dir::new();
        let (files, run) = write(&dir, 100_000, &entries, usize::MAX);
        let reader = RunReader::of(&files, &run.meta, SEED).unwrap();
        for entry in entries.iter().step_by(97) {
            let block = reader.block(part(entry.hash, run.meta.blocks), Some(&run.starts)).unwrap();
            assert_eq!(block.find(entry.hash, run.meta.blocks), Some(entry.locator));
        }
        let stored = reader.filter().unwrap();
        assert!(entries.iter().all(|entry| stored.may_contain(entry.hash)));
        assert!((0..1000).filter(|_| stored.may_contain(noise.hash())).count() < 10);
    }
}
