//! Reading in the order of hashes, a page at a time: the runs and the open records, merged.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use super::catalog::Run;
use super::record_file::Locator;
use super::redb::storage::failed;
use super::run::filter::part;
use super::run::{Block, Entry};
use super::view::{View, add_entry};
use crate::backend::{ScanPage, Seen};
use crate::base::error::{Error, Result};
use crate::semantics::key::KeyHash;
use crate::semantics::record::Versioned;
use crate::semantics::time::Time;

/// The records of a page take about this much memory at most.
const PAGE_BYTES: usize = 4 << 20;

/// Some of the records of a view in the order of their hashes.
pub(crate) struct StoredPage {
    records: BTreeMap<KeyHash, Versioned>,
    /// All records up to this hash are in the page.
    through: KeyHash,
}

impl StoredPage {
    /// Puts newer records over the stored ones. All newer records up to the end of the page must be
    /// given.
    pub(crate) fn under(
        self,
        newer: impl IntoIterator<Item = (KeyHash, Versioned)>,
        most: usize,
    ) -> ScanPage {
        let Self { mut records, mut through } = self;
        records.extend(newer.into_iter().take_while(|(hash, _)| *hash <= through));
        if let Some((beyond, _)) = records.iter().nth(most) {
            let beyond = *beyond;
            drop(records.split_off(&beyond));
            through = records.last_key_value().map_or(through, |(last, _)| *last);
        }
        let seen = |(hash, versioned): (KeyHash, Versioned)| {
            versioned.record.map(|record| Seen { hash, record })
        };
        let more = through != KeyHash(u128::MAX);
        ScanPage {
            seen: records.into_iter().filter_map(seen).collect(),
            through: more.then_some(through),
        }
    }
}

impl View {
    /// The newest records after `after` and up to `through`, at most `most` of them. Records of
    /// buckets that are over at `now` are left out.
    pub(crate) fn scan(
        &self,
        after: Option<KeyHash>,
        through: KeyHash,
        most: usize,
        now: Time,
    ) -> Result<StoredPage> {
        let mut page = StoredPage { records: BTreeMap::new(), through };
        let from = after.map_or(Some(0), |after| after.0.checked_add(1));
        let Some(from) = from.filter(|from| *from <= through.0) else { return Ok(page) };
        self.tables.watch.guarded(|| {
            let mut open = self.tables.open.range(from..=through.0).map_err(failed)?;
            let mut next_open = open.next().transpose().map_err(failed)?;
            let mut runs = RunEntries::from(self, KeyHash(from), now)?;
            let mut bytes = 0;
            loop {
                let of_open = next_open.as_ref().map(|(hash, _)| KeyHash(hash.value()));
                let next = [of_open, runs.next_hash()].into_iter().flatten().min();
                let Some(hash) = next.filter(|hash| *hash <= through) else { return Ok(page) };
                let entries = runs.take(hash)?;
                // An open record is newer than any record of its key in runs.
                let stored = match &next_open {
                    Some((_, row)) if of_open == Some(hash) => {
                        let missing = || Error::corrupted("an open record is not in its index");
                        let entry = self.open.get(&hash).ok_or_else(missing)?;
                        let stored = entry.decode(hash, row.value(), self.seed)?;
                        next_open = open.next().transpose().map_err(failed)?;
                        Some(stored)
                    }
                    _ => self.newest_of(&entries)?,
                };
                let Some(stored) = stored else { continue };
                bytes += stored.record.weight();
                page.records.insert(hash, stored.into());
                if page.records.len() >= most || bytes >= PAGE_BYTES {
                    page.through = hash;
                    return Ok(page);
                }
            }
        })
    }
}

/// The entries of all runs in the order of their hashes.
struct RunEntries<'a> {
    view: &'a View,
    cursors: Vec<Cursor<'a>>,
    /// The next hash of each cursor that has one.
    next: BinaryHeap<Reverse<(KeyHash, usize)>>,
}

impl<'a> RunEntries<'a> {
    fn from(view: &'a View, from: KeyHash, now: Time) -> Result<Self> {
        let live = view.runs.iter().filter(|run| run.meta.bucket_end > now.0);
        let cursors: Vec<_> = live.map(|run| Cursor::at(run, from)).collect();
        let mut entries = Self { view, cursors, next: BinaryHeap::new() };
        for at in 0..entries.cursors.len() {
            entries.push(at, from)?;
        }
        Ok(entries)
    }

    fn push(&mut self, at: usize, from: KeyHash) -> Result<()> {
        while let Some(entry) = self.cursors[at].entry(self.view)? {
            if entry.hash >= from {
                self.next.push(Reverse((entry.hash, at)));
                break;
            }
            self.cursors[at].position += 1;
        }
        Ok(())
    }

    fn next_hash(&self) -> Option<KeyHash> {
        self.next.peek().map(|Reverse((hash, _))| *hash)
    }

    /// Goes past `hash`, and returns its newest entry in each bucket.
    fn take(&mut self, hash: KeyHash) -> Result<Vec<(u64, Locator)>> {
        let mut entries = Vec::new();
        while self.next_hash() == Some(hash)
            && let Some(Reverse((_, at))) = self.next.pop()
        {
            let cursor = &mut self.cursors[at];
            if let Some(entry) = cursor.entry(self.view)? {
                add_entry(&mut entries, cursor.run.meta.bucket_end, entry.locator);
            }
            cursor.position += 1;
            self.push(at, hash)?;
        }
        Ok(entries)
    }
}

/// A place in a run.
struct Cursor<'a> {
    run: &'a Run,
    number: u32,
    block: Option<Arc<Block>>,
    /// The place among the entries of the block.
    position: usize,
}

impl<'a> Cursor<'a> {
    fn at(run: &'a Run, from: KeyHash) -> Self {
        Self { run, number: part(from, run.meta.blocks), block: None, position: 0 }
    }

    /// The entry at this place. `None` behind the last.
    fn entry(&mut self, view: &View) -> Result<Option<Entry>> {
        while self.number < self.run.meta.blocks {
            let block = match &self.block {
                Some(block) => block,
                None => self.block.insert(view.passing_block(self.run, self.number)?),
            };
            if let Some(entry) = block.entry(self.position) {
                return Ok(Some(entry));
            }
            (self.number, self.block, self.position) = (self.number + 1, None, 0);
        }
        Ok(None)
    }
}
