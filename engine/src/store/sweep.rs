//! Sweeping: giving back the space of what is expired or merged. Never needed for a right answer.

use redb::{ReadableTable, WriteTransaction};

use super::Store;
use super::backend::failed;
use super::catalog::Catalog;
use super::schema::{BLOCKS, FILTERS, RUNS, Stage};
use super::view::View;
use crate::clock::Time;
use crate::error::Result;

/// What one step of the sweeper removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SweepReport {
    /// Record files.
    pub(crate) files: u64,
    /// Runs removed to their last row.
    pub(crate) runs: u64,
    /// Completed records in the runs that expired.
    pub(crate) completed: u64,
    /// Something is left to remove now.
    pub(crate) more: bool,
}

impl Store {
    /// Removes about `budget` rows of what is expired at `now` or dropped, in one transaction that
    /// stores the time too, even when there is nothing to remove.
    ///
    /// Expired orphans are left to the fold.
    ///
    /// Expired runs are dropped first: a record file goes only once no run can be read that lists
    /// its records, whenever the process ends.
    pub(crate) fn sweep_step(&mut self, now: Time, budget: usize) -> Result<SweepReport> {
        let now = now.max(self.catalog.state.time);
        let mut report = self.commit(|transaction, next| {
            next.state.time = now;
            let mut sweep = Sweep { now, left: budget.max(1), report: SweepReport::default() };
            sweep.drop_expired_runs(transaction, next)?;
            sweep.remove_dropped_runs(transaction, next)?;
            sweep.report.more = sweep.left == 0;
            Ok(sweep.report)
        })?;
        // Its output was dropped with its inputs.
        self.merge.take_if(|job| job.bucket_end() <= now.0);
        self.last_fold_of.retain(|bucket_end, _| *bucket_end > now.0);
        report.files = self.remove_unlisted(self.files.buckets().collect())?;
        if report.files > 0 {
            let tables = self.view().tables.clone();
            self.views.set(View::new(tables, self.files.clone(), &self.catalog));
        }
        report.more |= self.shrink_removed();
        Ok(report)
    }
}

struct Sweep {
    now: Time,
    /// Rows that may still be removed; when it is used up nothing more is looked at.
    left: usize,
    report: SweepReport,
}

impl Sweep {
    fn drop_expired_runs(
        &mut self,
        transaction: &WriteTransaction,
        next: &mut Catalog,
    ) -> Result<()> {
        let mut rows = transaction.open_table(RUNS).map_err(failed)?;
        let expired: Vec<_> = (next.runs.values())
            .map(|run| run.meta)
            .filter(|meta| meta.stage != Stage::Dropped && meta.bucket_end <= self.now.0)
            .collect();
        // All of them, whatever the budget: a file may go only once no run points into it, and
        // merges keep a bucket's runs few.
        for meta in &expired {
            next.set_stage(&mut rows, meta.id, Stage::Dropped)?;
            if meta.stage == Stage::Live {
                self.report.completed += meta.entries;
            }
        }
        self.left = self.left.saturating_sub(expired.len());
        Ok(())
    }

    /// Blocks and filters first, then the catalog row: a run is forgotten with its last row.
    fn remove_dropped_runs(
        &mut self,
        transaction: &WriteTransaction,
        next: &mut Catalog,
    ) -> Result<()> {
        let mut blocks = transaction.open_table(BLOCKS).map_err(failed)?;
        let mut filters = transaction.open_table(FILTERS).map_err(failed)?;
        let mut rows = transaction.open_table(RUNS).map_err(failed)?;
        let dropped: Vec<_> = (next.runs.values())
            .filter(|run| run.meta.stage == Stage::Dropped)
            .map(|run| run.meta.id)
            .collect();
        for id in dropped {
            for table in [&mut blocks, &mut filters] {
                let keys: Vec<_> = table
                    .range((id, 0)..=(id, u32::MAX))
                    .map_err(failed)?
                    .take(self.left)
                    .map(|row| row.map(|(key, _)| key.value()))
                    .collect::<Result<_, _>>()
                    .map_err(failed)?;
                for key in &keys {
                    table.remove(key).map_err(failed)?;
                }
                self.left -= keys.len();
            }
            if self.left == 0 {
                break;
            }
            next.remove_run(&mut rows, id)?;
            self.left -= 1;
            self.report.runs += 1;
        }
        Ok(())
    }
}
