//! An engine for the tests of services that use one: in memory, with a disk and a clock that the
//! test controls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oncekey::{Engine, Options, Result};

use crate::clock::ManualClock;
use crate::disk::{CrashMode, SimDisk};

/// The path of the store on the simulated disk.
const PATH: &str = "/store";

/// An engine whose store is in memory, small and fast to open. Its time stands still until the test
/// moves it. It is the whole engine: journal, folds and recovery run as on a real disk.
///
/// ```
/// use std::time::Duration;
/// use oncekey::{Begin, ErrorKind, Fingerprint, Key};
/// use oncekey_testing::{Fault, InMemory, OpKind};
///
/// let store = InMemory::new();
/// let key = Key::new("", "order-1")?;
/// let request = || Fingerprint::builder().part("body", "two apples").finish();
///
/// let Begin::Claimed(claim) = store.engine().begin(&key, request()).wait()? else { panic!() };
/// claim.complete(b"created").wait()?;
///
/// // A day later the key is new again: no test sleeps.
/// store.clock().advance(Duration::from_secs(24 * 60 * 60));
/// let Begin::Claimed(claim) = store.engine().begin(&key, request()).wait()? else { panic!() };
///
/// // A disk that fails on demand.
/// store.disk().inject(Fault::at_kind(OpKind::Sync, 0).errno(Fault::EIO).forever());
/// let failed = claim.complete(b"created").wait().unwrap_err();
/// assert_eq!(failed.kind(), ErrorKind::OutcomeUnknown);
/// store.disk().clear_faults();
/// store.engine().reopen()?;
/// // The sync failed, the write did not: the response is found again.
/// assert!(matches!(store.engine().begin(&key, request()).wait()?, Begin::Replay(_)));
///
/// // The power fails while an order is under way, and the machine starts again. The first order is
/// // answered as before, and the other one is an orphan.
/// let other = Key::new("", "order-2")?;
/// let Begin::Claimed(_claim) = store.engine().begin(&other, request()).wait()? else { panic!() };
/// let next = store.after_power_loss()?;
/// assert!(matches!(next.engine().begin(&key, request()).wait()?, Begin::Replay(_)));
/// assert!(matches!(next.engine().begin(&other, request()).wait()?, Begin::Orphaned(_)));
/// # Ok::<(), oncekey::Error>(())
/// ```
#[derive(Clone)]
pub struct InMemory {
    engine: Engine,
    disk: SimDisk,
    clock: ManualClock,
    options: Options,
}

impl InMemory {
    /// A new store with the default TTL of 24 hours, responses up to 64 KiB and checkpoints up to
    /// 16 KiB.
    ///
    /// # Panics
    /// Never: an empty disk in memory can be opened.
    pub fn new() -> Self {
        match Self::with(|options| options) {
            Ok(store) => store,
            Err(error) => panic!("{error}"),
        }
    }

    /// A new store, for which `change` sets the options that the service under test would set.
    ///
    /// # Errors
    /// Those of [`Options::open`].
    pub fn with(change: impl FnOnce(Options) -> Options) -> Result<Self> {
        let small = Options::new()
            .max_response(64 << 10)
            .max_checkpoint(16 << 10)
            .segment_bytes(256 << 10)
            .recent_bytes(512 << 10)
            .cache_bytes(512 << 10);
        Self::open(SimDisk::new(), ManualClock::new(), change(small))
    }

    fn open(disk: SimDisk, clock: ManualClock, options: Options) -> Result<Self> {
        let options = options.disk(Arc::new(disk.clone())).clock(Arc::new(clock.clone()));
        let engine = options.clone().open(PATH)?;
        Ok(Self { engine, disk, clock, options })
    }

    /// The engine, for the service under test to clone.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The disk, to make it fail, to fill it, or to look at it.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// The clock, which stands still until the test moves it.
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Opens the store as the next process finds it when the power fails now: every unsynced change
    /// is lost, and the claims held here are orphans there. This store goes on undisturbed on its
    /// own disk.
    ///
    /// # Errors
    /// Those of [`Options::open`].
    pub fn after_power_loss(&self) -> Result<Self> {
        self.on(self.disk.crash(CrashMode::LoseAllUnsynced))
    }

    /// Opens the store as the next process finds it when this process is killed now: every write is
    /// there.
    ///
    /// # Errors
    /// Those of [`Options::open`].
    pub fn after_kill(&self) -> Result<Self> {
        self.on(self.disk.crash(CrashMode::ProcessKill))
    }

    fn on(&self, disk: SimDisk) -> Result<Self> {
        // The next process starts a moment later.
        let clock = self.clock.clone();
        clock.advance(Duration::from_secs(1));
        Self::open(disk, clock, self.options.clone())
    }
}

impl Default for InMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InMemory").field(&self.engine).finish()
    }
}
