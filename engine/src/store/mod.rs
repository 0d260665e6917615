//! The store: the records that the journal no longer holds, in record files and one redb file.
//!
//! The only module that names redb. The folder thread owns the [`Store`] and is its only writer;
//! every other thread reads through an immutable [`View`], which is swapped after each commit, so
//! that the catalog in memory and the snapshot in the file always belong together.
//!
//! Completed records lie in [record files](records) by expiry bucket and are indexed by runs; records in
//! flight and orphans have a table of their own with an index in memory. Read [`schema`] for the tables,
//! [`fold`](Store::fold) for how records come in, [`View::get`] for how they are found, then
//! [`merge`] and [`sweep`].

mod backend;
mod backup;
mod catalog;
mod filter;
mod fold;
mod merge;
mod record;
mod records;
mod run;
mod schema;
mod sweep;
#[cfg(test)]
mod tests;
mod verify;
mod view;
mod writes;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::WriteTransaction;

use self::backend::{Backend, Handle, failed, inspect};
use self::catalog::{Catalog, FilterSlot};
use self::merge::MergeJob;
use self::records::{RecordFile, RecordFiles};
use self::schema::{BLOCKS, FILTERS, OPEN, RUNS, STATE, STATE_KEY, Stage};
use self::view::Tables;
use self::writes::StoreFile;
use crate::clock::Time;
use crate::disk::{Caching, Disk, DiskFile};
use crate::error::{Error, ErrorKind, Result};

// What the engine needs of this module.
#[allow(unused_imports)]
pub(crate) use self::{
    fold::{Appended, Fold, FoldReport},
    schema::StoreState,
    sweep::SweepReport,
    view::{View, Views},
};

pub(crate) const FILE: &str = "store.redb";
/// A store that is not whole yet.
pub(crate) const TEMPORARY_FILE: &str = "store.redb.new";

pub(crate) fn is_record_file(name: &str) -> bool {
    records::bucket_of(name).is_some()
}

/// An open store. See the module.
pub(crate) struct Store {
    database: Handle,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Arc<dyn DiskFile>,
    cache_bytes: usize,
    /// As the last commit left it.
    catalog: Catalog,
    files: Arc<RecordFiles>,
    /// Removed, and not closed: their space is given back step by step.
    removed: Vec<Arc<RecordFile>>,
    views: Views,
    /// A commit failed and may have happened: the catalog may be behind the file, which must not be
    /// written before it was opened again. redb latches too, but only after an error of its file.
    latched: bool,
    merge: Option<MergeJob>,
    /// A merge failed: its inputs are damaged or the file is. Merges rest until the store is
    /// reopened; answers do not depend on them.
    merge_failed: bool,
    /// Folds since the store was opened, and which of them last put a run into a bucket.
    folds: u64,
    last_fold_of: BTreeMap<u64, u64>,
}

impl Store {
    /// Creates `store.redb` in `dir`, which must have none: written and synced under another name,
    /// then renamed, since redb's creation does not survive a crash half-way.
    pub(crate) fn create(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        cache_bytes: usize,
        state: &StoreState,
    ) -> Result<()> {
        create_file(disk, dir, cache_bytes, |database| {
            transact(database, |transaction| write_state(transaction, state))
        })
    }

    pub(crate) fn exists(disk: &Arc<dyn Disk>, dir: &Path) -> Result<bool> {
        let names = disk.list(dir).map_err(|error| Error::io("the store's directory", error))?;
        Ok(names.iter().any(|name| name == FILE))
    }

    /// Opens the `store.redb` in `dir`. A file that is refused is left untouched: redb opens it,
    /// and if it was not closed cleanly repairs it, with its writes held back in memory, and only
    /// once the state, the catalog and the open records were verified do they go to the file.
    ///
    /// `cache_bytes` should be at least twice what a fold brings: what does not fit is written
    /// twice and read back in between, since redb seals its pages only when it commits.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path, cache_bytes: usize) -> Result<Self> {
        let (database, backend, file) = open_held(disk, dir, cache_bytes, false)?;
        let (tables, catalog) = database.watch().guarded(|| {
            let tables = Tables::open(&database)?;
            let catalog = Catalog::load(&tables)?;
            Ok((tables, catalog))
        })?;
        let files = RecordFiles::open(&**disk, dir, catalog.buckets().into_keys())?;
        backend
            .release()
            .and_then(|()| reassert_length(&*file))
            .map_err(|error| Error::io("repairing store.redb", error))?;
        let files = Arc::new(files);
        let mut store = Self {
            database,
            disk: disk.clone(),
            dir: dir.to_owned(),
            file,
            cache_bytes,
            views: Views::new(View::new(Arc::new(tables), files.clone(), &catalog)),
            catalog,
            files,
            removed: Vec::new(),
            latched: false,
            merge: None,
            merge_failed: false,
            folds: 0,
            last_fold_of: BTreeMap::new(),
        };
        store.drop_unfinished_runs()?;
        store.remove_leftover_files()?;
        Ok(store)
    }

    /// Of a fold that did not commit, or swept in a process that ended before they were removed.
    fn remove_leftover_files(&mut self) -> Result<()> {
        let names = self.disk.list(&self.dir);
        let names = names.map_err(|error| Error::io("the store's directory", error))?;
        let buckets = names.iter().filter_map(|name| records::bucket_of(name)).collect();
        self.remove_unlisted(buckets).map(drop)
    }

    /// Removes the record files of those of the buckets that have no live run; gives how many. Views
    /// that were made before keep them open.
    fn remove_unlisted(&mut self, mut buckets: Vec<u64>) -> Result<u64> {
        let live = self.catalog.buckets();
        buckets.retain(|bucket_end| !live.contains_key(bucket_end));
        for bucket_end in &buckets {
            records::remove(&*self.disk, &self.dir, *bucket_end)?;
            self.removed.extend(Arc::make_mut(&mut self.files).take(*bucket_end));
        }
        Ok(buckets.len() as u64)
    }

    /// Gives back some of the space of removed files; `false` when nothing can be given back now.
    fn shrink_removed(&mut self) -> bool {
        // Through a view that was made before, somebody may read the file still.
        let unread = self.removed.iter().position(|file| Arc::strong_count(file) == 1);
        if let Some(index) = unread
            && !self.removed[index].shrink()
        {
            self.removed.swap_remove(index);
        }
        unread.is_some()
    }

    /// Closes the file. Views of the store answer [`ErrorKind::Closed`] from then on. Dropping the
    /// store closes the file too, without writing to it, as a crash would; neither loses anything.
    pub(crate) fn close(self) -> Result<()> {
        self.database.close()
    }

    pub(crate) fn state(&self) -> StoreState {
        self.catalog.state.clone()
    }

    /// The view of the last commit.
    pub(crate) fn view(&self) -> Arc<View> {
        self.views.current()
    }

    /// For the threads that read: always gives the view of the last commit.
    pub(crate) fn views(&self) -> Views {
        self.views.clone()
    }

    /// The bytes of the store file and of the record files.
    pub(crate) fn file_bytes(&self) -> Result<u64> {
        let len = self.file.len();
        let len = len.map_err(|error| Error::io("the store file's length", error))?;
        Ok(len + self.catalog.buckets().values().sum::<u64>())
    }

    /// Whether a sweep would remove a record file.
    pub(crate) fn has_expired_files(&self, now: Time) -> bool {
        self.catalog.buckets().keys().any(|bucket_end| *bucket_end <= now.0)
    }

    /// Loads the filter of one run. `false` when there is none left to load.
    pub(crate) fn load_next_filter(&mut self) -> Result<bool> {
        let unloaded = |run: &&catalog::Run| matches!(run.filter, FilterSlot::Unloaded);
        // The newest first: the buckets that most lookups are for.
        let newest = self.catalog.live_runs().filter(unloaded).last();
        let Some(meta) = newest.map(|run| run.meta) else {
            return Ok(false);
        };
        let view = self.view();
        let slot = match view.tables.watch.guarded(|| view.tables.filter(&meta, view.seed)) {
            Ok(filter) => FilterSlot::Loaded(Arc::new(filter)),
            // A filter only saves reads; the blocks still have all entries.
            Err(error) if error.kind() == ErrorKind::Corrupted => FilterSlot::Damaged,
            Err(error) => return Err(error),
        };
        if let Some(run) = self.catalog.runs.get_mut(&meta.id) {
            run.filter = slot;
        }
        self.views.set(View::new(view.tables.clone(), self.files.clone(), &self.catalog));
        Ok(true)
    }

    /// One durable transaction: `work` writes rows and changes its copy of the catalog alike, which
    /// replaces the store's, and gets a view, only once redb said that the commit is durable.
    ///
    /// An error of `work` leaves the store as it was. After an error of the commit itself, which
    /// may have happened, nothing is written any more.
    fn commit<T>(
        &mut self,
        work: impl FnOnce(&WriteTransaction, &mut Catalog) -> Result<T>,
    ) -> Result<T> {
        if self.latched {
            return Err(Error::new(ErrorKind::Unavailable, "a commit of store.redb failed"));
        }
        let mut next = self.catalog.clone();
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
        self.catalog = next;
        self.views.set(View::new(Arc::new(tables), self.files.clone(), &self.catalog));
        Ok(output)
    }

    /// What a merge wrote that is no longer under way is for the sweeper: a merge does not outlive
    /// its process, nor an error.
    fn drop_unfinished_runs(&mut self) -> Result<()> {
        let unfinished: Vec<_> = (self.catalog.runs.values())
            .filter(|run| run.meta.stage == Stage::Building)
            .map(|run| run.meta.id)
            .collect();
        if unfinished.is_empty() {
            return Ok(());
        }
        self.commit(|transaction, next| {
            let mut rows = transaction.open_table(RUNS).map_err(failed)?;
            unfinished.iter().try_for_each(|id| next.set_stage(&mut rows, *id, Stage::Dropped))
        })
    }
}

/// Makes the file's length durable once more: a sync that failed before this open may have dropped
/// a growth that the page cache still shows, and redb will not grow the file to it again.
fn reassert_length(file: &dyn DiskFile) -> io::Result<()> {
    file.set_len(file.len()?)?;
    file.sync()
}

/// Opens the `store.redb` in `dir` with all writes held back.
fn open_held(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    cache_bytes: usize,
    check: bool,
) -> Result<(Handle, Backend, Arc<dyn DiskFile>)> {
    let path = dir.join(FILE);
    let file = disk.open(&path, Caching::Buffered).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::caused_by(ErrorKind::StoreMissing, "no store.redb", error)
        }
        _ => Error::io("opening store.redb", error),
    })?;
    inspect(&*file)?;
    let writes = StoreFile::open(&**disk, &path, file.clone())
        .map_err(|error| Error::io("opening store.redb", error))?;
    let backend = Backend::held(writes);
    let database = Handle::open(backend.clone(), cache_bytes, check)?;
    Ok((database, backend, file))
}

/// Two syncs a commit, so that the slot that redb reads first is always whole, and with the
/// allocator's state, so that opening after a crash does not walk the file.
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

/// Writes the state row, and sees to it that all tables exist.
fn write_state(transaction: &WriteTransaction, state: &StoreState) -> Result<()> {
    let mut rows = transaction.open_table(STATE).map_err(failed)?;
    rows.insert(STATE_KEY, state.encode().as_slice()).map_err(failed)?;
    transaction.open_table(RUNS).map_err(failed)?;
    transaction.open_table(BLOCKS).map_err(failed)?;
    transaction.open_table(FILTERS).map_err(failed)?;
    transaction.open_table(OPEN).map_err(failed)?;
    Ok(())
}

/// Makes a new `store.redb` in `dir` out of what `fill` writes.
fn create_file(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    cache_bytes: usize,
    fill: impl FnOnce(&Handle) -> Result<()>,
) -> Result<()> {
    if Store::exists(disk, dir)? {
        return Err(Error::invalid("there is a store.redb already"));
    }
    let temporary = dir.join(TEMPORARY_FILE);
    let context = |error| Error::io("creating store.redb", error);
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(context(error)),
        _ => {}
    }
    let file = disk.create(&temporary, Caching::Buffered).map_err(context)?;
    let writes = StoreFile::open(&**disk, &temporary, file.clone()).map_err(context)?;
    let database = Handle::open(Backend::released(writes), cache_bytes, false)?;
    database.watch().guarded(|| fill(&database))?;
    database.close()?;
    file.sync().map_err(context)?;
    disk.rename(&temporary, &dir.join(FILE)).map_err(context)?;
    disk.sync_dir(dir).map_err(context)
}

/// Decodes the bytes as each kind of value, with the checksum that they should have.
#[cfg(fuzzing)]
pub(crate) fn fuzz_decode(bytes: &[u8]) {
    use self::run::Entry;
    use self::schema::{RunMeta, Stage};
    const SEED: u64 = 42;
    let seal_head = |seed| {
        let mut sealed = vec![0; 8];
        sealed.extend(bytes);
        let sum = crate::codec::checksum(seed, bytes);
        sealed[..8].copy_from_slice(&sum.to_le_bytes());
        sealed
    };
    let mut with_length = (bytes.len() as u32).to_le_bytes().to_vec();
    with_length.extend(bytes);
    let mut sealed = crate::codec::checksum(SEED, &with_length).to_le_bytes().to_vec();
    sealed.extend(with_length);
    for form in [bytes, &sealed] {
        drop(record::decode(form, SEED));
        record::peek_key(form);
    }
    let meta = RunMeta {
        id: u64::from_le_bytes(std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(0))),
        bucket_end: 9,
        entries: 1,
        end: 4096,
        blocks: 1,
        lines: 1,
        level: 0,
        stage: Stage::Live,
    };
    for form in [bytes.to_vec(), seal_head(SEED)] {
        if let Ok(block) = run::Block::decode(&form, &meta, 0, SEED) {
            // Only a run's writer orders entries, so one of these may be missed, but not mistaken.
            for Entry { hash, .. } in block.entries() {
                let found = block.find(hash).map(|locator| Entry { hash, locator });
                assert!(found.is_none_or(|found| block.entries().any(|entry| entry == found)));
            }
        }
        drop(filter::Filter::new(1).decode_piece(0, meta.id, SEED, &form));
    }
    drop(filter::Filter::new(1).decode_piece(0, meta.id, SEED, &seal_head(SEED ^ 0x6669_6c74)));
    drop(RunMeta::decode(bytes, SEED, 1));
    drop(StoreState::decode(bytes));
}
