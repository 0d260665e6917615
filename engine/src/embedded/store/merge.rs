//! Merging: many small runs of one expiry bucket into few large ones, so that a lookup asks few
//! filters. Records do not move; only entries do.
//!
//! Runs of one level make one of the next, four or more at a time, so every entry is rewritten a
//! logarithmic number of times. A bucket that no fold has added to for a while is merged to one
//! run. A merge takes bounded steps. Its output is a file that is not listed, until the last step
//! replaces the inputs by it in one transaction.

use std::collections::BTreeMap;
use std::vec;

use super::Store;
use super::file_set::FileName;
use super::redb::storage::failed;
use super::run::{Entry, RunReader, RunWriter};
use super::schema::{RUNS, RunMeta};
use super::view::View;
use crate::base::error::Result;

/// This many runs of a level are worth a merge.
const FAN_IN: usize = 4;
/// The most runs that one merge takes.
const MAX_INPUTS: usize = 16;
/// A bucket that this number of folds left alone gets few more runs, if any.
const QUIET_FOLDS: u64 = 16;

/// A merge under way. Lives in memory only: the next process starts it again.
pub(super) struct MergeJob {
    writer: RunWriter,
    inputs: Vec<Input>,
}

/// A run that is being read from front to back.
struct Input {
    meta: RunMeta,
    next_block: u32,
    entries: vec::IntoIter<Entry>,
    /// The smallest entry that was not taken. `None` when there is none left.
    head: Option<Entry>,
}

impl Input {
    fn open(meta: RunMeta, view: &View) -> Result<Self> {
        let entries = Vec::new().into_iter();
        let mut input = Self { meta, next_block: 0, entries, head: None };
        input.advance(view)?;
        Ok(input)
    }

    /// Moves to the next entry. Any view will do: the run is listed until the merge has ended.
    fn advance(&mut self, view: &View) -> Result<()> {
        loop {
            self.head = self.entries.next();
            if self.head.is_some() || self.next_block == self.meta.blocks {
                return Ok(());
            }
            let reader = RunReader::of(&view.files, &self.meta, view.seed)?;
            let block = reader.block(self.next_block, None)?;
            self.entries = block.entries().collect::<Vec<_>>().into_iter();
            self.next_block += 1;
        }
    }
}

impl Store {
    /// Continues a merge, or begins one that is due, for about `budget_entries` entries. Returns
    /// `false` when there is nothing to merge.
    ///
    /// After a shortage of space or descriptors the next call begins the merge again. After another
    /// error nothing is merged until the store is opened again.
    pub(crate) fn merge_step(&mut self, budget_entries: usize) -> Result<bool> {
        if self.merge_failed {
            return Ok(false);
        }
        // Taken out, because the job is useless after an error.
        let job = match self.merge.take() {
            Some(job) => Ok(Some(job)),
            None => self.begin_merge(),
        };
        let result = job.and_then(|job| match job {
            Some(job) => self.advance_merge(job, budget_entries.max(1)).map(|()| true),
            None => Ok(false),
        });
        if let Err(error) = &result {
            self.merge_failed = !error.is_shortage();
            self.discard_unlisted();
        }
        result
    }

    fn begin_merge(&mut self) -> Result<Option<MergeJob>> {
        let Some((inputs, entries)) = self.pick_inputs() else {
            return Ok(None);
        };
        let level = inputs.iter().map(|meta| meta.level).max().unwrap_or(0);
        let output = RunMeta {
            id: self.new_run(),
            bucket_end: inputs[0].bucket_end,
            entries,
            end: inputs.iter().map(|meta| meta.end).max().unwrap_or(0),
            blocks: 0,
            lines: 0,
            level: level.saturating_add(1),
        };
        let view = self.view();
        let open = |meta| Input::open(meta, &view);
        Ok(Some(MergeJob {
            inputs: view.tables.watch.guarded(|| inputs.into_iter().map(open).collect())?,
            writer: self.create_run(output)?,
        }))
    }

    /// The runs that should become one, at least two, all of one bucket, and the number of their
    /// entries.
    fn pick_inputs(&self) -> Option<(Vec<RunMeta>, u32)> {
        let mut buckets: BTreeMap<u64, Vec<RunMeta>> = BTreeMap::new();
        for run in self.catalog.runs.values() {
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
            let inputs = picked.map(|runs| runs[..runs.len().min(MAX_INPUTS)].to_vec())?;
            // Runs with more entries than one run can count are not merged.
            let entries =
                inputs.iter().try_fold(0u32, |sum, meta| sum.checked_add(meta.entries))?;
            Some((inputs, entries))
        })
    }

    fn advance_merge(&mut self, mut job: MergeJob, budget: usize) -> Result<()> {
        let view = self.view();
        if view.tables.watch.guarded(|| job.copy_entries(budget, &view))? {
            job.writer.sync()?;
            self.merge = Some(job);
            return Ok(());
        }
        let MergeJob { writer, inputs } = job;
        let output = writer.finish()?;
        self.name_files()?;
        self.admit(FileName::Run(output.meta.id));
        self.commit(|transaction, next| {
            let mut rows = transaction.open_table(RUNS).map_err(failed)?;
            next.add_run(&mut rows, output.into())?;
            inputs.iter().try_for_each(|input| next.remove_run(&mut rows, input.meta.id))
        })?;
        self.retire_files();
        Ok(())
    }
}

impl MergeJob {
    /// The file that is being written.
    pub(super) fn file_name(&self) -> FileName {
        FileName::Run(self.writer.meta().id)
    }

    pub(super) fn bucket_end(&self) -> u64 {
        self.writer.meta().bucket_end
    }

    /// Copies about `budget` entries in the order of their hashes, and only the newest of each
    /// hash. Returns `false` when none is left.
    fn copy_entries(&mut self, budget: usize, view: &View) -> Result<bool> {
        let mut copied = 0;
        while copied < budget {
            let smallest = self.inputs.iter().filter_map(|input| input.head).min_by_key(|entry| {
                // Among equal hashes the greatest locator comes first.
                (entry.hash, std::cmp::Reverse(entry.locator))
            });
            let Some(entry) = smallest else {
                return Ok(false);
            };
            self.writer.push(entry)?;
            for input in &mut self.inputs {
                while input.head.is_some_and(|head| head.hash == entry.hash) {
                    input.advance(view)?;
                    copied += 1;
                }
            }
        }
        Ok(true)
    }
}
