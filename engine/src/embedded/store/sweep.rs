//! Sweeping: giving back the space of expired records. No answer depends on it.

use redb::WriteTransaction;

use super::Store;
use super::catalog::Catalog;
use super::redb::storage::failed;
use super::schema::RUNS;
use crate::base::error::Result;
use crate::semantics::time::Time;

impl Store {
    /// Removes the runs that are expired at `now` from the catalog and retires their files. The
    /// transaction stores the time, too, even when nothing is expired. The space comes back with
    /// [`give_back_removed`](Self::give_back_removed). Returns how many completed records the runs
    /// listed.
    ///
    /// The fold removes expired orphans.
    pub(crate) fn sweep(&mut self, now: Time) -> Result<u64> {
        let now = now.max(self.catalog.state.time);
        let completed = self.commit(|transaction, next| {
            next.state.time = now;
            remove_expired_runs(transaction, next, now)
        })?;
        // The inputs of such a merge are gone.
        self.merge.take_if(|job| job.bucket_end() <= now.0);
        self.last_fold_of.retain(|bucket_end, _| *bucket_end > now.0);
        self.discard_unlisted();
        self.retire_files();
        Ok(completed)
    }
}

/// Returns how many records they listed. Merging keeps the runs of a bucket few.
fn remove_expired_runs(
    transaction: &WriteTransaction,
    next: &mut Catalog,
    now: Time,
) -> Result<u64> {
    let mut rows = transaction.open_table(RUNS).map_err(failed)?;
    let metas = next.runs.values().map(|run| run.meta);
    let expired: Vec<_> = metas.filter(|meta| meta.bucket_end <= now.0).collect();
    expired.iter().try_for_each(|meta| next.remove_run(&mut rows, meta.id))?;
    Ok(expired.iter().map(|meta| u64::from(meta.entries)).sum())
}
