//! The directories of a disk in memory, and the locks on files and directories.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oncekey::disk::{Caching, Directory, Disk, DiskFile, Lockable};

use super::fault::{OpKind, power_off_error};
use super::names::error;
use super::tree::NodeId;
use super::{SimDisk, State, contents};

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.on_path(OpKind::CreateDir, path, |state| {
            if state.settings.read_only {
                // An existing directory is no error, even on a read-only disk.
                return state.tree.list(path).map(drop).or_else(|_| state.check_writable());
            }
            state.tree.create_dirs(path)
        })
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Directory>> {
        self.on_path(OpKind::OpenDir, path, |state| {
            state.tree.list(path)?;
            let node = state.tree.lookup(path)?;
            Ok(Arc::new(SimDirectory { disk: self.clone(), node, opened_at: path.to_owned() }) as _)
        })
    }

    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.on_path(OpKind::RenameDir, from, |state| {
            state.check_writable()?;
            state.tree.rename_dir(from, to)
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.on_path(OpKind::RemoveDir, path, |state| {
            state.check_writable()?;
            state.tree.remove_dir(path)
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.on_path(OpKind::SyncDir, path, |state| state.sync_dir(path))
    }

    fn network_filesystem(&self, path: &Path) -> io::Result<Option<&'static str>> {
        self.on_path(OpKind::NetworkFilesystem, path, |state| {
            state.tree.lookup(path)?;
            Ok(state.settings.network.then_some("NFS"))
        })
    }
}

/// A directory of a [`SimDisk`]. Follows the directory when it is moved.
#[derive(Clone, Debug)]
pub(super) struct SimDirectory {
    pub(super) disk: SimDisk,
    pub(super) node: NodeId,
    pub(super) opened_at: PathBuf,
}

impl SimDirectory {
    fn path(&self, state: &State) -> io::Result<PathBuf> {
        let tree = &state.tree;
        if tree.lookup(&self.opened_at).is_ok_and(|found| found == self.node) {
            return Ok(self.opened_at.clone());
        }
        tree.path_of(self.node).ok_or_else(|| error(io::ErrorKind::NotFound, &self.opened_at))
    }

    /// Runs an operation on the directory, or on its entry `name`. The operation finds the
    /// directory under the lock that it takes, since another thread may move the directory and give
    /// its old name to another one.
    fn on<T>(
        &self,
        kind: OpKind,
        name: Option<&str>,
        action: impl FnOnce(&mut State, &Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let path = |state: &State| {
            let directory = self.path(state)?;
            Ok::<_, io::Error>(name.map_or(directory.clone(), |name| directory.join(name)))
        };
        let seen = path(&self.disk.state.lock())?;
        self.disk.on_path(kind, &seen, |state| {
            let found = path(state)?;
            action(state, &found)
        })
    }
}

impl Directory for SimDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        self.on(OpKind::List, None, |state, path| state.tree.list(path))
    }

    fn open(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        self.on(OpKind::Open, Some(name), |state, path| self.disk.open_in(state, path, caching))
    }

    fn file_len(&self, name: &str) -> io::Result<u64> {
        self.on(OpKind::Len, Some(name), |state, path| {
            let node = state.tree.lookup_file(path)?;
            Ok(state.tree.file(node).seen.len())
        })
    }

    fn create(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        self.on(OpKind::Create, Some(name), |state, path| self.disk.create_in(state, path, caching))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.on(OpKind::Rename, Some(from), |state, path| {
            state.rename(path, &path.with_file_name(to))
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.on(OpKind::Remove, Some(name), |state, path| state.remove(path))
    }

    fn sync(&self) -> io::Result<()> {
        self.on(OpKind::SyncDir, None, |state, path| state.sync_dir(path))
    }

    fn lock(&self, what: Lockable<'_>) -> io::Result<Box<dyn Any + Send + Sync>> {
        match what {
            Lockable::Created(name) => {
                self.on(OpKind::Lock, Some(name), |state, path| self.disk.lock_in(state, path))
            }
            Lockable::File(name) => self.on(OpKind::Lock, Some(name), |state, path| {
                let file = state.tree.lookup_file(path)?;
                self.disk.take_lock(state, file, path)
            }),
            Lockable::Directory => self
                .on(OpKind::Lock, None, |state, path| self.disk.take_lock(state, self.node, path)),
        }
    }

    /// The files of this disk have no rights.
    fn narrow(&self, _: &[String]) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        Ok(state.free_pages().saturating_mul(contents::PAGE as u64))
    }

    fn version(&self) -> io::Result<Option<u64>> {
        let state = self.disk.state.lock();
        if state.powered_off {
            return Err(power_off_error());
        }
        Ok(Some(state.tree.changes()))
    }
}

#[derive(Debug)]
pub(super) struct LockGuard {
    pub(super) disk: SimDisk,
    pub(super) node: NodeId,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.disk.state.lock().locks.remove(&self.node);
    }
}
