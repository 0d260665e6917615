//! The operations of a disk and of its directories, by paths.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

use oncekey::disk::{Caching, DiskFile};

use super::SimDisk;
use super::fault::OpKind;

/// The operations of [`Disk`](oncekey::disk::Disk) and [`Directory`](oncekey::disk::Directory), by paths.
impl SimDisk {
    /// As [`Directory::list`](oncekey::disk::Directory::list).
    pub fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.on_path(OpKind::List, path, |state| state.tree.list(path))
    }

    /// As [`Directory::open`](oncekey::disk::Directory::open).
    pub fn open(&self, path: &Path, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        self.on_path(OpKind::Open, path, |state| self.open_in(state, path, caching))
    }

    /// As [`Directory::create`](oncekey::disk::Directory::create).
    pub fn create(&self, path: &Path, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        self.on_path(OpKind::Create, path, |state| self.create_in(state, path, caching))
    }

    /// As [`Directory::rename`](oncekey::disk::Directory::rename), between any directories.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.on_path(OpKind::Rename, from, |state| state.rename(from, to))
    }

    /// As [`Directory::remove`](oncekey::disk::Directory::remove).
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.on_path(OpKind::Remove, path, |state| state.remove(path))
    }

    /// As [`Directory::lock`](oncekey::disk::Directory::lock) of a file.
    pub fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.on_path(OpKind::Lock, path, |state| self.lock_in(state, path))
    }
}
