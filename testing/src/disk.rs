//! A deterministic filesystem in memory, to test how code reacts to a failing disk.

mod by_path;
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

/// A filesystem in memory that knows which bytes and names are durable. Clones share one disk.
///
/// - A write or a change of length is durable after a sync of the file. A new, renamed or removed
///   name is durable after a sync of its directory. Before that sync a crash image may miss the
///   change. A directory is a name in its parent, like a file. The root exists and is durable.
/// - Relative paths start at the root.
/// - A file opened with [`Caching::Direct`] refuses offsets, lengths and addresses of buffers that
///   are not multiples of [`BLOCK`](oncekey::disk::BLOCK). Its writes need a sync, too: until then
///   they are in the volatile cache of the device.
/// - Each method of [`Disk`](oncekey::disk::Disk), [`Directory`](oncekey::disk::Directory) and
///   [`DiskFile`] that goes to the device is one operation, which faults and the trace count. So is
///   each method of this type that does the same by a path, such as [`open`](Self::open).
///
/// All operations take one lock, so that each is atomic to other threads.
///
/// ```
/// use oncekey::disk::{Caching, Disk, DiskFile};
/// use oncekey_testing::{CrashMode, Fault, OpKind, SimDisk};
///
/// let disk = SimDisk::new();
/// let file = disk.create("/journal".as_ref(), Caching::Buffered)?;
/// file.write_at(0, b"synced")?;
/// file.sync()?;
/// disk.sync_dir("/".as_ref())?;
/// file.write_at(0, b"missed")?;
///
/// let image = disk.crash(CrashMode::LoseAllUnsynced);
/// assert_eq!(image.read_file("/journal"), b"synced");
///
/// disk.inject(Fault::at_kind(OpKind::Sync, 0).errno(Fault::EIO).drop_dirty());
/// assert!(file.sync().is_err());
/// # std::io::Result::Ok(())
/// ```
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

/// Images of a disk, taken while it works.
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

    /// Makes the disk that a crash at this moment leaves: powered, without locks, faults or trace,
    /// and with its operations counted from 0. It has the same capacity, read-only and network
    /// settings. This disk does not change, so that a test can take many images of one moment.
    pub fn crash(&self, mode: CrashMode) -> Self {
        let state = self.state.lock();
        let tree = match mode {
            CrashMode::PowerLoss { seed } => state.tree.after_power_loss(&mut Fate::seeded(seed)),
            CrashMode::LoseAllUnsynced => state.tree.after_power_loss(&mut Fate::lose_all()),
            CrashMode::ProcessKill => state.tree.after_process_kill(),
        };
        Self::with(tree, state.settings.clone())
    }

    /// Arms a fault. Several can wait at a time: when more than one is due, the fault armed first
    /// wins.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.arm(fault);
    }

    /// Disarms all faults.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// How many operations failed through injected faults, to prove that a fault was met.
    pub fn faults_fired(&self) -> u64 {
        self.state.lock().faults.fired
    }

    /// The number of operations, with those that failed, and without those refused after a power
    /// cut.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Cuts the power: from now on all operations fail, and the disk stays as it is for
    /// [`crash`](Self::crash).
    pub fn power_off(&self) {
        self.state.lock().powered_off = true;
    }

    /// Cuts the power during an operation: `nth` counts from now and from 0. See
    /// [`Fault::power_off`].
    pub fn power_off_at(&self, nth: u64) {
        self.inject(Fault::at(nth).power_off());
    }

    /// Whether the power is off.
    pub fn is_powered_off(&self) -> bool {
        self.state.lock().powered_off
    }

    /// Starts to record operations. An earlier record is dropped.
    pub fn start_trace(&self) {
        self.state.lock().trace = Some(Vec::new());
    }

    /// Starts to keep images, to [`crash`](Self::crash) one run at many moments. An image is the
    /// disk before every `every`th operation that changes something, after the first `skip` of
    /// them. Changes that were not synced by then are still unsynced in the image, so that a crash
    /// of the image may tear them.
    pub fn start_images(&self, every: u64, skip: u64) {
        self.state.lock().album = Some(Album { every, skip, mark: 0, images: Vec::new() });
    }

    /// Gives this mark to the images kept from now on.
    pub fn mark_images(&self, mark: u64) {
        if let Some(album) = &mut self.state.lock().album {
            album.mark = mark;
        }
    }

    /// Returns the images kept so far, each with its mark, and stops keeping images.
    pub fn take_images(&self) -> Vec<(u64, Self)> {
        self.state.lock().album.take().map(|album| album.images).unwrap_or_default()
    }

    /// Returns the operations recorded so far, and stops recording.
    pub fn take_trace(&self) -> Vec<Op> {
        self.state.lock().trace.take().unwrap_or_default()
    }

    /// Limits the bytes that files can take, in whole pages. Holes take none, written zeros do. A
    /// write that does not fit fails with ENOSPC after the bytes that fit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().settings.capacity = bytes;
    }

    /// The bytes that files take.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().tree.allocated_pages() * contents::PAGE as u64
    }

    /// Makes every change fail with EROFS, as on a filesystem that was remounted after an error.
    /// Opening a file fails too, since files are opened for writing.
    pub fn set_read_only(&self, read_only: bool) {
        self.state.lock().settings.read_only = read_only;
    }

    /// Makes [`Disk::network_filesystem`](oncekey::disk::Disk::network_filesystem) answer "NFS".
    pub fn set_network_filesystem(&self, network: bool) {
        self.state.lock().settings.network = network;
    }

    /// Evicts clean pages, as memory pressure does: reads no longer see the bytes that a failed
    /// sync dropped (see [`Fault::drop_dirty`]).
    pub fn drop_caches(&self) {
        self.state.lock().tree.all_files_mut().for_each(File::evict_clean);
    }

    /// Makes all names and bytes durable, except the bytes that a failed sync dropped.
    pub fn sync_all(&self) {
        self.state.lock().tree.sync_everything();
    }

    /// Runs one operation: counts it, then fails when a fault is due, else does `action`.
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
            // A sync that the power cut interrupts may have done any part of its work. An image of
            // the changes without a sync shows the same.
            Effect::PowerOff => !matches!(kind, OpKind::Sync | OpKind::SyncDir),
        };
        if acts {
            let result = action(&mut state, effect);
            // The drop of a file or of a guard in the result takes the lock of the state.
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

impl SimDisk {
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
