//! Merging: many small runs of one expiry bucket into few large ones, so that a lookup asks few
//! filters. Records do not move; only entries do.
//!
//! Runs of one level make one of the next, four or more at a time, so every entry is rewritten a
//! logarithmic number of times. A bucket that no fold has added to for a while is merged to one run.
//! A merge takes as many bounded transactions as it needs: its output stays `Building`, unread,
//! until the last of them puts it in the place of its inputs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::vec;

use redb::{Table, WriteTransaction};

use super::Store;
use super::backend::failed;
use super::catalog::{Catalog, FilterSlot, Run};
use super::run::{Entry, RunWriter};
use super::schema::{BLOCKS, Bytes, FILTERS, RUNS, RunMeta, Stage};
use super::view::View;
use crate::error::Result;

/// Runs of a level that are worth a merge.
const FAN_IN: usize = 4;
/// The most runs that one merge takes.
const MAX_INPUTS: usize = 16;
/// A bucket that so many folds left alone gets no more runs, or few.
const QUIET_FOLDS: u64 = 16;

type Rows<'txn> = Table<'txn, (u64, u32), Bytes>;

/// A merge under way. Lives in memory only: the next process starts it again.
pub(super) struct MergeJob {
    /// Whether the output's catalog row is in the file.
    started: bool,
    writer: RunWriter,
    inputs: Vec<Input>,
}

/// A run that is being read from front to back.
struct Input {
    meta: RunMeta,
    next_block: u32,
    entries: vec::IntoIter<Entry>,
    /// The smallest entry that was not taken; `None` when there is none left.
    head: Option<Entry>,
}

impl MergeJob {
    pub(super) fn bucket_end(&self) -> u64 {
        self.writer.meta.bucket_end
    }
}

impl Input {
    fn open(meta: RunMeta, view: &View) -> Result<Self> {
        let entries = Vec::new().into_iter();
        let mut input = Self { meta, next_block: 0, entries, head: None };
        input.advance(view)?;
        Ok(input)
    }

    /// Moves to the next entry. The blocks are read from a view: the run is live, so it is the
    /// same in every one.
    fn advance(&mut self, view: &View) -> Result<()> {
        loop {
            self.head = self.entries.next();
            if self.head.is_some() || self.next_block == self.meta.blocks {
                return Ok(());
            }
            let block = view.tables.block(&self.meta, self.next_block, view.seed)?;
            self.entries = block.into_iter();
            self.next_block += 1;
        }
    }
}

impl Store {
    /// Goes on with a merge, or begins one that is due, for about `budget_entries` entries, in one
    /// transaction. `false` when there is nothing to merge.
    ///
    /// After an error nothing is merged until the store is opened again.
    pub(crate) fn merge_step(&mut self, budget_entries: usize) -> Result<bool> {
        if self.merge_failed {
            return Ok(false);
        }
        // Taken out: after an error it is ahead of the file, and useless.
        let job = match self.merge.take() {
            Some(job) => Ok(Some(job)),
            None => self.begin_merge(),
        };
        let result = job.and_then(|job| match job {
            Some(job) => self.advance_merge(job, budget_entries.max(1)).map(|()| true),
            None => Ok(false),
        });
        if result.is_err() {
            self.merge_failed = true;
            // Only tidies up; the error to report is the first. Opening the store does it too.
            let _ = self.drop_unfinished_runs();
        }
        result
    }

    fn begin_merge(&mut self) -> Result<Option<MergeJob>> {
        let Some(inputs) = self.pick_inputs() else {
            return Ok(None);
        };
        let view = self.view();
        let level = inputs.iter().map(|meta| meta.level).max().unwrap_or(0);
        let output = RunMeta {
            // Reserved by the transaction that stores the row.
            id: self.catalog.state.next_run,
            bucket_end: inputs[0].bucket_end,
            entries: inputs.iter().map(|meta| meta.entries).sum(),
            end: inputs.iter().map(|meta| meta.end).max().unwrap_or(0),
            blocks: 0,
            lines: 0,
            level: level.saturating_add(1),
            stage: Stage::Building,
        };
        let open = |meta| Input::open(meta, &view);
        Ok(Some(MergeJob {
            started: false,
            writer: RunWriter::new(output, self.catalog.state.seed),
            inputs: view.tables.watch.guarded(|| inputs.into_iter().map(open).collect())?,
        }))
    }

    /// The runs that should become one: at least two, all of one bucket.
    fn pick_inputs(&self) -> Option<Vec<RunMeta>> {
        let mut buckets: BTreeMap<u64, Vec<RunMeta>> = BTreeMap::new();
        for run in self.catalog.live_runs() {
            if run.meta.bucket_end > self.catalog.state.time.0 {
                buckets.entry(run.meta.bucket_end).or_default().push(run.meta);
            }
        }
        buckets.into_iter().find_map(|(bucket_end, mut runs)| {
            runs.sort_by_key(|meta| (meta.level, meta.id));
            let last_fold = self.last_fold_of.get(&bucket_end).copied().unwrap_or(0);
            let quiet = self.folds - last_fold >= QUIET_FOLDS;
            let picked = if quiet {
                Some(runs.as_slice()).filter(|runs| runs.len() > 1)
            } else {
                runs.chunk_by(|a, b| a.level == b.level).find(|level| level.len() >= FAN_IN)
            };
            picked.map(|runs| runs[..runs.len().min(MAX_INPUTS)].to_vec())
        })
    }

    fn advance_merge(&mut self, mut job: MergeJob, budget: usize) -> Result<()> {
        let view = self.view();
        let finished = self.commit(|transaction, next| {
            if !job.started {
                let mut rows = transaction.open_table(RUNS).map_err(failed)?;
                job.writer.meta.id = next.next_run_id();
                next.put_run(
                    &mut rows,
                    Run { meta: job.writer.meta, filter: FilterSlot::Unloaded },
                )?;
                job.started = true;
            }
            let mut blocks = transaction.open_table(BLOCKS).map_err(failed)?;
            let mut filters = transaction.open_table(FILTERS).map_err(failed)?;
            if job.copy_entries(budget, &view, &mut blocks, &mut filters)? {
                return Ok(Some(job));
            }
            job.finish(transaction, next, &mut blocks, &mut filters)?;
            Ok(None)
        })?;
        self.merge = finished;
        Ok(())
    }
}

impl MergeJob {
    /// Copies up to about `budget` entries in order of their hashes; of one hash the newest only.
    /// `false` when none is left.
    fn copy_entries(
        &mut self,
        budget: usize,
        view: &View,
        blocks: &mut Rows<'_>,
        filters: &mut Rows<'_>,
    ) -> Result<bool> {
        let mut copied = 0;
        while copied < budget {
            let smallest = self.inputs.iter().filter_map(|input| input.head).min_by_key(|entry| {
                // The greatest locator first among equal hashes.
                (entry.hash, std::cmp::Reverse(entry.locator))
            });
            let Some(entry) = smallest else {
                return Ok(false);
            };
            self.writer.push(entry, blocks, filters)?;
            for input in &mut self.inputs {
                while input.head.is_some_and(|head| head.hash == entry.hash) {
                    input.advance(view)?;
                    copied += 1;
                }
            }
        }
        Ok(true)
    }

    /// Puts the output in the place of the inputs.
    fn finish(
        mut self,
        transaction: &WriteTransaction,
        next: &mut Catalog,
        blocks: &mut Rows<'_>,
        filters: &mut Rows<'_>,
    ) -> Result<()> {
        let mut meta = self.writer.finish(blocks, filters)?;
        meta.stage = Stage::Live;
        let filter = FilterSlot::Loaded(Arc::new(self.writer.into_filter()));
        let mut rows = transaction.open_table(RUNS).map_err(failed)?;
        next.put_run(&mut rows, Run { meta, filter })?;
        for input in &self.inputs {
            next.set_stage(&mut rows, input.meta.id, Stage::Dropped)?;
        }
        Ok(())
    }
}
