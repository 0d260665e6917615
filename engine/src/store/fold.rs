//! Folding: moving the newest states of the keys that changed from memory into the file.

use std::sync::Arc;
use std::time::Duration;

use redb::{Table, WriteTransaction};

use super::Store;
use super::backend::failed;
use super::catalog::{Catalog, FilterSlot, Run};
use super::chunk::ChunkWriter;
use super::run::{Entry, RunWriter};
use super::schema::{BLOCKS, Bytes, CHUNKS, FILTERS, OPEN, RUNS, RunMeta, Stage};
use crate::clock::{Time, millis};
use crate::error::Result;
use crate::journal::Position;
use crate::key::KeyHash;
use crate::recent::Versioned;
use crate::transition::{Record, State};

/// What one fold puts into the store.
pub(crate) struct Fold {
    /// Every change up to this sequence is in `entries` or was folded before.
    pub(crate) through: u64,
    pub(crate) replay_from: Position,
    pub(crate) epoch: u64,
    pub(crate) time: Time,
    /// Completed records are swept by buckets of this width.
    pub(crate) bucket_width: Duration,
    /// The newest state of every key that changed since the last fold, each key once.
    pub(crate) entries: Vec<(KeyHash, Versioned)>,
}

/// What a fold did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoldReport {
    /// Completed records stored.
    pub(crate) completed: u64,
    /// Completed records that had expired already.
    pub(crate) expired: u64,
    /// Records in flight and orphans stored.
    pub(crate) open: u64,
    /// Orphans removed because they had expired.
    pub(crate) expired_orphans: u64,
    /// Runs written: one for each expiry bucket.
    pub(crate) runs: u64,
}

/// A completed record on its way into a chunk.
#[derive(Clone, Copy)]
struct Placed<'a> {
    bucket_end: u64,
    sequence: u64,
    hash: KeyHash,
    record: &'a Record,
}

/// The entries of a fold by where they go.
#[derive(Default)]
struct Sorted<'a> {
    /// By bucket, then by sequence.
    completed: Vec<Placed<'a>>,
    expired: u64,
    open: Vec<(KeyHash, u64, &'a Record)>,
    /// Keys that have no open record from now on.
    closed: Vec<KeyHash>,
}

impl Store {
    /// Folds in one transaction. Records in flight and orphans replace their open row; completed
    /// ones, unless expired, go into chunks and one new run for each bucket, and they and removed
    /// keys lose their open row.
    pub(crate) fn fold(&mut self, fold: Fold) -> Result<FoldReport> {
        debug_assert!(fold.through >= self.catalog.state.folded_through);
        let now = fold.time.max(self.catalog.state.time);
        let sorted = sort(&fold, now);
        let report = self.commit(|transaction, next| {
            next.state.folded_through = fold.through;
            next.state.replay_from = fold.replay_from;
            next.state.epoch = fold.epoch;
            next.state.time = now;
            let runs = store_completed(transaction, next, &sorted.completed)?;
            store_open(transaction, next, &sorted)?;
            let expired_orphans = remove_expired(transaction, next, fold.time)?;
            Ok(FoldReport {
                completed: sorted.completed.len() as u64,
                expired: sorted.expired,
                open: sorted.open.len() as u64,
                expired_orphans,
                runs,
            })
        })?;
        self.folds += 1;
        for bucket in sorted.completed.chunk_by(same_bucket) {
            self.last_fold_of.insert(bucket[0].bucket_end, self.folds);
        }
        Ok(report)
    }
}

fn sort(fold: &Fold, now: Time) -> Sorted<'_> {
    let width = millis(fold.bucket_width).max(1);
    let mut sorted = Sorted::default();
    for (hash, Versioned { sequence, record }) in &fold.entries {
        match record.as_deref() {
            Some(record) => match &record.state {
                State::Completed(completed) => {
                    sorted.closed.push(*hash);
                    let expires_at = completed.expires_at;
                    if expires_at <= now {
                        sorted.expired += 1;
                        continue;
                    }
                    let bucket_end = expires_at.0.checked_next_multiple_of(width);
                    sorted.completed.push(Placed {
                        bucket_end: bucket_end.unwrap_or(u64::MAX),
                        sequence: *sequence,
                        hash: *hash,
                        record,
                    });
                }
                _ => sorted.open.push((*hash, *sequence, record)),
            },
            None => sorted.closed.push(*hash),
        }
    }
    sorted.completed.sort_unstable_by_key(|placed| (placed.bucket_end, placed.sequence));
    sorted
}

fn same_bucket(left: &Placed<'_>, right: &Placed<'_>) -> bool {
    left.bucket_end == right.bucket_end
}

/// Writes chunks and runs; gives the number of runs.
fn store_completed(
    transaction: &WriteTransaction,
    next: &mut Catalog,
    completed: &[Placed<'_>],
) -> Result<u64> {
    let mut chunks = transaction.open_table(CHUNKS).map_err(failed)?;
    let mut blocks = transaction.open_table(BLOCKS).map_err(failed)?;
    let mut filters = transaction.open_table(FILTERS).map_err(failed)?;
    let mut rows = transaction.open_table(RUNS).map_err(failed)?;
    let seed = next.state.seed;
    let mut writer = ChunkWriter::new(seed, next.state.next_chunk);
    let mut entries = Vec::with_capacity(completed.len());
    let mut runs = 0;
    for bucket in completed.chunk_by(same_bucket) {
        let bucket_end = bucket[0].bucket_end;
        entries.clear();
        store_chunks(&mut chunks, &mut writer, bucket, &mut entries)?;
        entries.sort_unstable_by_key(|entry| entry.hash);
        let meta = RunMeta {
            id: next.next_run_id(),
            bucket_end,
            entries: entries.len() as u64,
            blocks: 0,
            lines: 0,
            level: 0,
            stage: Stage::Live,
        };
        let mut run = RunWriter::new(meta, seed);
        for entry in &entries {
            run.push(*entry, &mut blocks, &mut filters)?;
        }
        let meta = run.finish(&mut blocks, &mut filters)?;
        let filter = FilterSlot::Loaded(Arc::new(run.into_filter()));
        next.put_run(&mut rows, Run { meta, filter })?;
        runs += 1;
    }
    next.state.next_chunk = writer.next_id();
    Ok(runs)
}

/// Packs the records of one bucket into chunks; gives an entry for each.
fn store_chunks(
    chunks: &mut Table<'_, (u64, u64), Bytes>,
    writer: &mut ChunkWriter,
    bucket: &[Placed<'_>],
    entries: &mut Vec<Entry>,
) -> Result<()> {
    let mut store = |placed: &Placed<'_>, writer: &mut ChunkWriter| {
        writer.flush(|id, bytes| {
            chunks.insert((placed.bucket_end, id), bytes).map_err(failed)?;
            Ok(())
        })
    };
    for placed in bucket {
        if !writer.fits(placed.record) {
            store(placed, writer)?;
        }
        let locator = writer.push(placed.sequence, placed.record);
        entries.push(Entry { hash: placed.hash, locator });
    }
    store(&bucket[0], writer)
}

/// Removes orphans that have expired. Here and not in the sweep: everything that the journal holds
/// behind this fold is later than its time, and to a change made then they were absent. Removed
/// without a fold, a record would be missing to the changes that the journal still replays on it.
fn remove_expired(transaction: &WriteTransaction, next: &mut Catalog, time: Time) -> Result<u64> {
    /// Bounds the transaction; the next fold goes on.
    const MOST: usize = 16_384;
    let mut rows = transaction.open_table(OPEN).map_err(failed)?;
    let expired: Vec<_> = (next.open.iter())
        .filter(|(_, entry)| entry.expires_at.is_some_and(|expiry| expiry <= time))
        .map(|(hash, _)| *hash)
        .take(MOST)
        .collect();
    for hash in &expired {
        next.remove_open(&mut rows, *hash)?;
    }
    Ok(expired.len() as u64)
}

fn store_open(
    transaction: &WriteTransaction,
    next: &mut Catalog,
    sorted: &Sorted<'_>,
) -> Result<()> {
    let mut rows = transaction.open_table(OPEN).map_err(failed)?;
    let mut buffer = Vec::new();
    for hash in &sorted.closed {
        next.remove_open(&mut rows, *hash)?;
    }
    for (hash, sequence, record) in &sorted.open {
        next.put_open(&mut rows, *hash, *sequence, record, &mut buffer)?;
    }
    Ok(())
}
