//! Commits of the store file, and one that found no space.

use std::sync::Arc;

use redb::WriteTransaction;

use super::catalog::Catalog;
use super::redb::tables::Tables;
use super::{Store, transact, write_state};
use crate::base::error::{Error, ErrorKind, Result};

/// A commit that redb reported as durable. It is durable once the backend holds nothing back.
pub(super) struct Committed {
    catalog: Catalog,
    tables: Tables,
}

pub(super) struct PendingFold {
    pub(super) committed: Committed,
    /// The buckets that the fold added a run to.
    pub(super) buckets: Vec<u64>,
}

impl Store {
    /// One durable transaction. `work` writes rows and changes its copy of the catalog alike. The
    /// copy replaces the store's catalog, and readers get it, only after the commit is durable.
    ///
    /// An error of `work` leaves the store as it was. After an error of the commit itself, which
    /// may have happened, nothing is written any more.
    pub(super) fn commit<T>(
        &mut self,
        work: impl FnOnce(&WriteTransaction, &mut Catalog) -> Result<T>,
    ) -> Result<T> {
        let (output, committed) = self.transact(work)?;
        if let Err(unreleased) = self.backend.make_up() {
            self.latched = true;
            return Err(Error::io("store.redb", unreleased.error));
        }
        self.publish(committed);
        Ok(output)
    }

    /// The part of a [commit](Self::commit) that redb does.
    pub(super) fn transact<T>(
        &mut self,
        work: impl FnOnce(&WriteTransaction, &mut Catalog) -> Result<T>,
    ) -> Result<(T, Committed)> {
        if self.latched || self.pending.is_some() {
            return Err(Error::new(ErrorKind::Unavailable, "a commit of store.redb failed"));
        }
        // A transaction that was rolled back may have found no space.
        let made_up = self.backend.make_up();
        made_up.map_err(|unreleased| Error::io("store.redb", unreleased.error))?;
        let mut next = self.catalog.clone();
        next.state.next_run = self.next_run;
        next.state.next_run = next.state.end_of_runs();
        next.state.reached = self.reached;
        let mut committing = false;
        let result = transact(&self.database, |transaction| {
            let output = work(transaction, &mut next)?;
            write_state(transaction, &next.state)?;
            committing = true;
            Ok(output)
        })
        .and_then(|output| {
            let tables = self.database.watch().guarded(|| Tables::open(&self.database))?;
            Ok((output, tables))
        });
        self.latched = committing && result.is_err();
        let (output, tables) = result?;
        Ok((output, Committed { catalog: next, tables }))
    }

    fn publish(&mut self, Committed { catalog, tables }: Committed) {
        self.next_run = catalog.state.next_run;
        self.catalog = catalog;
        self.show(Arc::new(tables));
    }

    /// Whether a fold waits for space to be committed: [`resume`](Self::resume) goes on with it.
    pub(crate) fn has_pending_fold(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether no commit is taken until the file is opened again.
    pub(crate) fn is_latched(&self) -> bool {
        self.latched
    }

    /// Makes a fold durable whose commit found no space. After an error the fold is pending still,
    /// or the store takes no commit any more.
    pub(super) fn resume(&mut self) -> Result<()> {
        if let Err(unreleased) = self.backend.make_up() {
            if !unreleased.may_be_tried_again {
                self.latched = true;
                self.pending = None;
            }
            return Err(Error::io("store.redb", unreleased.error));
        }
        if let Some(PendingFold { committed, buckets }) = self.pending.take() {
            self.publish(committed);
            self.folds += 1;
            for bucket_end in buckets {
                self.last_fold_of.insert(bucket_end, self.folds);
            }
        }
        Ok(())
    }
}
