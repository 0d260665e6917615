//! The part of the store that the fold worker keeps in memory: the state row, the runs and the
//! index of open records. A change here writes its row in the same transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{ReadableTable, Table, WriteTransaction};

use super::file_set::FileName;
use super::redb::storage::failed;
use super::redb::tables::Tables;
use super::run::filter::Filter;
use super::run::{self, Starts, Written};
use super::schema::{Bytes, CHECKPOINTS, OPEN, RunMeta, STATE_KEY, StoreState, Tally};
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::semantics::key::{HashMap, KeyHash};
use crate::semantics::record::{Checkpoint, Record};
use crate::semantics::record_codec::{self, Stored};
use crate::semantics::time::Time;

#[derive(Clone, Debug)]
pub(super) struct Catalog {
    pub(super) state: StoreState,
    /// By id: the newest last.
    pub(super) runs: BTreeMap<u64, Run>,
    /// Shared with views. The first change after a view was made copies the index.
    pub(super) open: Arc<OpenIndex>,
    /// The bytes of the open rows and of their checkpoints.
    pub(super) open_bytes: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) meta: RunMeta,
    pub(super) filter: FilterSlot,
    /// `None` while the run is not loaded, or when its starts are damaged: then every lookup reads
    /// them.
    pub(super) starts: Option<Starts>,
}

impl Run {
    pub(super) fn unloaded(meta: RunMeta) -> Self {
        Self { meta, filter: FilterSlot::Unloaded, starts: None }
    }
}

impl From<Written> for Run {
    fn from(written: Written) -> Self {
        let Written { meta, starts, filter } = written;
        Self { meta, filter: FilterSlot::Loaded(filter), starts: Some(starts) }
    }
}

#[derive(Clone, Debug)]
pub(super) enum FilterSlot {
    /// In the file, not read yet.
    Unloaded,
    Loaded(Arc<Filter>),
    /// The filter fails its checksums, so every lookup reads the run.
    Damaged,
}

/// The open records by hash: decides, without a read, which keys have none.
pub(super) type OpenIndex = HashMap<OpenEntry>;

#[derive(Clone, Copy, Debug)]
pub(super) struct OpenEntry {
    pub(super) sequence: u64,
    pub(super) checksum: u64,
    /// The bytes of the row, and of the checkpoint, which has a row of its own.
    pub(super) bytes: u32,
    pub(super) has_checkpoint: bool,
    /// `None` while the record is in flight.
    pub(super) expires_at: Option<Time>,
}

impl OpenEntry {
    fn new(sequence: u64, checksum: u64, row: usize, record: &Record) -> Self {
        let checkpoint = record.attempt().and_then(|attempt| attempt.checkpoint.as_ref());
        Self {
            sequence,
            checksum,
            // Far below 4 GiB: a key, a fingerprint and a checkpoint are limited.
            bytes: (row + checkpoint.map_or(0, Checkpoint::len)) as u32,
            has_checkpoint: checkpoint.is_some(),
            expires_at: record.expires_at(),
        }
    }

    /// Verifies that `bytes` are the row of this entry.
    pub(super) fn decode(&self, hash: KeyHash, bytes: &[u8], seed: u64) -> Result<Stored> {
        let stored = decode_open(hash, bytes, seed)?;
        if (stored.sequence, stored.checksum) != (self.sequence, self.checksum) {
            return Err(Error::corrupted("an open record is not the one that was stored last"));
        }
        Ok(stored)
    }
}

pub(super) fn decode_open(hash: KeyHash, bytes: &[u8], seed: u64) -> Result<Stored> {
    let stored =
        record_codec::decode(&SharedBytes::copy_of(bytes), record_codec::open_seed(seed, hash))?;
    if stored.len != bytes.len() {
        return Err(Error::corrupted("an open record has bytes after its end"));
    }
    Ok(stored)
}

/// The rows of open records in a transaction.
pub(super) struct OpenRows<'a> {
    records: Table<'a, u128, Bytes>,
    checkpoints: Table<'a, u128, Bytes>,
}

impl<'a> OpenRows<'a> {
    pub(super) fn of(transaction: &'a WriteTransaction) -> Result<Self> {
        Ok(Self {
            records: transaction.open_table(OPEN).map_err(failed)?,
            checkpoints: transaction.open_table(CHECKPOINTS).map_err(failed)?,
        })
    }
}

impl Catalog {
    pub(super) fn new(state: StoreState) -> Self {
        Self { state, runs: BTreeMap::new(), open: Arc::default(), open_bytes: 0 }
    }

    pub(super) fn load_state(tables: &Tables) -> Result<StoreState> {
        let row = tables.state.get(STATE_KEY).map_err(failed)?;
        let row = row.ok_or_else(|| Error::new(ErrorKind::StoreForeign, "no state row"))?;
        StoreState::decode(row.value())
    }

    /// Reads and verifies the catalog: each row by its checksum, their number and sum by the state.
    pub(super) fn load(tables: &Tables) -> Result<Self> {
        let mut catalog = Self::new(Self::load_state(tables)?);
        let seed = catalog.state.seed;

        let mut tally = Tally::default();
        for row in tables.runs.iter().map_err(failed)? {
            let (id, value) = row.map_err(failed)?;
            let (meta, checksum) = RunMeta::decode(value.value(), seed, id.value())?;
            tally.add(checksum);
            catalog.runs.insert(meta.id, Run::unloaded(meta));
        }
        if tally != catalog.state.runs {
            return Err(Error::corrupted("the catalog of runs does not add up"));
        }

        let mut tally = Tally::default();
        let mut open = OpenIndex::default();
        for row in tables.open.iter().map_err(failed)? {
            let (hash, value) = row.map_err(failed)?;
            let hash = KeyHash(hash.value());
            let stored = decode_open(hash, value.value(), seed)?;
            tally.add(stored.checksum);
            let Stored { sequence, checksum, len, record } = stored;
            let entry = OpenEntry::new(sequence, checksum, len, &record);
            catalog.open_bytes += u64::from(entry.bytes);
            open.insert(hash, entry);
        }
        if tally != catalog.state.open {
            return Err(Error::corrupted("the open records do not add up"));
        }
        catalog.open = Arc::new(open);
        Ok(catalog)
    }

    /// The buckets that have records, each with the end of the records in its file.
    pub(super) fn buckets(&self) -> BTreeMap<u64, u64> {
        let mut buckets = BTreeMap::new();
        for Run { meta, .. } in self.runs.values() {
            let end = buckets.entry(meta.bucket_end).or_insert(0);
            *end = meta.end.max(*end);
        }
        buckets
    }

    /// The listed files, each with the number of its listed bytes.
    pub(super) fn listed_files(&self) -> impl Iterator<Item = (FileName, u64)> {
        let buckets = self.buckets().into_iter();
        let records = buckets.map(|(bucket_end, end)| (FileName::Records(bucket_end), end));
        let runs = self.runs.values().map(|run| &run.meta);
        records.chain(runs.map(|meta| (FileName::Run(meta.id), run::file_len(meta))))
    }

    pub(super) fn file_names(&self) -> impl Iterator<Item = FileName> {
        self.listed_files().map(|(name, _)| name)
    }

    /// The listed bytes of all files.
    pub(super) fn file_bytes(&self) -> u64 {
        self.listed_files().map(|(_, bytes)| bytes).sum()
    }

    pub(super) fn add_run(&mut self, rows: &mut Table<'_, u64, Bytes>, run: Run) -> Result<()> {
        let (bytes, checksum) = run.meta.encode(self.state.seed);
        rows.insert(run.meta.id, bytes.as_slice()).map_err(failed)?;
        self.state.runs.add(checksum);
        self.runs.insert(run.meta.id, run);
        Ok(())
    }

    pub(super) fn remove_run(&mut self, rows: &mut Table<'_, u64, Bytes>, id: u64) -> Result<()> {
        if let Some(run) = self.runs.remove(&id) {
            self.state.runs.remove(run.meta.encode(self.state.seed).1);
            rows.remove(id).map_err(failed)?;
        }
        Ok(())
    }

    /// Inserts an open record, or replaces it. A checkpoint that is not in memory has its row
    /// already. `buffer` is scratch space.
    pub(super) fn put_open(
        &mut self,
        rows: &mut OpenRows<'_>,
        hash: KeyHash,
        sequence: u64,
        record: &Record,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        buffer.clear();
        let seed = record_codec::open_seed(self.state.seed, hash);
        let checksum = record_codec::encode(buffer, seed, sequence, record);
        rows.records.insert(hash.0, buffer.as_slice()).map_err(failed)?;
        let entry = OpenEntry::new(sequence, checksum, buffer.len(), record);
        self.state.open.add(checksum);
        self.open_bytes += u64::from(entry.bytes);
        let replaced = Arc::make_mut(&mut self.open).insert(hash, entry);
        match record.attempt().and_then(|attempt| attempt.checkpoint.as_ref()) {
            Some(Checkpoint::Here(data)) => {
                rows.checkpoints.insert(hash.0, &data[..]).map_err(failed)?;
            }
            Some(Checkpoint::Stored(_)) => {}
            // The checkpoint of an earlier record of the key.
            None if replaced.is_some_and(|replaced| replaced.has_checkpoint) => {
                rows.checkpoints.remove(hash.0).map_err(failed)?;
            }
            None => {}
        }
        if let Some(replaced) = replaced {
            self.state.open.remove(replaced.checksum);
            self.open_bytes -= u64::from(replaced.bytes);
        }
        Ok(())
    }

    pub(super) fn remove_open(&mut self, rows: &mut OpenRows<'_>, hash: KeyHash) -> Result<()> {
        // Looked up first, because a change copies the index.
        if self.open.contains_key(&hash)
            && let Some(removed) = Arc::make_mut(&mut self.open).remove(&hash)
        {
            self.state.open.remove(removed.checksum);
            self.open_bytes -= u64::from(removed.bytes);
            rows.records.remove(hash.0).map_err(failed)?;
            if removed.has_checkpoint {
                rows.checkpoints.remove(hash.0).map_err(failed)?;
            }
        }
        Ok(())
    }
}
