//! Folding: moving the newest state of each changed key from memory into the store's files.

use std::time::Duration;

use redb::WriteTransaction;

use super::Store;
use super::catalog::{Catalog, OpenRows};
use super::commit::PendingFold;
use super::file_set::FileName;
use super::record_file::Appender;
use super::redb::storage::failed;
use super::run::{Entry, Written};
use super::schema::{RUNS, RunMeta};
use crate::base::error::Result;
use crate::embedded::journal::Position;
use crate::semantics::key::KeyHash;
use crate::semantics::record::Versioned;
use crate::semantics::record::{Record, State};
use crate::semantics::time::{Time, millis};

/// The input of one fold.
pub(crate) struct Fold {
    /// Every change up to this sequence is in `entries` or was folded before.
    pub(crate) through: u64,
    pub(crate) replay_from: Position,
    pub(crate) incarnation: u64,
    pub(crate) epoch: u64,
    pub(crate) time: Time,
    /// The width of the buckets by which completed records are swept. Records that expire far off
    /// have wider ones.
    pub(crate) bucket_width: Duration,
    /// The newest state of every key that changed since the last fold, each key once.
    pub(crate) entries: Vec<(KeyHash, Versioned)>,
}

/// Called with the share of the records that is written. It may sleep.
pub(crate) type Paced<'a> = dyn FnMut(f64) + 'a;

/// A completed record on its way into the file of its bucket.
#[derive(Clone, Copy)]
struct PlacedRecord<'a> {
    bucket_end: u64,
    sequence: u64,
    hash: KeyHash,
    record: &'a Record,
}

/// The entries of a fold by their destination.
#[derive(Default)]
struct Sorted<'a> {
    /// By bucket, then by sequence.
    completed: Vec<PlacedRecord<'a>>,
    open: Vec<(KeyHash, u64, &'a Record)>,
    /// Keys that have no open record from now on.
    closed: Vec<KeyHash>,
}

/// A fold whose completed records are durable in the files of their buckets. A run of each bucket
/// is durable in a file of its own, and not listed yet.
pub(crate) struct Appended<'a> {
    fold: &'a Fold,
    now: Time,
    sorted: Sorted<'a>,
    runs: Vec<Written>,
}

impl Store {
    /// Makes a fold durable, or goes on with one whose commit found no space. After a shortage the
    /// same fold may be tried again, unless the store [is latched](Self::is_latched).
    pub(crate) fn write_fold(&mut self, fold: &Fold, paced: &mut Paced<'_>) -> Result<()> {
        if self.has_pending_fold() {
            return self.resume();
        }
        let appended = self.append(fold, paced)?;
        self.fold(appended)
    }

    /// The first half of a fold: appends the completed records to the files of their buckets, and writes
    /// their runs. After an error the store is as it was; after a shortage of space or descriptors the
    /// same fold may be tried again.
    pub(crate) fn append<'a>(
        &mut self,
        fold: &'a Fold,
        paced: &mut Paced<'_>,
    ) -> Result<Appended<'a>> {
        debug_assert!(fold.through >= self.catalog.state.folded_through);
        let now = fold.time.max(self.catalog.state.time);
        let sorted = sort(fold, now);
        match self.append_records(&sorted.completed, paced) {
            Ok(runs) => Ok(Appended { fold, now, sorted, runs }),
            Err(error) => {
                if error.is_shortage() {
                    self.give_back(&sorted.completed);
                }
                Err(error)
            }
        }
    }

    /// The second half, one transaction: lists the runs, and replaces the open rows of records in
    /// flight and of orphans. A key whose record is completed or removed loses its open row.
    ///
    /// When the commit finds no space, the fold is [pending](Self::has_pending_fold).
    pub(crate) fn fold(&mut self, appended: Appended<'_>) -> Result<()> {
        let Appended { fold, now, sorted, runs } = appended;
        let buckets: Vec<_> = runs.iter().map(|run| run.meta.bucket_end).collect();
        for run in &runs {
            self.admit(FileName::Records(run.meta.bucket_end));
            self.admit(FileName::Run(run.meta.id));
        }
        let ((), committed) = self.transact(|transaction, next| {
            next.state.folded_through = fold.through;
            next.state.replay_from = fold.replay_from;
            next.state.incarnation = fold.incarnation;
            next.state.epoch = fold.epoch;
            next.state.time = now;
            list_runs(transaction, next, runs)?;
            store_open(transaction, next, &sorted)?;
            remove_expired(transaction, next, fold.time)
        })?;
        self.pending = Some(PendingFold { committed, buckets });
        self.resume()
    }

    /// Makes the records and their runs durable, names included.
    fn append_records(
        &mut self,
        completed: &[PlacedRecord<'_>],
        paced: &mut Paced<'_>,
    ) -> Result<Vec<Written>> {
        let (mut appended, records) = (0_u32, completed.len() as f64);
        let ends = self.catalog.buckets();
        let mut written = Vec::new();
        for bucket in by_bucket(completed) {
            let bucket_end = bucket[0].bucket_end;
            let start = ends.get(&bucket_end).copied().unwrap_or(0);
            let name = FileName::Records(bucket_end);
            if !self.files.contains(name) {
                self.unlisted.insert(name);
            }
            let opener = self.files.opener();
            let mut file = Appender::open(opener, bucket_end, start, self.catalog.state.seed)?;
            let mut entries = Vec::with_capacity(bucket.len());
            for placed in bucket {
                let locator = file.push(placed.sequence, placed.record)?;
                entries.push(Entry { hash: placed.hash, locator });
                appended += 1;
                paced(f64::from(appended) / records);
            }
            entries.sort_unstable_by_key(|entry| entry.hash);
            let meta = RunMeta {
                id: self.new_run(),
                bucket_end,
                // Fits: the entries are those of records in memory.
                entries: entries.len() as u32,
                end: file.finish()?,
                blocks: 0,
                lines: 0,
                level: 0,
            };
            let mut run = self.create_run(meta)?;
            entries.into_iter().try_for_each(|entry| run.push(entry))?;
            written.push(run.finish()?);
        }
        if !written.is_empty() {
            self.name_files()?;
        }
        Ok(written)
    }

    /// Gives back the space of a fold that found too little: other work needs it more. Space that
    /// cannot be given back stays as a crash would leave it.
    fn give_back(&mut self, completed: &[PlacedRecord<'_>]) {
        let ends = self.catalog.buckets();
        for bucket_end in by_bucket(completed).map(|bucket| bucket[0].bucket_end) {
            if let Some(end) = ends.get(&bucket_end)
                && let Ok(file) = self.files.opener().open_listed(FileName::Records(bucket_end))
            {
                drop(file.cut(*end));
            }
        }
        self.discard_unlisted();
    }
}

fn by_bucket<'a, 'b>(
    completed: &'a [PlacedRecord<'b>],
) -> impl Iterator<Item = &'a [PlacedRecord<'b>]> {
    completed.chunk_by(|left, right| left.bucket_end == right.bucket_end)
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
                        continue;
                    }
                    sorted.completed.push(PlacedRecord {
                        bucket_end: bucket_end(expires_at, now, width),
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

/// The end of the bucket of a record. A bucket is `width` ms wide. A record that expires after more
/// than 48 widths gets a bucket that is eight times as wide, after 96 one that is sixteen times as
/// wide, and so on: each doubling of the distance has six buckets. So the files are few for any
/// TTLs, and the space of a record comes back at the latest a sixth of its TTL after it expired.
fn bucket_end(expires_at: Time, now: Time, width: u64) -> u64 {
    let far = expires_at.0.saturating_sub(now.0) / width / 48;
    let by = if far == 0 {
        Some(1)
    } else {
        (8 * far.min(1 << 59)).checked_next_power_of_two().map(|by| by.max(8))
    };
    let widened = by.and_then(|by| width.checked_mul(by));
    widened.and_then(|width| expires_at.0.checked_next_multiple_of(width)).unwrap_or(u64::MAX)
}

fn list_runs(transaction: &WriteTransaction, next: &mut Catalog, runs: Vec<Written>) -> Result<()> {
    let mut rows = transaction.open_table(RUNS).map_err(failed)?;
    runs.into_iter().try_for_each(|run| next.add_run(&mut rows, run.into()))
}

/// Removes expired orphans. The sweep must not do this. All changes in the journal behind this fold
/// are later than the time of the fold, and were made when these orphans counted as absent. If a
/// record were removed without a fold, the journal could still replay a change on it.
fn remove_expired(transaction: &WriteTransaction, next: &mut Catalog, time: Time) -> Result<()> {
    /// Bounds the transaction; the next fold goes on.
    const MOST: usize = 16_384;
    let mut rows = OpenRows::of(transaction)?;
    let expired: Vec<_> = (next.open.iter())
        .filter(|(_, entry)| entry.expires_at.is_some_and(|expiry| expiry <= time))
        .map(|(hash, _)| *hash)
        .take(MOST)
        .collect();
    expired.iter().try_for_each(|hash| next.remove_open(&mut rows, *hash))
}

fn store_open(
    transaction: &WriteTransaction,
    next: &mut Catalog,
    sorted: &Sorted<'_>,
) -> Result<()> {
    let mut rows = OpenRows::of(transaction)?;
    let mut buffer = Vec::new();
    for hash in &sorted.closed {
        next.remove_open(&mut rows, *hash)?;
    }
    for (hash, sequence, record) in &sorted.open {
        next.put_open(&mut rows, *hash, *sequence, record, &mut buffer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_as_wide_as_their_end_is_far() {
        let end = |expires_at| bucket_end(Time(expires_at), Time(1_000), 10);
        assert_eq!([1_001, 1_010, 1_471, 1_479].map(end), [1_010, 1_010, 1_480, 1_480]);
        assert_eq!([1_480, 1_481, 1_959].map(end), [1_520, 1_520, 2_000]);
        assert_eq!([1_961, 2_439, 2_441].map(end), [2_080, 2_560, 2_560]);
        assert_eq!([1_001 + 480 * 3, 1_001 + 480 * 4].map(end), [2_560, 3_200]);
        assert_eq!([u64::MAX - 1, u64::MAX].map(end), [u64::MAX; 2]);
    }
}
