//! How a store is opened, and every bound of the engine with its default.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{MAX_PAYLOAD, MIN_TTL, check_note};
use crate::base::error::{Error, Result};
use crate::base::range::{at_least, at_most};
use crate::embedded::clock::{Clock, OsClock};
use crate::embedded::disk::{BLOCK, Disk, OsDisk};
use crate::embedded::durability::Durability;
use crate::embedded::journal::MOST_BYTES;

/// Options of a store; every one has a default that suits a server.
///
/// ```no_run
/// use std::time::Duration;
/// let engine = oncekey::Options::new()
///     .ttl(Duration::from_secs(3600))
///     .max_in_flight(10_000)
///     .open("./idempotency")?;
/// # Ok::<(), oncekey::Error>(())
/// ```
///
/// With the feature `serde` they are a section of a settings file: each method is a field of the
/// same name, times are numbers of seconds, and a missing field has its default. The disk and the
/// clock are no fields.
#[derive(Clone, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Options {
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds"))]
    pub(crate) ttl: Duration,
    pub(crate) durability: Durability,
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds::optional"))]
    pub(crate) max_execution: Option<Duration>,
    pub(crate) max_response: usize,
    pub(crate) max_checkpoint: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) max_orphans: usize,
    pub(crate) max_open_bytes: u64,
    pub(crate) max_queue: usize,
    pub(crate) max_waiters: usize,
    pub(crate) max_store_bytes: Option<u64>,
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds"))]
    pub(crate) overload_after: Duration,
    pub(crate) recent_bytes: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) max_open_files: usize,
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds"))]
    pub(crate) sweep_interval: Duration,
    pub(crate) backup_bytes_per_second: Option<u64>,
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds"))]
    pub(crate) max_clock_gap: Duration,
    pub(crate) accept_clock_jump: bool,
    #[cfg(feature = "stepping")]
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) stepper: Option<crate::embedded::stepper::Stepper>,
    pub(crate) allow_network_filesystem: bool,
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds"))]
    pub(crate) lock_wait: Duration,
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::octets"))]
    pub(crate) owner_note: Vec<u8>,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) disk: Arc<dyn Disk>,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) clock: Arc<dyn Clock>,
}

pub(crate) const LEAST_OPEN_FILES: usize = 8;

impl Default for Options {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(24 * 60 * 60),
            durability: Durability::Strict,
            max_execution: None,
            max_response: 1 << 20,
            max_checkpoint: 64 << 10,
            max_in_flight: 65_536,
            max_orphans: 1_000_000,
            max_open_bytes: 8 << 30,
            max_queue: 65_536,
            max_waiters: 65_536,
            max_store_bytes: None,
            overload_after: Duration::from_secs(5),
            recent_bytes: 32 << 20,
            cache_bytes: 64 << 20,
            segment_bytes: 32 << 20,
            max_open_files: 256,
            sweep_interval: Duration::from_secs(60),
            backup_bytes_per_second: Some(48 << 20),
            max_clock_gap: Duration::from_secs(30 * 24 * 60 * 60),
            accept_clock_jump: false,
            #[cfg(feature = "stepping")]
            stepper: None,
            allow_network_filesystem: false,
            lock_wait: Duration::ZERO,
            owner_note: Vec::new(),
            disk: Arc::new(OsDisk),
            clock: Arc::new(OsClock),
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a completed response is replayed, and how long an orphan is kept, before the key is
    /// new again. Counted from the completion, or from the moment of orphaning. Default 24 hours;
    /// at least 1 ms. A record keeps the TTL that was set when its operation began.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// The durability that `begin` waits for. Default [`Durability::Strict`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The age at which a claim counts as an orphan although its owner lives. Default `None`:
    /// never. The slow owner's `complete` is accepted as long as no caller took over.
    pub fn max_execution(mut self, limit: Option<Duration>) -> Self {
        self.max_execution = limit;
        self
    }

    /// The longest response that is kept, in bytes. Default 1 MiB, at most 16 MiB, and about half of
    /// [`segment_bytes`](Self::segment_bytes). A longer response is not kept: it completes the
    /// operation, and `complete` reports that to its caller.
    pub fn max_response(mut self, bytes: usize) -> Self {
        self.max_response = bytes;
        self
    }

    /// The longest checkpoint, in bytes. Default 64 KiB, at most 16 MiB.
    pub fn max_checkpoint(mut self, bytes: usize) -> Self {
        self.max_checkpoint = bytes;
        self
    }

    /// How many claims may be in flight. Default 65,536. At the bound `begin` is `Overloaded`.
    pub fn max_in_flight(mut self, claims: usize) -> Self {
        self.max_in_flight = claims;
        self
    }

    /// How many orphans may be unresolved. Default 1,000,000 (about 100 bytes of memory each).
    /// At the bound `begin` is `Overloaded`, since every claim may become an orphan.
    pub fn max_orphans(mut self, orphans: usize) -> Self {
        self.max_orphans = orphans;
        self
    }

    /// How many bytes claims in flight and orphans may take, checkpoints included. Default 8 GiB.
    /// Checkpoints stay on disk until a caller asks for them. At the bound `begin` and `checkpoint`
    /// are `Overloaded`, and the claim stays held. A record that changed counts twice until it is
    /// folded.
    pub fn max_open_bytes(mut self, bytes: u64) -> Self {
        self.max_open_bytes = bytes;
        self
    }

    /// How many begins may wait for the committer. Default 65,536. At the bound `begin` is
    /// `Overloaded`; complete, abort, checkpoint and drop are never refused by it.
    pub fn max_queue(mut self, begins: usize) -> Self {
        self.max_queue = begins;
        self
    }

    /// How many begins may wait for an owner or for another begin of their key. Default 65,536.
    pub fn max_waiters(mut self, waiters: usize) -> Self {
        self.max_waiters = waiters;
        self
    }

    /// How large the store may grow, in bytes, with the journal. Default `None`, without a bound; at
    /// least four times [`segment_bytes`](Self::segment_bytes). At the bound `begin` is `StoreFull`
    /// until the sweeper has given space back.
    pub fn max_store_bytes(mut self, bytes: Option<u64>) -> Self {
        self.max_store_bytes = bytes;
        self
    }

    /// How long a begin waits for memory that a fold is to free before it is `Overloaded`.
    /// Default 5 seconds.
    pub fn overload_after(mut self, wait: Duration) -> Self {
        self.overload_after = wait;
        self
    }

    /// Memory for records that are journalled but not yet folded, in bytes. Default 32 MiB, at
    /// least 64 KiB. Half of it is filled while the other half is folded. Folded records that
    /// begins have not freed yet take up to half as much again.
    pub fn recent_bytes(mut self, bytes: usize) -> Self {
        self.recent_bytes = bytes;
        self
    }

    /// Memory for caches, in bytes: five eighths for the index of completed records, a quarter for
    /// replayed records, an eighth for pages of the store file. Default 64 MiB.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// The size that journal segments grow to, in bytes, a multiple of 4096. Default 32 MiB. It
    /// must hold 64 KiB and twice the longest response or checkpoint. The first segments of a store
    /// are about as small as that allows, and not below 1 MiB. Each filled segment lets the next be
    /// four times as large.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// How many files of completed records and of their index are kept open for readers. Default
    /// 256, at least 8. Never more than a quarter of the process's soft limit on descriptors at
    /// open. The engine has about twenty other files open.
    pub fn max_open_files(mut self, files: usize) -> Self {
        self.max_open_files = files;
        self
    }

    /// How often the sweeper looks for expired records. Default 60 seconds. Correctness never
    /// depends on it, only the space used.
    pub fn sweep_interval(mut self, interval: Duration) -> Self {
        self.sweep_interval = interval;
        self
    }

    /// How fast [`backup_to`](crate::Engine::backup_to) verifies and copies, in bytes per second,
    /// so that the journal gets its share of the disk. Each record is read to be verified, then
    /// copied, so a store of 1 GiB counts as 2 GiB. Default 48 MiB; `None` is as fast as the disk
    /// allows.
    pub fn backup_bytes_per_second(mut self, rate: Option<u64>) -> Self {
        self.backup_bytes_per_second = rate;
        self
    }

    /// Uses `stepper` in place of the engine's threads. Only for tests of this crate.
    #[cfg(feature = "stepping")]
    #[doc(hidden)]
    pub fn stepper(mut self, stepper: &crate::embedded::stepper::Stepper) -> Self {
        self.stepper = Some(stepper.clone());
        self
    }

    /// How far the wall clock may stand ahead of the store's last time at open. Default 30 days; at least 1 s.
    pub fn max_clock_gap(mut self, gap: Duration) -> Self {
        self.max_clock_gap = gap;
        self
    }

    /// Opens a store although the wall clock stands further ahead than
    /// [`max_clock_gap`](Self::max_clock_gap). Default `false`.
    pub fn accept_clock_jump(mut self, accept: bool) -> Self {
        self.accept_clock_jump = accept;
        self
    }

    /// Opens a store on a network filesystem. Default `false`: the locks and syncs of network
    /// filesystems cannot be trusted.
    pub fn allow_network_filesystem(mut self, allow: bool) -> Self {
        self.allow_network_filesystem = allow;
        self
    }

    /// How long an open waits for a store that another process or engine holds, before it fails
    /// with `StoreInUse`. Default 0. A rolling restart starts the next process before the last one
    /// has ended.
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// A note of the owner of the store, such as the address where the process can be asked.
    /// [`owner`](crate::owner) gives it to other processes while the engine is open. Default: none.
    /// At most 4096 bytes. [`Engine::set_owner_note`](crate::Engine::set_owner_note) replaces it
    /// later.
    ///
    /// The note lies in the file `LOCK`, which recovery does not read. An engine that cannot write
    /// the note opens all the same.
    pub fn owner_note(mut self, note: impl Into<Vec<u8>>) -> Self {
        self.owner_note = note.into();
        self
    }

    /// The filesystem. Default [`OsDisk`]; tests use one that fails.
    #[cfg(feature = "testing")]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// The clocks. Default [`OsClock`]; tests use one that they turn by hand.
    #[cfg(feature = "testing")]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The size at which twice the longest response or checkpoint fits.
    pub(crate) fn least_segment(&self) -> u64 {
        2 * self.max_response.max(self.max_checkpoint).min(MAX_PAYLOAD) as u64 + (64 << 10)
    }

    /// Checks every option against its bound, as `open` does before it opens anything.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), which names the option, its value and the bound.
    pub fn validate(&self) -> Result<()> {
        const MAX_CACHE: usize = 1 << 40;
        let segment = self.segment_bytes;
        self.settings().validate()?;
        self.bounds().validate()?;
        at_least("sweep_interval", self.sweep_interval, MIN_TTL)?;
        at_least("max_clock_gap", self.max_clock_gap, Duration::from_secs(1))?;
        at_least("max_open_bytes", self.max_open_bytes, 64 << 10)?;
        at_least("recent_bytes", self.recent_bytes, 64 << 10)?;
        at_least("max_open_files", self.max_open_files, LEAST_OPEN_FILES)?;
        at_least("backup_bytes_per_second", self.backup_bytes_per_second.unwrap_or(1), 1)?;
        at_most("cache_bytes", self.cache_bytes, MAX_CACHE)?;
        check_note(&self.owner_note)?;
        if !segment.is_multiple_of(BLOCK as u64) {
            return Err(Error::invalid(format!(
                "segment_bytes is {segment}, a multiple of {BLOCK} is needed"
            )));
        }
        if segment < self.least_segment() {
            return Err(Error::invalid(format!(
                "segment_bytes is {segment}, at least {} is allowed with max_response {} and max_checkpoint {}",
                self.least_segment().next_multiple_of(BLOCK as u64),
                self.max_response,
                self.max_checkpoint,
            )));
        }
        at_most("segment_bytes", segment, MOST_BYTES)?;
        // The journal alone takes three segments. The store file takes a page or two.
        let least_store = 4 * segment;
        let store = self.max_store_bytes.unwrap_or(least_store);
        if store < least_store {
            return Err(Error::invalid(format!(
                "max_store_bytes is {store}, at least {least_store} is allowed with segment_bytes {segment}"
            )));
        }
        Ok(())
    }
}
