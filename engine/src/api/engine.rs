//! The engine as its users hold it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api::begin::{Begin, Lookup};
use crate::api::listed::Listed;
use crate::api::orphan::Orphan;
use crate::api::pending::Pending;
use crate::backend::operation::{Request, Wait};
use crate::backend::reports::{Bucket, CloseReport, Stats};
use crate::backend::{Backend, Reading, ScanPage, Seen, Settings, telemetry};
use crate::base::error::Result;
use crate::base::sync::after;
use crate::semantics::command::Command;
use crate::semantics::fingerprint::Fingerprint;
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::time::Time;

/// An open store. Clones are cheap and share it; all methods may be called from any thread.
///
/// Dropping the last clone ends the engine: submitted operations are still made durable, and the
/// threads are joined. Claims that are still held are orphans at the next open.
/// [`close`](Self::close) does the same, and also folds and reports.
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
    backend: Arc<dyn Backend>,
    /// Numbers the begins that wait.
    waits: AtomicU64,
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.backend.end();
    }
}

impl Engine {
    /// An engine over an open store.
    pub(crate) fn over(backend: Arc<dyn Backend>) -> Self {
        Self { handle: Arc::new(EngineHandle { backend, waits: AtomicU64::new(0) }) }
    }

    fn backend(&self) -> &Arc<dyn Backend> {
        &self.handle.backend
    }

    /// Asks for the right to execute the operation that `key` names.
    ///
    /// A `Claimed` is durable when it is answered, under [`Durability::Strict`](crate::Durability).
    /// Every other answer is decided on durable records.
    ///
    /// # Errors
    /// `InvalidInput`; `Overloaded` and `StoreFull` when a bound is reached; `OutcomeUnknown`,
    /// `Unavailable`, `Closed`, `Corrupted`, `Io`. After an error the caller must not execute.
    pub fn begin(&self, key: &Key, fingerprint: Fingerprint) -> Pending<Begin> {
        self.ask(key, fingerprint, None)
    }

    /// Like [`begin`](Self::begin), but waits up to `max_wait` for an owner: for its response
    /// (`Replay`), its abort (this or another waiter is `Claimed`) or its end (`Orphaned`). Past the
    /// bound the answer is `Locked`. Dropping the [`Pending`] ends the wait.
    ///
    /// A waiter may become the owner: it must be ready to execute.
    ///
    /// ```
    /// # use oncekey::{Begin, Engine, Fingerprint, Key};
    /// # use std::time::Duration;
    /// # let dir = std::env::temp_dir().join(format!("oncekey-doc-waiting-{}", std::process::id()));
    /// # let engine = Engine::open(&dir)?;
    /// # let key = Key::new("tenant-7", "order-1")?;
    /// # let request = || Fingerprint::builder().part("body", "two of these").finish();
    /// let Begin::Claimed(claim) = engine.begin(&key, request()).wait()? else { unreachable!() };
    /// let duplicate = engine.begin_waiting(&key, request(), Duration::from_secs(30));
    /// claim.complete(b"201 created").wait()?;
    /// match duplicate.wait()? {
    ///     Begin::Replay(recorded) => assert_eq!(recorded.response(), Some(&b"201 created"[..])),
    ///     Begin::Claimed(claim) => drop(claim), // had the owner aborted: execute here
    ///     other => println!("told why not: {other:?}"),
    /// }
    /// # drop(engine); std::fs::remove_dir_all(&dir).ok();
    /// # Ok::<(), oncekey::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin).
    pub fn begin_waiting(
        &self,
        key: &Key,
        fingerprint: Fingerprint,
        max_wait: Duration,
    ) -> Pending<Begin> {
        let until = after(max_wait);
        let number = self.handle.waits.fetch_add(1, Ordering::Relaxed);
        // Zero is the number of a deadline.
        self.ask(key, fingerprint, Some(Wait { until, number: 1 + number }))
    }

    fn ask(&self, key: &Key, fingerprint: Fingerprint, wait: Option<Wait>) -> Pending<Begin> {
        if let Err(error) = fingerprint.validate() {
            return Pending::ready(Err(error));
        }
        let backend = self.backend();
        let (hash, fingerprint) = backend.identify(key, fingerprint);
        let Settings { ttl, max_execution, .. } = *backend.settings();
        let command = Command::Begin { fingerprint, ttl, max_execution };
        let request = Request { key: key.clone(), hash, command, wait };
        let answerer = backend.clone();
        let (operation, pending) =
            Pending::asked(request, move |outcome| Begin::answer(&answerer, hash, outcome));
        backend.submit(operation);
        let pending = pending.on_delivery(Begin::delivered);
        let Some(wait) = wait else { return pending };
        // A `Pending` keeps no store open.
        let backend = Arc::downgrade(backend);
        pending.on_giving_up(move || {
            if let Some(backend) = backend.upgrade() {
                backend.withdraw(hash, wait);
            }
        })
    }

    /// Looks `key` up without asking for the right to execute.
    ///
    /// [`Lookup::Absent`] is no right to execute: another caller may begin at this moment. Only
    /// [`Begin::Claimed`] is one.
    ///
    /// ```
    /// # use oncekey::{Begin, Engine, Fingerprint, Key, Lookup};
    /// # let dir = std::env::temp_dir().join(format!("oncekey-doc-get-{}", std::process::id()));
    /// # let engine = Engine::open(&dir)?;
    /// # let key = Key::new("tenant-7", "order-1")?;
    /// match engine.get(&key)? {
    ///     Lookup::Absent => println!("never begun, or expired"),
    ///     Lookup::InFlight(owner) => println!("attempt {} is executing", owner.attempt()),
    ///     Lookup::Orphaned(orphan) => println!("outcome unknown for {:?}", orphan.age()),
    ///     Lookup::Completed(recorded) => println!("completed at {:?}", recorded.completed_at()),
    ///     _ => println!("a state that this version of the program does not know"),
    /// }
    /// # drop(engine); std::fs::remove_dir_all(&dir).ok();
    /// # Ok::<(), oncekey::Error>(())
    /// ```
    ///
    /// # Errors
    /// `OutcomeUnknown`, `Unavailable`, `Closed`, `Corrupted`, `Io`.
    pub fn get(&self, key: &Key) -> Result<Lookup> {
        let Reading { found, now } = self.backend().read(key)?;
        Ok(found.map_or(Lookup::Absent, |seen| self.lookup(&seen, now)))
    }

    /// The unresolved orphans, oldest first, as handles that resolve them.
    ///
    /// # Errors
    /// `Unavailable`, `Closed`, `Corrupted`, `Io`.
    pub fn orphans(&self) -> Result<Vec<Orphan>> {
        let Reading { found, now } = self.backend().open_records()?;
        let mut orphans: Vec<_> = found
            .iter()
            .filter_map(|seen| Orphan::new(self.backend(), seen.hash, &seen.record, now))
            .collect();
        orphans.sort_by_key(|orphan| (orphan.since(), orphan.token()));
        Ok(orphans)
    }

    fn lookup(&self, seen: &Seen, now: Time) -> Lookup {
        match Orphan::new(self.backend(), seen.hash, &seen.record, now) {
            Some(orphan) => Lookup::Orphaned(orphan),
            None => Lookup::new(&seen.record, now),
        }
    }

    /// A page of a walk through the whole store: records after the place `after`, and the place
    /// from which the next page goes on. `None` is the beginning, and the end. The order has no
    /// meaning, and never changes.
    ///
    /// A page has at most `limit` records (1 to 10,000) and about 4 MiB. It may be empty although
    /// more follow, because expired records count until they are swept. Nothing is locked between
    /// two pages: a walk meets a record once if it exists during the whole walk, and may miss one
    /// that comes or goes.
    ///
    /// ```
    /// # use oncekey::{Begin, Engine, Fingerprint, Key};
    /// # let dir = std::env::temp_dir().join(format!("oncekey-doc-scan-{}", std::process::id()));
    /// # let engine = Engine::open(&dir)?;
    /// # let begin = engine.begin(&Key::new("", "k")?, Fingerprint::builder().finish()).wait()?;
    /// # let Begin::Claimed(claim) = begin else { unreachable!() };
    /// let (mut after, mut met) = (None, 0);
    /// loop {
    ///     let (page, next) = engine.scan(after, 100)?;
    ///     met += page.len();
    ///     after = next;
    ///     if after.is_none() {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(met, 1);
    /// # drop((claim, engine)); std::fs::remove_dir_all(&dir).ok();
    /// # Ok::<(), oncekey::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Corrupted` when a record of the page, or its index, is damaged; `Unavailable`, `Closed`, `Io`.
    pub fn scan(
        &self,
        after: Option<[u8; 16]>,
        limit: usize,
    ) -> Result<(Vec<Listed>, Option<[u8; 16]>)> {
        const MOST: usize = 10_000;
        let after = after.map(|place| KeyHash(u128::from_be_bytes(place)));
        let Reading { found, now } = self.backend().scan(after, limit.clamp(1, MOST))?;
        let ScanPage { seen, through } = found;
        let listed = seen.iter().filter_map(|seen| {
            Listed::new(seen.hash, seen.record.key.clone(), self.lookup(seen, now))
        });
        Ok((listed.collect(), through.map(|hash| hash.0.to_be_bytes())))
    }

    /// How many completed records expire when, the first to expire first. Recent records that are
    /// not folded yet may be missing.
    ///
    /// # Errors
    /// `Unavailable`, `Closed`, `Io`.
    pub fn buckets(&self) -> Result<Vec<Bucket>> {
        self.backend().buckets()
    }

    /// A snapshot of counters and gauges. Cheap enough to be scraped. With the feature `metrics` it
    /// also sets the gauges, which the engine itself sets after each fold and sweep.
    pub fn stats(&self) -> Stats {
        let stats = self.backend().stats();
        telemetry::gauges(|| stats.clone());
        stats
    }

    /// Moves everything acknowledged so far from the journal into the store file, and waits until
    /// that is done. Durability never needs a fold; a fold makes the next open fast and a file copy
    /// small.
    ///
    /// # Errors
    /// `StoreFull`: nothing is lost, and the fold is done once there is space. `Unavailable`,
    /// `Closed`.
    pub fn fold(&self) -> Result<()> {
        self.backend().fold()
    }

    /// Gives the space of expired records back now, and waits until that is done. No answer needs a
    /// sweep. Returns how many rows were removed.
    ///
    /// # Errors
    /// `Unavailable`, `Closed`.
    pub fn sweep(&self) -> Result<u64> {
        self.backend().sweep()
    }

    /// Writes a consistent copy of the store, as of now, into the new or empty directory `path`, on
    /// the calling thread, while the engine runs. It copies at most
    /// [`backup_bytes_per_second`](crate::Options::backup_bytes_per_second), and
    /// [`stats`](Self::stats) reports its progress.
    ///
    /// An engine that opens the copy knows everything that was acknowledged before this call.
    /// Claims in flight are orphans there. Until the copy is complete, the directory does not open
    /// as a store. A copy is removed when it fails, or when its engine is closed or reopened. The
    /// next backup to the same path replaces the rest of a killed one. A new directory is called
    /// `NAME.unmarked` until its copy is begun. Files of volumes and desktops (`lost+found`) may be
    /// in the directory.
    ///
    /// A store that is opened from a copy does not know later operations: they run again when they
    /// are retried.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("oncekey-doc-backup-{}", std::process::id()));
    /// # let engine = oncekey::Engine::open(dir.join("store"))?;
    /// engine.backup_to(dir.join("copy"))?;
    /// assert!(oncekey::verify(dir.join("copy"))?.is_sound());
    /// # drop(engine); std::fs::remove_dir_all(&dir).ok();
    /// # Ok::<(), oncekey::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` when `path` holds anything else; `StoreInUse` when another backup writes there;
    /// `StoreFull` when there is too little space, before any is taken; `Io`, `Corrupted`,
    /// `Unavailable`, `Closed`.
    pub fn backup_to(&self, path: impl AsRef<Path>) -> Result<()> {
        self.backend().backup_to(path.as_ref())
    }

    /// Recovers in place after a failure, as a restart of the process would: a new epoch begins,
    /// and every claim of the old one is an orphan, which its owner may still complete. Also works
    /// on a healthy engine, whose queue is drained first.
    ///
    /// A `complete` that failed gives the claim back. Call it again after the reopen; do not run
    /// the operation again:
    ///
    /// ```
    /// use oncekey::{Claim, Completion, Engine, Error, ErrorKind};
    ///
    /// fn complete(engine: &Engine, mut claim: Claim, response: &[u8]) -> Result<Completion, Error> {
    ///     loop {
    ///         let (error, held) = match claim.complete(response).wait() {
    ///             Ok(completion) => return Ok(completion),
    ///             Err(failed) => failed.into_parts(),
    ///         };
    ///         let failed = matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Unavailable);
    ///         match held {
    ///             Some(held) if failed => claim = held,
    ///             _ => return Err(error), // spent (fenced), or for the caller to try later
    ///         }
    ///         engine.reopen()?;
    ///     }
    /// }
    /// # use oncekey::{Begin, Fingerprint, Key};
    /// # let dir = std::env::temp_dir().join(format!("oncekey-doc-reopen-{}", std::process::id()));
    /// # let engine = Engine::open(&dir)?;
    /// # let begin = engine.begin(&Key::new("", "k")?, Fingerprint::builder().finish()).wait()?;
    /// # let Begin::Claimed(claim) = begin else { unreachable!() };
    /// # engine.reopen()?;
    /// # assert!(complete(&engine, claim, b"201").unwrap().response_kept());
    /// # drop(engine); std::fs::remove_dir_all(&dir).ok();
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Options::open`](crate::Options::open): the engine stays unavailable and may be reopened again.
    /// `Closed`.
    pub fn reopen(&self) -> Result<()> {
        self.backend().reopen()
    }

    /// The directory of the store, as it was given when it was opened; `None` for a store that processes share.
    pub fn directory(&self) -> Option<&Path> {
        self.backend().directory()
    }

    /// Replaces the note of the owner ([`Options::owner_note`](crate::Options::owner_note)) while
    /// the engine is open; an empty note removes it. Waits for a [`reopen`](Self::reopen) that is
    /// under way.
    ///
    /// # Errors
    /// `InvalidInput` when it is longer than 4096 bytes; `Unsupported` for a store that processes share; `Closed`;
    /// `StoreFull`, `Io` when it cannot be written, and then there may be no note.
    pub fn set_owner_note(&self, note: impl AsRef<[u8]>) -> Result<()> {
        self.backend().set_owner_note(note.as_ref())
    }

    /// Ends the engine for all its clones: refuses new commands, makes the submitted ones durable,
    /// folds, joins the threads.
    ///
    /// # Errors
    /// `Closed` when it was closed before; `Unavailable` when it had failed; `StoreFull` when there
    /// was no space to fold, which the next open makes up for. The engine is closed in any case.
    pub fn close(&self) -> Result<CloseReport> {
        self.backend().close()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.backend().location())
    }
}
