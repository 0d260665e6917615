//! Checking a store that nobody has open.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::backend::reports::Verification;
use crate::base::error::{ErrorKind, Result};
use crate::embedded::directory;
use crate::embedded::disk::{Caching, Disk, DiskFile};
use crate::embedded::journal::{self, JournalId, Start};
use crate::embedded::options::Options;
use crate::embedded::store::{Store, StoreState};

pub(crate) fn verify_with(options: &Options, path: &Path) -> Result<Verification> {
    let _lock = directory::open(options, path, false)?;
    let mut found = Verification::default();
    let state = Store::verify(&options.disk, path, options.store_cache_bytes(), &mut found)?;
    if let Some(state) = state {
        match verify_journal(options, path, &state) {
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
fn verify_journal(options: &Options, path: &Path, state: &StoreState) -> Result<()> {
    let disk: Arc<dyn Disk> = Arc::new(Untouched(options.disk.clone()));
    let start = Start {
        position: state.replay_from,
        next_sequence: state.folded_through + 1,
        epoch: state.epoch,
    };
    let id = JournalId::new(state.incarnation, &state.secret);
    journal::recover(&disk, path, id, options.segment_bytes, start, &mut |_, _, _| Ok(())).map(drop)
}

/// A disk that is read and never changed: what recovery writes again is there already, and what it
/// removes is nobody's.
#[derive(Debug)]
struct Untouched(Arc<dyn Disk>);

impl Disk for Untouched {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.list(path)
    }
    fn open(&self, path: &Path, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UntouchedFile(self.0.open(path, caching)?)))
    }
    fn create(&self, _: &Path, _: Caching) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.0.lock(path)
    }
    fn network_filesystem(&self, path: &Path) -> io::Result<Option<&'static str>> {
        self.0.network_filesystem(path)
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
}
