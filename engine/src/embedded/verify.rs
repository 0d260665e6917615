//! Checking a store that nobody has open.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::backend::reports::Verification;
use crate::base::error::{ErrorKind, Result};
use crate::embedded::directory;
use crate::embedded::disk::{Caching, Directory, DiskFile, Lockable};
use crate::embedded::journal::{self, JournalId, Start};
use crate::embedded::options::Options;
use crate::embedded::store::{Store, StoreState};

pub(crate) fn verify_with(options: &Options, path: &Path) -> Result<Verification> {
    let (home, _lock) = directory::open(options, path, false)?;
    let mut found = Verification::default();
    let state =
        Store::verify(&home.handle, options.store_cache_bytes(), options.open_files(), &mut found)?;
    if let Some(state) = state {
        match verify_journal(options, &home.handle, &state) {
            Err(error)
                if matches!(error.kind(), ErrorKind::Corrupted | ErrorKind::StoreTruncated) =>
            {
                found.damaged(None, &error);
            }
            result => result?,
        }
    }
    Ok(found)
}

/// Recovers the journal, as an open does, with nothing written.
fn verify_journal(options: &Options, dir: &Arc<dyn Directory>, state: &StoreState) -> Result<()> {
    let dir: Arc<dyn Directory> = Arc::new(Untouched(dir.clone()));
    let start = Start {
        position: state.replay_from,
        next_sequence: state.folded_through + 1,
        epoch: state.epoch,
    };
    let id = JournalId::new(state.incarnation, &state.secret);
    journal::recover(&dir, id, options.segment_bytes, start, &mut |_, _, _| Ok(())).map(drop)
}

/// A directory that is read and never changed: the bytes that recovery writes again are there
/// already, and the files that it removes are nobody's.
#[derive(Debug)]
struct Untouched(Arc<dyn Directory>);

impl Directory for Untouched {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UntouchedFile(self.0.open(name, caching)?)))
    }
    fn file_len(&self, name: &str) -> io::Result<u64> {
        self.0.file_len(name)
    }
    fn create(&self, _: &str, _: Caching) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, what: Lockable<'_>) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.0.lock(what)
    }
    fn narrow(&self, _: &[String]) -> io::Result<()> {
        Ok(())
    }
    fn version(&self) -> io::Result<Option<u64>> {
        self.0.version()
    }
}

#[derive(Debug)]
struct UntouchedFile(Arc<dyn DiskFile>);

impl DiskFile for UntouchedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_named(&self) -> io::Result<bool> {
        self.0.is_named()
    }
}
