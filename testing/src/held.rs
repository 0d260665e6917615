//! A disk that can hold syncs, to look at the moment between a write and its sync, and that can
//! hold one read, to make a lookup stall.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

use oncekey::disk::{Caching, Directory, Disk, DiskFile, Lockable};
use parking_lot::{Condvar, Mutex};

/// A disk that holds syncs, and one read, of the files whose name contains `part`, when the test
/// asks for it.
#[derive(Clone, Debug)]
pub struct HeldDisk {
    disk: Arc<dyn Disk>,
    part: &'static str,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    held: bool,
    waiting: usize,
    /// How many syncs may still pass while the gate is closed.
    passes: usize,
    read: HeldRead,
}

/// The one read that is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HeldRead {
    #[default]
    None,
    /// The next read will be held.
    Armed,
    Waiting,
}

impl Gate {
    fn pass_read(&self) {
        let mut state = self.state.lock();
        if state.read != HeldRead::Armed {
            return;
        }
        state.read = HeldRead::Waiting;
        while state.read == HeldRead::Waiting {
            self.changed.wait(&mut state);
        }
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        while state.held && state.passes == 0 {
            self.changed.wait(&mut state);
        }
        state.passes = state.passes.saturating_sub(1);
        state.waiting -= 1;
    }
}

impl HeldDisk {
    /// A disk that holds nothing yet.
    pub fn new(disk: impl Disk, part: &'static str) -> Self {
        Self { disk: Arc::new(disk), part, gate: Arc::default() }
    }

    /// Holds the syncs that start from now on.
    pub fn hold(&self) {
        self.gate.state.lock().held = true;
    }

    /// Holds the next read, and lets the reads of other threads pass meanwhile.
    pub fn hold_next_read(&self) {
        self.gate.state.lock().read = HeldRead::Armed;
    }

    /// Whether a read is held now.
    pub fn holds_read(&self) -> bool {
        self.gate.state.lock().read == HeldRead::Waiting
    }

    /// Lets the held read go on.
    pub fn release_read(&self) {
        self.gate.state.lock().read = HeldRead::None;
        self.gate.changed.notify_all();
    }

    /// Waits until a sync is held.
    pub fn wait_for_sync(&self) {
        let mut state = self.gate.state.lock();
        while state.waiting == 0 {
            self.gate.changed.wait(&mut state);
        }
    }

    /// Lets one sync go on, and holds the syncs after it.
    pub fn release_one(&self) {
        let mut state = self.gate.state.lock();
        state.passes += 1;
        self.gate.changed.notify_all();
        while state.passes > 0 {
            self.gate.changed.wait_for(&mut state, std::time::Duration::from_millis(1));
        }
    }

    /// Lets all syncs go on.
    pub fn release(&self) {
        self.gate.state.lock().held = false;
        self.gate.changed.notify_all();
    }
}

impl Disk for HeldDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Directory>> {
        let (part, gate) = (self.part, self.gate.clone());
        Ok(Arc::new(HeldDirectory { directory: self.disk.open_dir(path)?, part, gate }))
    }
    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename_dir(from, to)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn network_filesystem(&self, path: &Path) -> io::Result<Option<&'static str>> {
        self.disk.network_filesystem(path)
    }
}

#[derive(Debug)]
struct HeldDirectory {
    directory: Arc<dyn Directory>,
    part: &'static str,
    gate: Arc<Gate>,
}

impl HeldDirectory {
    fn wrap(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        if name.contains(self.part) {
            Arc::new(HeldFile { file, gate: self.gate.clone() })
        } else {
            file
        }
    }
}

impl Directory for HeldDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.list()
    }
    fn file_len(&self, name: &str) -> io::Result<u64> {
        self.directory.file_len(name)
    }
    fn open(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(name, self.directory.open(name, caching)?))
    }
    fn create(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(name, self.directory.create(name, caching)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.directory.remove(name)
    }
    fn sync(&self) -> io::Result<()> {
        self.directory.sync()
    }
    fn lock(&self, what: Lockable<'_>) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.directory.lock(what)
    }
    fn narrow(&self, names: &[String]) -> io::Result<()> {
        self.directory.narrow(names)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.directory.free_bytes()
    }
    fn version(&self) -> io::Result<Option<u64>> {
        self.directory.version()
    }
}

#[derive(Debug)]
struct HeldFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl DiskFile for HeldFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.gate.pass_read();
        self.file.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync()
    }
    fn is_named(&self) -> io::Result<bool> {
        self.file.is_named()
    }
}
