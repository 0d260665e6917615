//! Reading: an immutable view of the store as one commit left it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use super::FILE;
use super::catalog::{Catalog, FilterSlot, OpenEntry, OpenIndex, Run};
use super::file_set::{FileName, Files};
use super::record_file::{Locator, Records};
use super::redb::storage::failed;
use super::redb::tables::Tables;
use super::run::block_cache::{BlockCache, BlockId};
use super::run::filter::part;
use super::run::{self, Block, RunReader};
use crate::backend::reports::Bucket;
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, Result};
use crate::base::sync::Swap;
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::{StoredCheckpoint, Versioned};
use crate::semantics::record_codec::Stored;
use crate::semantics::time::Time;

/// The store as one commit left it. Never changes; any number of threads may read it.
///
/// While a view lives, redb keeps the pages of its commit: use it and drop it.
pub(crate) struct View {
    pub(super) tables: Arc<Tables>,
    pub(super) seed: u64,
    /// Newest first.
    pub(super) runs: Vec<Run>,
    /// At least the listed files.
    pub(super) files: Arc<Files>,
    blocks: Arc<BlockCache>,
    pub(super) open: Arc<OpenIndex>,
    open_bytes: u64,
}

impl View {
    pub(super) fn new(
        tables: Arc<Tables>,
        files: Arc<Files>,
        blocks: Arc<BlockCache>,
        catalog: &Catalog,
    ) -> Self {
        let runs = catalog.runs.values().rev().cloned().collect();
        let (seed, open) = (catalog.state.seed, catalog.open.clone());
        Self { tables, seed, runs, files, blocks, open, open_bytes: catalog.open_bytes }
    }

    /// The newest record of the key, whatever its expiry. A record that cannot be verified is an
    /// error, never "absent".
    pub(crate) fn get(&self, hash: KeyHash, key: &Key) -> Result<Option<Versioned>> {
        self.tables.watch.guarded(|| {
            // An open record is newer than any record of its key in runs: the fold that stores a
            // completed record removes the key's open one.
            let stored = if let Some(entry) = self.open.get(&hash) {
                self.open_record(hash, entry)?
            } else if let Some(completed) = self.newest_completed(hash)? {
                completed
            } else {
                return Ok(None);
            };
            if stored.record.key != *key {
                return Err(Error::corrupted("the record found for a key is another key's"));
            }
            Ok(Some(stored.into()))
        })
    }

    /// All records in flight or orphaned.
    pub(crate) fn open_records(&self) -> Result<Vec<(KeyHash, Versioned)>> {
        self.tables.watch.guarded(|| {
            let record = |(hash, entry): (&KeyHash, &OpenEntry)| {
                Ok((*hash, self.open_record(*hash, entry)?.into()))
            };
            self.open.iter().map(record).collect()
        })
    }

    /// The bytes of a checkpoint. `None` when the view does not have it: it is damaged, or the key
    /// has another checkpoint by now.
    pub(crate) fn checkpoint(
        &self,
        hash: KeyHash,
        expected: StoredCheckpoint,
    ) -> Result<Option<SharedBytes>> {
        let tables = &self.tables;
        tables.watch.guarded(|| tables.checkpoint(hash, expected, self.seed))
    }

    /// The names of the files that the store needs.
    pub(crate) fn file_names(&self) -> BTreeSet<String> {
        let of_run =
            |run: &Run| [FileName::Run(run.meta.id), FileName::Records(run.meta.bucket_end)];
        let listed = self.runs.iter().flat_map(of_run).map(|name| name.to_string());
        listed.chain([FILE.to_owned()]).collect()
    }

    /// The bytes of the records in flight and orphaned, checkpoints included.
    pub(crate) fn open_bytes(&self) -> u64 {
        self.open_bytes
    }

    /// How many of the open records are orphans: those that expire.
    pub(crate) fn orphans(&self) -> u64 {
        self.open.values().filter(|entry| entry.expires_at.is_some()).count() as u64
    }

    /// Whether the key has an orphan.
    pub(crate) fn has_orphan(&self, hash: KeyHash) -> bool {
        self.open.get(&hash).is_some_and(|entry| entry.expires_at.is_some())
    }

    /// Whether an orphan has expired, which the next fold removes.
    pub(crate) fn has_expired_orphans(&self, now: Time) -> bool {
        self.open.values().any(|entry| entry.expires_at.is_some_and(|expiry| expiry <= now))
    }

    /// The completed records by the end of their bucket.
    pub(crate) fn buckets(&self) -> Vec<Bucket> {
        // For each bucket: the number of records, the end of its record file, and the bytes of its
        // runs.
        let mut buckets: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
        for Run { meta, .. } in &self.runs {
            let (records, end, runs) = buckets.entry(meta.bucket_end).or_default();
            *records += u64::from(meta.entries);
            *end = meta.end.max(*end);
            *runs += run::file_len(meta);
        }
        let bucket = |(end, (records, file, runs)): (u64, (u64, u64, u64))| {
            Bucket::new(Time(end).to_wall(), records, file + runs)
        };
        buckets.into_iter().map(bucket).collect()
    }

    /// The entries of all runs: completed records, expired ones not yet swept included.
    pub(crate) fn entries(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.meta.entries)).sum()
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.len()
    }

    fn newest_completed(&self, hash: KeyHash) -> Result<Option<Stored>> {
        self.newest_of(&self.entries_of(hash)?)
    }

    /// The newest of the records that these entries of one hash list.
    pub(super) fn newest_of(&self, entries: &[(u64, Locator)]) -> Result<Option<Stored>> {
        let mut newest: Option<Stored> = None;
        for &(bucket_end, locator) in entries {
            let stored = Records::of(&self.files, bucket_end, self.seed)?.record(locator)?;
            if newest.as_ref().is_none_or(|newest| newest.sequence < stored.sequence) {
                newest = Some(stored);
            }
        }
        Ok(newest)
    }

    /// The newest entry of the hash in each bucket. Two buckets have one only while an expired
    /// record of the key is not swept yet.
    fn entries_of(&self, hash: KeyHash) -> Result<Vec<(u64, Locator)>> {
        let mut entries: Vec<(u64, Locator)> = Vec::new();
        for run in &self.runs {
            if let FilterSlot::Loaded(filter) = &run.filter
                && !filter.may_contain(hash)
            {
                continue;
            }
            let meta = &run.meta;
            let found = self.block(run, part(hash, meta.blocks))?.find(hash, meta.blocks);
            let Some(locator) = found else { continue };
            add_entry(&mut entries, meta.bucket_end, locator);
        }
        Ok(entries)
    }

    fn block(&self, run: &Run, number: u32) -> Result<Arc<Block>> {
        let id = BlockId(run.meta.id, number);
        if let Some(block) = self.blocks.get(id) {
            return Ok(block);
        }
        let block = self.read_block(run, number)?;
        self.blocks.insert(id, block.clone());
        Ok(block)
    }

    /// A block that is not kept in the cache: a scan reads it only once.
    pub(super) fn passing_block(&self, run: &Run, number: u32) -> Result<Arc<Block>> {
        if let Some(block) = self.blocks.get(BlockId(run.meta.id, number)) {
            return Ok(block);
        }
        self.read_block(run, number)
    }

    fn read_block(&self, run: &Run, number: u32) -> Result<Arc<Block>> {
        let reader = RunReader::of(&self.files, &run.meta, self.seed)?;
        Ok(Arc::new(reader.block(number, run.starts.as_ref())?))
    }

    fn open_record(&self, hash: KeyHash, entry: &OpenEntry) -> Result<Stored> {
        let row = self.tables.open.get(hash.0).map_err(failed)?;
        let row = row.ok_or_else(|| Error::corrupted("an open record is missing"))?;
        entry.decode(hash, row.value(), self.seed)
    }
}

/// Adds an entry of a hash. Of the entries in one bucket the newest counts.
pub(super) fn add_entry(entries: &mut Vec<(u64, Locator)>, bucket_end: u64, locator: Locator) {
    match entries.iter_mut().find(|(of, _)| *of == bucket_end) {
        Some((_, newest)) => *newest = locator.max(*newest),
        None => entries.push((bucket_end, locator)),
    }
}

/// The place where readers get the current view. Clones share it.
#[derive(Clone)]
pub(crate) struct CurrentView(Arc<Swap<View>>);

impl CurrentView {
    pub(super) fn new(view: View) -> Self {
        Self(Arc::new(Swap::new(Arc::new(view))))
    }

    /// The view of the last commit that returned before the call.
    pub(crate) fn current(&self) -> Arc<View> {
        self.0.load().clone()
    }

    /// The same, for brief use.
    pub(crate) fn load(&self) -> impl Deref<Target = Arc<View>> + use<> {
        self.0.load()
    }

    pub(super) fn set(&self, view: View) {
        drop(self.0.swap(Arc::new(view)));
    }
}
