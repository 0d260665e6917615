//! A deterministic filesystem in memory, for tests of what happens when a disk misbehaves.

mod contents;
mod crash;
mod fault;
mod file;
mod inspect;
mod names;
mod sim_directory;
mod sim_file;
#[cfg(test)]
mod tests;
mod tree;

use std::any::Any;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use oncekey::disk::{Caching, DiskFile};
use parking_lot::Mutex;

pub use crash::CrashMode;
use crash::Fate;
use fault::{Effect, Faults, power_off_error};
pub use fault::{Fault, Op, OpKind, Ops, is_power_off};
use file::File;
use names::error;
use sim_directory::LockGuard;
use sim_file::SimFile;
use tree::{NodeId, Tree};

/// A filesystem in memory that knows what is durable. Clones are the same disk.
///
/// - A write or change of length is durable after a sync of the file, a new, renamed or removed
///   name after a sync of its directory. Until then a crash image may miss it. Directories are
///   names in their parent like files. The root exists and is durable.
/// - Relative paths start at the root.
/// - On a file opened with [`Caching::Direct`] offsets, lengths and addresses of buffers that are
///   not multiples of [`BLOCK`](oncekey::disk::BLOCK) are refused. Its writes need a sync, too: they
///   stand in the device's volatile cache.
/// - Every method of [`Disk`](oncekey::disk::Disk) and [`DiskFile`] is one operation, which faults and the trace count.
///   The methods of this type are not.
///
/// All operations take one lock, so that each is atomic to other threads.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    tree: Tree,
    settings: Settings,
    faults: Faults,
    operations: u64,
    trace: Option<Vec<Op>>,
    album: Option<Album>,
    /// The files and directories that are locked.
    locks: BTreeSet<NodeId>,
    powered_off: bool,
}

/// Images of a disk at work.
struct Album {
    every: u64,
    skip: u64,
    mark: u64,
    images: Vec<(u64, SimDisk)>,
}

/// The settings that a crash does not change.
#[derive(Clone, Default)]
struct Settings {
    capacity: Option<u64>,
    read_only: bool,
    network: bool,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::with(Tree::new(), Settings::default())
    }

    fn with(tree: Tree, settings: Settings) -> Self {
        let state = State {
            tree,
            settings,
            faults: Faults::default(),
            operations: 0,
            trace: None,
            album: None,
            locks: BTreeSet::new(),
            powered_off: false,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The disk as a crash at this moment leaves it, as a new disk: powered, without locks,
    /// faults and trace, its operations counted from 0; capacity, read-only and network switches
    /// are taken over. This disk does not change, so that many images of one moment can be taken.
    pub fn crash(&self, mode: CrashMode) -> Self {
        let state = self.state.lock();
        let tree = match mode {
            CrashMode::PowerLoss { seed } => state.tree.after_power_loss(&mut Fate::seeded(seed)),
            CrashMode::LoseAllUnsynced => state.tree.after_power_loss(&mut Fate::lose_all()),
            CrashMode::ProcessKill => state.tree.after_process_kill(),
        };
        Self::with(tree, state.settings.clone())
    }

    /// Arms a fault. Several can wait at a time; of those due at one operation the first wins.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.arm(fault);
    }

    /// Disarms all faults.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// How many operations have failed through injected faults: proof that a fault was met.
    pub fn faults_fired(&self) -> u64 {
        self.state.lock().faults.fired
    }

    /// How many operations there were, failed ones included, those without power not.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Cuts the power: all operations fail from now on, and the disk stays as it is for
    /// [`crash`](Self::crash).
    pub fn power_off(&self) {
        self.state.lock().powered_off = true;
    }

    /// Cuts the power during the nth operation from now, counted from 0. See [`Fault::power_off`].
    pub fn power_off_at(&self, nth: u64) {
        self.inject(Fault::at(nth).power_off());
    }

    /// Whether the power is off.
    pub fn is_powered_off(&self) -> bool {
        self.state.lock().powered_off
    }

    /// Starts to record operations, dropping any earlier record.
    pub fn start_trace(&self) {
        self.state.lock().trace = Some(Vec::new());
    }

    /// Starts to keep the disk as it is before every `every`th operation that changes something,
    /// `skip` of them passed over first: for [`crash`](Self::crash), many times in one run. What an
    /// operation did that the next one finds is unsynced, so that it is torn in the image of that.
    pub fn start_images(&self, every: u64, skip: u64) {
        self.state.lock().album = Some(Album { every, skip, mark: 0, images: Vec::new() });
    }

    /// Names the images that are kept from now on.
    pub fn mark_images(&self, mark: u64) {
        if let Some(album) = &mut self.state.lock().album {
            album.mark = mark;
        }
    }

    /// The images kept so far, each with its mark, and keeps no more.
    pub fn take_images(&self) -> Vec<(u64, Self)> {
        self.state.lock().album.take().map(|album| album.images).unwrap_or_default()
    }

    /// The operations recorded so far, and stops recording.
    pub fn take_trace(&self) -> Vec<Op> {
        self.state.lock().trace.take().unwrap_or_default()
    }

    /// Limits the bytes that files can take, in whole pages; holes take none, written zeros do. A
    /// write that does not fit writes what fits and fails with ENOSPC.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().settings.capacity = bytes;
    }

    /// The bytes that files take.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().tree.allocated_pages() * contents::PAGE as u64
    }

    /// Makes every change fail with EROFS, as a filesystem does that was remounted after an error,
    /// and opening a file too, since that is for writing.
    pub fn set_read_only(&self, read_only: bool) {
        self.state.lock().settings.read_only = read_only;
    }

    /// Makes [`Disk::network_filesystem`](oncekey::disk::Disk::network_filesystem) answer "NFS".
    pub fn set_network_filesystem(&self, network: bool) {
        self.state.lock().settings.network = network;
    }

    /// Evicts clean pages, as memory pressure does: what a failed sync dropped (see
    /// [`Fault::drop_dirty`]) is no longer seen either.
    pub fn drop_caches(&self) {
        self.state.lock().tree.all_files_mut().for_each(File::evict_clean);
    }

    /// Makes everything durable, names and bytes, but for what a failed sync dropped.
    pub fn sync_all(&self) {
        self.state.lock().tree.sync_everything();
    }

    /// Runs one operation: counts it, fails it if a fault is due, else does `action`.
    fn operate<T>(
        &self,
        op: Op,
        action: impl FnOnce(&mut State, Effect) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        if state.powered_off {
            return Err(power_off_error());
        }
        state.operations += 1;
        state.keep_image(&op);
        let fault = state.faults.meet(&op);
        let kind = op.kind;
        if let Some(trace) = &mut state.trace {
            trace.push(op);
        }
        let Some((effect, failure)) = fault else {
            return action(&mut state, Effect::Applied);
        };
        state.powered_off = effect == Effect::PowerOff;
        let acts = match effect {
            Effect::Panic => panic!("injected panic"),
            Effect::Nothing => false,
            Effect::Applied => true,
            Effect::Partial(_) => kind == OpKind::Write,
            Effect::DropDirty => kind == OpKind::Sync,
            // A sync that the power cut did not let finish may have done any part of its work,
            // which is what an image makes of changes without a sync.
            Effect::PowerOff => !matches!(kind, OpKind::Sync | OpKind::SyncDir),
        };
        if acts {
            let result = action(&mut state, effect);
            // A file or a lock in the result takes the lock when dropped.
            drop(state);
            drop(result);
        }
        Err(failure)
    }

    fn on_path<T>(
        &self,
        kind: OpKind,
        path: &Path,
        action: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let op = Op { kind, path: path.to_owned(), offset: 0, len: 0 };
        self.operate(op, |state, _| action(state))
    }

    fn handle(&self, state: &mut State, node: u64, path: &Path, caching: Caching) -> SimFile {
        state.tree.file_mut(node).handles += 1;
        SimFile { disk: self.clone(), node, path: path.to_owned(), caching }
    }
}

impl State {
    fn keep_image(&mut self, op: &Op) {
        let Some(album) = self.album.as_mut().filter(|_| op.kind.is_change()) else { return };
        if album.skip > 0 {
            album.skip -= 1;
            return;
        }
        album.skip = album.every - 1;
        let image = SimDisk::with(self.tree.clone(), self.settings.clone());
        album.images.push((album.mark, image));
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.settings.read_only {
            true => Err(io::Error::from_raw_os_error(Fault::EROFS)),
            false => Ok(()),
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_writable()?;
        self.tree.rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.check_writable()?;
        self.tree.remove(path)
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.tree.is_dir_synced(path)? {
            self.check_writable()?;
        }
        self.tree.sync_dir(path)
    }

    fn free_pages(&self) -> u64 {
        self.settings.capacity.map_or(u64::MAX, |capacity| {
            (capacity / contents::PAGE as u64).saturating_sub(self.tree.allocated_pages())
        })
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}

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

    fn open_in(
        &self,
        state: &mut State,
        path: &Path,
        caching: Caching,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let node = state.tree.lookup_file(path)?;
        state.check_writable()?;
        Ok(Arc::new(self.handle(state, node, path, caching)))
    }

    fn create_in(
        &self,
        state: &mut State,
        path: &Path,
        caching: Caching,
    ) -> io::Result<Arc<dyn DiskFile>> {
        state.check_writable()?;
        let node = state.tree.create_file(path)?;
        Ok(Arc::new(self.handle(state, node, path, caching)))
    }

    fn lock_in(&self, state: &mut State, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        state.check_writable()?;
        let file = match state.tree.lookup_file(path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                state.tree.create_file(path)?
            }
            found => found?,
        };
        self.take_lock(state, file, path)
    }

    fn take_lock(
        &self,
        state: &mut State,
        node: NodeId,
        path: &Path,
    ) -> io::Result<Box<dyn Any + Send + Sync>> {
        if !state.locks.insert(node) {
            return Err(error(io::ErrorKind::WouldBlock, path));
        }
        Ok(Box::new(LockGuard { disk: self.clone(), node }))
    }
}
