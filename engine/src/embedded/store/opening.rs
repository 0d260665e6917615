//! Opening the store file: it is read and verified first, and settled once everything else was
//! verified, too.

use std::io;
use std::sync::Arc;

use super::catalog::Catalog;
use super::file_set::{Files, Opener};
use super::leftovers::{Leftovers, Listing};
use super::redb::backend::Backend;
use super::redb::storage::{Handle, inspect};
use super::redb::tables::Tables;
use super::redb::write_buffer::StoreFile;
use super::run::block_cache::BlockCache;
use super::view::{CurrentView, View};
use super::{FILE, Removed, Store, StoreState};
use crate::base::error::{Error, ErrorKind, Result};
use crate::embedded::disk::{Caching, Directory, DiskFile};
use crate::embedded::journal::Reached;

/// A store that was read and verified, and not touched.
pub(crate) struct InspectedStore {
    store: Store,
}

impl Store {
    /// Reads and verifies the `store.redb` in `dir`. Nothing is written: redb opens the file, and
    /// repairs it if it was not closed cleanly, but its writes are held back in memory until
    /// [`settle`](InspectedStore::settle).
    ///
    /// Most of `cache_bytes` is for blocks of runs, a sixth for the pages of redb.
    pub(crate) fn inspect(
        dir: &Arc<dyn Directory>,
        cache_bytes: usize,
        max_open_files: usize,
    ) -> Result<InspectedStore> {
        let page_bytes = cache_bytes / 6;
        let (database, backend, file) = open_held(dir, page_bytes, false)?;
        let (tables, catalog) = database.watch().guarded(|| {
            let tables = Tables::open(&database)?;
            let catalog = Catalog::load(&tables)?;
            Ok((tables, catalog))
        })?;
        let opener = Opener::new(dir.clone(), max_open_files);
        let files = Arc::new(Files::listed(opener, catalog.file_names())?);
        let blocks = Arc::new(BlockCache::new(cache_bytes - page_bytes));
        let view = View::new(Arc::new(tables), files.clone(), blocks.clone(), &catalog);
        let store = Self {
            database,
            dir: dir.clone(),
            file,
            views: CurrentView::new(view),
            next_run: catalog.state.next_run,
            reached: catalog.state.reached,
            catalog,
            files,
            unlisted: Default::default(),
            removed: Removed::default(),
            blocks,
            latched: false,
            backend,
            pending: None,
            merge: None,
            merge_failed: false,
            folds: 0,
            last_fold_of: Default::default(),
        };
        Ok(InspectedStore { store })
    }
}

impl InspectedStore {
    pub(crate) fn state(&self) -> StoreState {
        self.store.state()
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.store.view()
    }

    /// The bytes of the store file and of the files that it lists.
    pub(crate) fn file_bytes(&self) -> Result<u64> {
        self.store.file_bytes()
    }

    /// The files that are not listed, for a journal that ends with `last_sequence`.
    ///
    /// # Errors
    /// `Corrupted` when one of them cannot be left over from interrupted work.
    pub(crate) fn leftovers(&self, last_sequence: u64) -> Result<Leftovers> {
        let Store { dir, catalog, .. } = &self.store;
        Listing::of(catalog).leftovers(&**dir, last_sequence)
    }

    /// Commits how far the journal will be durable, in memory until the file is
    /// [settled](Self::settle). Damage to redb's own bookkeeping shows here.
    pub(crate) fn state_reached(&mut self, reached: Reached) -> Result<()> {
        self.store.reached = reached;
        self.store.commit(|_, _| Ok(()))
    }

    /// Lets redb's writes go to the file. Called once everything was verified and the new epoch is
    /// durable.
    pub(crate) fn settle(self) -> Result<Store> {
        let Self { store } = self;
        let released = store.backend.release().map_err(|unreleased| unreleased.error);
        released
            .and_then(|()| reassert_length(&*store.file))
            .map_err(|error| Error::io("repairing store.redb", error))?;
        Ok(store)
    }
}

/// Makes the file's length durable once more. A sync that failed before this open may have dropped
/// a growth that the page cache still shows, and redb does not grow the file to this length again.
fn reassert_length(file: &dyn DiskFile) -> io::Result<()> {
    file.set_len(file.len()?)?;
    file.sync()
}

/// Opens the `store.redb` in `dir` with all writes held back.
pub(super) fn open_held(
    dir: &Arc<dyn Directory>,
    cache_bytes: usize,
    check: bool,
) -> Result<(Handle, Backend, Arc<dyn DiskFile>)> {
    let file = dir.open(FILE, Caching::Buffered).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::caused_by(ErrorKind::StoreMissing, "no store.redb", error)
        }
        _ => Error::io("opening store.redb", error),
    })?;
    inspect(&*file)?;
    let writes = StoreFile::open(&**dir, FILE, file.clone())
        .map_err(|error| Error::io("opening store.redb", error))?;
    let backend = Backend::held(writes);
    let database = Handle::open(backend.clone(), cache_bytes, check)?;
    Ok((database, backend, file))
}
