//! The engine as its users hold it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::api::begin::{Begin, Lookup};
use crate::api::orphan::Orphan;
use crate::api::pending::Pending;
use crate::backend::stats::Stats;
use crate::backend::telemetry;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::Instant;
use crate::embedded::lifecycle::Shared;
use crate::embedded::options::Options;
use crate::semantics::fingerprint::Fingerprint;
use crate::semantics::key::{HashMap, Key};

/// An open store. Clones are cheap and share it; all methods may be called from any thread.
///
/// Dropping the last clone ends the engine: what was submitted is still made durable, its threads
/// are joined. Claims that are still held are orphans at the next open. [`close`](Self::close) does
/// the same, folds, and reports.
///
/// ```
/// use oncekey::{Begin, Engine, Fingerprint, Key};
/// # let dir = std::env::temp_dir().join(format!("oncekey-doc-engine-{}", std::process::id()));
/// let engine = Engine::open(&dir)?;
/// let key = Key::new("tenant-7", "order-1")?;
/// let fingerprint = Fingerprint::builder().part("body", "two of these").finish();
/// match engine.begin(&key, fingerprint.clone()).wait()? {
///     Begin::Claimed(claim) => {
///         let response = b"201 created"; // the operation runs here, once
///         claim.complete(response).wait()?;
///     }
///     other => unreachable!("a new key is claimed: {other:?}"),
/// }
/// match engine.begin(&key, fingerprint).wait()? {
///     Begin::Replay(recorded) => assert_eq!(recorded.response(), Some(&b"201 created"[..])),
///     other => unreachable!("a retry is replayed: {other:?}"),
/// }
/// # drop(engine); std::fs::remove_dir_all(&dir).ok();
/// # Ok::<(), oncekey::Error>(())
/// ```
#[derive(Clone)]
pub struct Engine {
    handle: Arc<EngineHandle>,
}

/// Its drop is the end of the last [`Engine`].
struct EngineHandle {
    shared: Arc<Shared>,
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.shared.stop(false);
    }
}

/// What [`Engine::close`] left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Claims that were still held: orphans at the next open.
    pub in_flight: u64,
    /// The last journal sequence that is in the store file. The next open has nothing to replay.
    pub folded_through: u64,
}

impl Engine {
    /// Opens the store in the directory `path` with default [`Options`], creating it when there is
    /// none.
    ///
    /// # Errors
    /// Those of [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// Opens the store in the directory `path` with default [`Options`]; refuses to create one.
    ///
    /// # Errors
    /// Those of [`Options::open`], and `StoreMissing`.
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_existing(path)
    }

    pub(crate) fn start(path: PathBuf, options: Options, create: bool) -> Result<Self> {
        let shared = Arc::new(Shared::start(path, options, create)?);
        Ok(Self { handle: Arc::new(EngineHandle { shared }) })
    }

    /// Asks for the right to execute the operation that `key` names.
    ///
    /// A `Claimed` is durable when it is answered, under [`Durability::Strict`](crate::Durability).
    /// Everything else is decided on what is durable.
    ///
    /// # Errors
    /// `InvalidInput`; `Overloaded` and `StoreFull` when a bound is reached; `OutcomeUnknown`,
    /// `Unavailable`, `Closed`, `Corrupted`, `Io`. After an error the caller must not execute.
    pub fn begin(&self, key: &Key, fingerprint: Fingerprint) -> Pending<Begin> {
        self.handle.shared.begin(key, fingerprint, None)
    }

    /// Like [`begin`](Self::begin), but waits up to `max_wait` for an owner: for its response
    /// (`Replay`), its abort (this or another waiter is `Claimed`) or its end (`Orphaned`). Past the
    /// bound the answer is `Locked`. Dropping the [`Pending`] ends the wait.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin).
    pub fn begin_waiting(
        &self,
        key: &Key,
        fingerprint: Fingerprint,
        max_wait: Duration,
    ) -> Pending<Begin> {
        // A wait beyond what the clock can count is as long as any.
        let forever = Duration::from_secs(365 * 86_400);
        self.handle.shared.begin(key, fingerprint, Some(Instant::now() + max_wait.min(forever)))
    }

    /// What the store holds under `key`, without asking for the right to execute.
    ///
    /// # Errors
    /// `OutcomeUnknown`, `Unavailable`, `Closed`, `Corrupted`, `Io`.
    pub fn get(&self, key: &Key) -> Result<Lookup> {
        let shared = &self.handle.shared;
        let core = shared.open_core()?;
        let hash = core.hash(key);
        let record = core.peek(hash, key)?;
        let now = core.now();
        match record.as_deref() {
            Some(record) => match Orphan::new(shared, hash, record, now) {
                Some(orphan) => Ok(Lookup::Orphaned(orphan)),
                None => Ok(Lookup::new(record, now)),
            },
            None => Ok(Lookup::Absent),
        }
    }

    /// The orphans that stand unresolved, oldest first, as handles that resolve them.
    ///
    /// # Errors
    /// `Unavailable`, `Closed`, `Corrupted`, `Io`.
    pub fn orphans(&self) -> Result<Vec<Orphan>> {
        let shared = &self.handle.shared;
        let core = shared.open_core()?;
        // Recent before the view, as every reader does; what recent knows is newer.
        let mut records: HashMap<_> = HashMap::default();
        for shard in core.table.shards() {
            records.extend(shard.recents().map(|(hash, versioned)| (*hash, versioned.clone())));
        }
        for (hash, versioned) in core.view().open_records()? {
            records.entry(hash).or_insert(versioned);
        }
        let now = core.now();
        let mut orphans: Vec<_> = records
            .iter()
            .filter_map(|(hash, versioned)| Some((*hash, versioned.record.as_deref()?)))
            .filter_map(|(hash, record)| Orphan::new(shared, hash, record, now))
            .collect();
        orphans.sort_by_key(|orphan| (orphan.since(), orphan.token()));
        Ok(orphans)
    }

    /// A snapshot of counters and gauges. Cheap enough to be scraped. With the feature `metrics` it
    /// also sets the gauges, which the engine itself sets after each fold and sweep.
    pub fn stats(&self) -> Stats {
        let stats = Stats::of(&self.handle.shared.core());
        telemetry::gauges(|| stats.clone());
        stats
    }

    /// Moves everything acknowledged so far from the journal into the store file, and waits for it.
    /// Never needed for durability; it makes the next open fast and a file copy small.
    ///
    /// # Errors
    /// `StoreFull`: nothing is lost, and it is done once there is space. `Unavailable`, `Closed`.
    pub fn fold(&self) -> Result<()> {
        self.handle.shared.core().fold()
    }

    /// Gives the space of expired records back now, and waits for it. Never needed for correctness.
    /// Returns how many rows were removed.
    ///
    /// # Errors
    /// `Unavailable`, `Closed`.
    pub fn sweep(&self) -> Result<u64> {
        let core = self.handle.shared.open_core()?;
        core.inbox.sweep().recv().unwrap_or_else(|_| Err(core.refusal()))
    }

    /// Writes a consistent copy of the store, as of now, into the new or empty directory `path`,
    /// while the engine runs.
    ///
    /// Opened, the copy knows everything that was acknowledged before this call, and claims in
    /// flight are orphans there. It is another incarnation: tokens of the original are fenced.
    ///
    /// # Errors
    /// `InvalidInput` when `path` is not empty; `StoreFull`, `Io`, `Unavailable`, `Closed`.
    pub fn backup_to(&self, path: impl AsRef<Path>) -> Result<()> {
        self.fold()?;
        let core = self.handle.shared.open_core()?;
        let receiver = core.inbox.backup(path.as_ref().to_owned());
        receiver.recv().unwrap_or_else(|_| Err(core.refusal()))
    }

    /// Recovers in place after a failure, as a restart of the process would: a new epoch, every
    /// claim of the old one an orphan, which its owner may still complete. Also works on a healthy
    /// engine, whose queue is drained first.
    ///
    /// # Errors
    /// Those of [`Options::open`]: the engine stays unavailable and may be reopened again.
    /// `Closed`.
    pub fn reopen(&self) -> Result<()> {
        self.handle.shared.reopen()
    }

    /// Ends the engine for all its clones: refuses new commands, makes durable what was submitted,
    /// folds, joins the threads.
    ///
    /// # Errors
    /// `Closed` when it was closed before; `Unavailable` when it had failed; `StoreFull` when there
    /// was no space to fold, which the next open makes up for. It is closed anyway.
    pub fn close(&self) -> Result<CloseReport> {
        self.handle.shared.stop(true).unwrap_or_else(|| Err(Error::new(ErrorKind::Closed, "")))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.handle.shared.path().display())
    }
}
