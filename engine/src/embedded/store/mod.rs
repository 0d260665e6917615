//! The store: the records that the journal no longer holds, in files that one redb file lists.
//!
//! The only module that names redb. The fold worker owns the [`Store`] and is its only writer.
//! Every other thread reads through an immutable [`View`], which is swapped after each commit, so
//! that the catalog in memory and the snapshot in the file always belong together.
//!
//! Completed records lie in [record files](record_file) by expiry bucket and are indexed by [runs](run);
//! records in flight and orphans have a table of their own with an index in memory. Read [`schema`] for
//! the tables, [`file_set`] for what they list, [`fold`](Store::fold) for how records come in,
//! [`View::get`] for how they are found, then [`merge`] and [`sweep`].

mod backup;
mod catalog;
mod commit;
pub(crate) mod file_set;
mod fold;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod leftovers;
mod merge;
mod opening;
pub(crate) mod record_file;
mod redb;
mod run;
mod scan;
mod schema;
mod sweep;
#[cfg(test)]
mod tests;
mod verify;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use ::redb::WriteTransaction;

use self::catalog::{Catalog, FilterSlot};
use self::file_set::{FileName, Files, Removed};
use self::merge::MergeJob;
use self::redb::backend::Backend;
use self::redb::storage::{Handle, failed};
use self::redb::tables::Tables;
use self::redb::write_buffer::StoreFile;
use self::run::block_cache::BlockCache;
use self::run::{RunReader, RunWriter};
use self::schema::{CHECKPOINTS, OPEN, RUNS, RunMeta, STATE, STATE_KEY};
use crate::base::error::{Error, ErrorKind, Result};
use crate::embedded::disk::{Caching, Directory, DiskFile};
use crate::embedded::journal::Reached;
use crate::semantics::key::KeyHash;
use crate::semantics::record::Record;
use crate::semantics::record_codec;
use crate::semantics::time::Time;

// The parts that the rest of the engine uses.
#[allow(unused_imports)]
pub(crate) use self::{
    fold::{Appended, Fold},
    leftovers::{Leftovers, Listing},
    opening::InspectedStore,
    scan::StoredPage,
    schema::StoreState,
    view::{CurrentView, View},
};

pub(crate) const FILE: &str = "store.redb";
/// The name of a store file whose creation is not complete.
pub(crate) const TEMPORARY_FILE: &str = "store.redb.new";

/// Whether a file of this name holds records or a run.
pub(crate) fn is_stored_file(name: &str) -> bool {
    FileName::parse(name).is_some()
}

/// An open store. See the module.
pub(crate) struct Store {
    database: Handle,
    dir: Arc<dyn Directory>,
    file: Arc<dyn DiskFile>,
    /// As the last commit left it.
    catalog: Catalog,
    /// The listed files.
    files: Arc<Files>,
    /// Files that are being written, and files of writes that failed.
    unlisted: BTreeSet<FileName>,
    removed: Removed,
    blocks: Arc<BlockCache>,
    /// The number of the next run.
    next_run: u64,
    /// How far the journal is durable. The next commit records it.
    reached: Reached,
    views: CurrentView,
    /// A commit failed and may have happened. The catalog may then be older than the file, so
    /// nothing is written until the file is opened again. redb latches, too, but only after an
    /// error of its file.
    latched: bool,
    backend: Backend,
    /// A fold whose commit found no space. Nothing else is committed before it is.
    pending: Option<commit::PendingFold>,
    merge: Option<MergeJob>,
    /// A merge failed because its inputs or the store file are damaged. No run is merged until the
    /// store is reopened; answers do not depend on merges.
    merge_failed: bool,
    /// The number of folds since the store was opened, and the last fold that added a run to each
    /// bucket.
    folds: u64,
    last_fold_of: BTreeMap<u64, u64>,
}

impl Store {
    /// Creates `store.redb` in `dir`, which must have none: written and synced under another name,
    /// then renamed, since redb's creation does not survive a crash half-way.
    pub(crate) fn create(
        dir: &Arc<dyn Directory>,
        cache_bytes: usize,
        state: &StoreState,
    ) -> Result<()> {
        create_file(dir, cache_bytes, |database| {
            transact(database, |transaction| write_state(transaction, state))
        })
    }

    pub(crate) fn exists(dir: &dyn Directory) -> Result<bool> {
        let names = dir.list().map_err(|error| Error::io("the store's directory", error))?;
        Ok(names.iter().any(|name| name == FILE))
    }

    /// Hides the files that are no longer listed from new readers.
    /// [`give_back_removed`](Self::give_back_removed) removes them.
    fn retire_files(&mut self) {
        let listed: BTreeSet<_> = self.catalog.file_names().collect();
        let unlisted: Vec<_> = self.files.names().filter(|name| !listed.contains(name)).collect();
        for name in &unlisted {
            self.removed.extend(Arc::make_mut(&mut self.files).take(*name));
        }
        if !unlisted.is_empty() {
            self.show(self.view().tables.clone());
        }
    }

    /// Removes the files of failed writes. A file that cannot be removed now is tried again, at the
    /// latest when the store is opened.
    fn discard_unlisted(&mut self) {
        let written = self.merge.as_ref().map(MergeJob::file_name);
        let opener = self.files.opener();
        self.unlisted.retain(|name| Some(*name) == written || opener.remove(*name).is_err());
        // Numbers of removed runs that were never listed are used again: a range has few numbers.
        let runs = self.unlisted.iter().filter_map(|name| match name {
            FileName::Run(run) => Some(run + 1),
            FileName::Records(_) => None,
        });
        self.next_run = runs.max().unwrap_or(0).max(self.catalog.state.next_run);
    }

    /// Lets readers open a file that is about to be listed.
    fn admit(&mut self, name: FileName) {
        Arc::make_mut(&mut self.files).insert(name);
        self.unlisted.remove(&name);
    }

    /// Gives back some of the space of removed files. Returns whether the same file has more,
    /// `None` when no space can be given back now.
    pub(crate) fn give_back_removed(&mut self) -> Result<Option<bool>> {
        self.removed.shrink()
    }

    /// Makes the names of new files durable.
    fn name_files(&self) -> Result<()> {
        let named = self.dir.sync();
        named.map_err(|error| Error::io("naming the store's files", error))
    }

    fn new_run(&mut self) -> u64 {
        let run = self.next_run;
        self.next_run += 1;
        debug_assert!(run < self.catalog.state.end_of_runs());
        run
    }

    /// Begins a run in a file that is not listed yet.
    fn create_run(&mut self, meta: RunMeta) -> Result<RunWriter> {
        let name = FileName::Run(meta.id);
        self.unlisted.insert(name);
        let file = self.files.opener().create(name, Caching::Buffered)?;
        Ok(RunWriter::new(meta, self.catalog.state.seed, file))
    }

    /// Gives readers the current catalog with the tables of the last commit.
    fn show(&self, tables: Arc<Tables>) {
        let (files, blocks) = (self.files.clone(), self.blocks.clone());
        self.views.set(View::new(tables, files, blocks, &self.catalog));
    }

    /// Closes the file. Views of the store answer [`ErrorKind::Closed`] from then on. Dropping the
    /// store closes the file too, without writing to it, as a crash would; neither loses anything.
    pub(crate) fn close(self) -> Result<()> {
        self.files.opener().close_all();
        self.database.close()
    }

    /// From now on every commit records that the journal is durable up to `sequence`.
    pub(crate) fn journal_reached(&mut self, sequence: u64) {
        self.reached.sequence = sequence;
    }

    /// The records in flight whose checkpoints a fold has stored: each as it is in memory, and
    /// without the bytes of its checkpoint.
    pub(crate) fn without_checkpoint_bytes(
        &self,
        fold: &Fold,
    ) -> Vec<(KeyHash, Arc<Record>, Arc<Record>)> {
        let folded = fold.entries.iter().filter_map(|(hash, versioned)| {
            let record = versioned.record.as_ref().filter(|record| record.is_in_flight())?;
            let seed = record_codec::open_seed(self.catalog.state.seed, *hash);
            let light = record.without_checkpoint_bytes(|checkpoint| checkpoint.stored(seed))?;
            Some((*hash, record.clone(), Arc::new(light)))
        });
        folded.collect()
    }

    pub(crate) fn state(&self) -> StoreState {
        self.catalog.state.clone()
    }

    /// The view of the last commit.
    pub(crate) fn view(&self) -> Arc<View> {
        self.views.current()
    }

    /// The place where readers always get the view of the last commit.
    pub(crate) fn views(&self) -> CurrentView {
        self.views.clone()
    }

    /// The bytes of the store file and of the files that it lists.
    pub(crate) fn file_bytes(&self) -> Result<u64> {
        let len = self.file.len();
        let len = len.map_err(|error| Error::io("the store file's length", error))?;
        Ok(len + self.catalog.file_bytes())
    }

    /// Whether a sweep would remove a record file.
    pub(crate) fn has_expired_files(&self, now: Time) -> bool {
        self.catalog.buckets().keys().any(|bucket_end| *bucket_end <= now.0)
    }

    /// Loads the filter and the starts of one run. Returns `false` when there is none left to load.
    pub(crate) fn load_next_filter(&mut self) -> Result<bool> {
        // The newest first: most lookups are for its bucket.
        let mut unloaded = self.catalog.runs.values_mut().rev();
        let unloaded = unloaded.find(|run| matches!(run.filter, FilterSlot::Unloaded));
        let Some(run) = unloaded else {
            return Ok(false);
        };
        let reader = RunReader::of(&self.files, &run.meta, self.catalog.state.seed)?;
        let watch = self.database.watch();
        // Damage is no error here: both only save reads, and the blocks have all entries.
        let filter = unless_damaged(watch.guarded(|| reader.filter()))?;
        run.starts = unless_damaged(watch.guarded(|| reader.starts()))?;
        run.filter =
            filter.map_or(FilterSlot::Damaged, |filter| FilterSlot::Loaded(Arc::new(filter)));
        self.show(self.view().tables.clone());
        Ok(true)
    }
}

/// The value, or `None` if it is damaged.
fn unless_damaged<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind() == ErrorKind::Corrupted => Ok(None),
        read => read.map(Some),
    }
}

/// Each commit has two syncs, so that the slot that redb reads first is always whole. It includes
/// the state of the allocator, so that an open after a crash does not walk the file.
fn transact<T>(database: &Handle, work: impl FnOnce(&WriteTransaction) -> Result<T>) -> Result<T> {
    database.watch().guarded(|| {
        let mut transaction = database.begin_write().map_err(failed)?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        // On an error the transaction is dropped, which rolls it back.
        let output = work(&transaction)?;
        transaction.commit().map_err(failed)?;
        Ok(output)
    })
}

/// Writes the state row, and makes sure that all tables exist.
fn write_state(transaction: &WriteTransaction, state: &StoreState) -> Result<()> {
    let mut rows = transaction.open_table(STATE).map_err(failed)?;
    rows.insert(STATE_KEY, state.encode().as_slice()).map_err(failed)?;
    transaction.open_table(RUNS).map_err(failed)?;
    transaction.open_table(OPEN).map_err(failed)?;
    transaction.open_table(CHECKPOINTS).map_err(failed)?;
    Ok(())
}

/// Makes a new `store.redb` in `dir`, filled by `fill`.
fn create_file(
    dir: &Arc<dyn Directory>,
    cache_bytes: usize,
    fill: impl FnOnce(&Handle) -> Result<()>,
) -> Result<()> {
    if Store::exists(&**dir)? {
        return Err(Error::invalid("there is a store.redb already"));
    }
    let context = |error| Error::io("creating store.redb", error);
    match dir.remove(TEMPORARY_FILE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(context(error)),
        _ => {}
    }
    let file = dir.create(TEMPORARY_FILE, Caching::Buffered).map_err(context)?;
    let writes = StoreFile::open(&**dir, TEMPORARY_FILE, file.clone()).map_err(context)?;
    let database = Handle::open(Backend::released(writes), cache_bytes, false)?;
    database.watch().guarded(|| fill(&database))?;
    database.close()?;
    file.sync().map_err(context)?;
    dir.rename(TEMPORARY_FILE, FILE).map_err(context)?;
    dir.sync().map_err(context)
}
