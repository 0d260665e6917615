//! Reading a store that no process has open, without changing it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::api::begin::Lookup;
use crate::api::engine::Engine;
use crate::api::listed::Listed;
use crate::api::orphan::Orphan;
use crate::backend::operation::{Operation, Wait};
use crate::backend::reports::{Bucket, CloseReport, Stats, Verification};
use crate::backend::{Backend, Reading, ScanPage, Seen, Settings};
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::Mutex;
use crate::embedded::backup;
use crate::embedded::clock::EngineClock;
use crate::embedded::directory::{self, Lock, StoreDirectory};
use crate::embedded::journal;
use crate::embedded::options::Options;
use crate::embedded::recovery::{self, ReadStore};
use crate::embedded::session::checkpoint;
use crate::embedded::store::{InspectedStore, View};
use crate::embedded::verify::verify_held;
use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::{Record, State, Versioned};
use crate::semantics::secret::Secret;
use crate::semantics::time::Time;
use crate::semantics::token::Token;

impl Options {
    /// Opens the store in the directory `path` to read it. Takes every lock that
    /// [`open`](Self::open) takes, begins no epoch, and writes nothing. Only the options of the
    /// clock, the disk, the caches and the lock count.
    ///
    /// # Errors
    /// Those of [`open_existing`](Self::open_existing).
    pub fn read(self, path: impl AsRef<Path>) -> Result<Reader> {
        self.validate()?;
        let path = path.as_ref();
        let (home, lock) = directory::when_free(&self, || directory::open_to_read(&self, path))?;
        let files = Arc::new(Files::read(self, home, lock)?);
        Ok(Reader { engine: Engine::over(files.clone()), files })
    }
}

/// A store that no process has open, as it lies on disk. No engine can open it while the reader
/// lives. All methods may be called from any thread.
///
/// An operation that was in flight when the last engine ended is in flight here. Its owner is gone,
/// so the next open makes it an orphan.
///
/// ```
/// use oncekey::{Engine, Key, Lookup, Options};
/// # let dir = std::env::temp_dir().join(format!("oncekey-doc-reader-{}", std::process::id()));
/// # Engine::open(&dir)?.close()?;
/// let reader = Options::new().read(&dir)?;
/// assert!(matches!(reader.get(&Key::new("tenant-7", "order-1")?)?, Lookup::Absent));
/// # drop(reader); std::fs::remove_dir_all(&dir).ok();
/// # Ok::<(), oncekey::Error>(())
/// ```
pub struct Reader {
    engine: Engine,
    files: Arc<Files>,
}

impl Reader {
    /// Returns the record of `key`. An orphan cannot be resolved here: the call is `Unsupported`.
    ///
    /// # Errors
    /// `Corrupted`, `Io`.
    pub fn get(&self, key: &Key) -> Result<Lookup> {
        self.engine.get(key)
    }

    /// The orphans that the next open finds, oldest first: the present ones, and the operations in
    /// flight, which date from the latest time in the store.
    ///
    /// # Errors
    /// `Corrupted`, `Io`.
    pub fn orphans(&self) -> Result<Vec<Orphan>> {
        self.engine.orphans()
    }

    /// A page of a walk through the store, as [`Engine::scan`] gives it.
    ///
    /// # Errors
    /// `Corrupted`, `Io`.
    pub fn scan(
        &self,
        after: Option<[u8; 16]>,
        limit: usize,
    ) -> Result<(Vec<Listed>, Option<[u8; 16]>)> {
        self.engine.scan(after, limit)
    }

    /// How many completed records expire when. Records that are only in the journal do not count.
    ///
    /// # Errors
    /// `Corrupted`, `Io`.
    pub fn buckets(&self) -> Result<Vec<Bucket>> {
        self.engine.buckets()
    }

    /// Returns the figures of the files: claims in flight, orphans, records, runs and bytes. The rest is 0.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// The latest time in the store, in engine time: about that of its last change.
    pub fn last_time(&self) -> SystemTime {
        self.files.time.to_wall()
    }

    /// Copies the files of the store as they are into the directory `path`, which is new or empty and in
    /// which no store is open. Claims in flight and the journal are in the copy. An interrupted copy is
    /// no store, and the next copy takes its place; a copy that fails is removed.
    ///
    /// # Errors
    /// `InvalidInput` for a directory that is not empty, or that has the name of a file of a store;
    /// `StoreInUse`, `StoreFull`, `Corrupted`, `Io`.
    pub fn copy_to(&self, path: impl AsRef<Path>) -> Result<()> {
        backup::copy_files(&self.files.options.disk, &self.files.home, path.as_ref())
    }

    /// Reads the whole store and checks every checksum, as [`verify`](crate::verify) does.
    ///
    /// # Errors
    /// Those of [`verify`](crate::verify).
    pub fn verify(&self) -> Result<Verification> {
        verify_held(&self.files.options, &self.files.home)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.files.location())
    }
}

/// The files of a store, read and locked.
struct Files {
    options: Options,
    settings: Settings,
    secret: Secret,
    view: Arc<View>,
    /// Records newer than the store file.
    records: BTreeMap<KeyHash, Versioned>,
    /// The latest time in the store.
    time: Time,
    clock: EngineClock,
    bytes: u64,
    home: StoreDirectory,
    /// Keeps the view readable and engines out, until the reader is dropped.
    held: Mutex<Option<(InspectedStore, Lock)>>,
}

impl Files {
    fn read(options: Options, home: StoreDirectory, lock: Lock) -> Result<Self> {
        let ReadStore { store, records, time, clock } = recovery::read(&options, &home)?;
        let mut bytes = store.file_bytes()?;
        for name in directory::list(&*home.handle, &home.path)? {
            if journal::is_segment(&name) {
                let len = home.handle.file_len(&name);
                bytes += len.map_err(|error| Error::io(name, error))?;
            }
        }
        Ok(Self {
            settings: options.settings(),
            secret: store.state().secret,
            view: store.view(),
            records,
            time,
            clock,
            bytes,
            held: Mutex::new(Some((store, lock))),
            options,
            home,
        })
    }

    /// Fails once the reader is gone: an orphan may outlive its reader.
    fn check_held(&self) -> Result<()> {
        match *self.held.lock() {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::Closed, "")),
        }
    }

    fn now(&self) -> Time {
        self.clock.now().max(self.time)
    }

    fn record(&self, hash: KeyHash, key: &Key) -> Result<Option<Arc<Record>>> {
        self.check_held()?;
        match self.records.get(&hash) {
            Some(newer) => Ok(newer.record.clone()),
            None => Ok(self.view.get(hash, key)?.and_then(|versioned| versioned.record)),
        }
    }

    /// The newest record of each key that may be in flight or an orphan.
    fn open(&self) -> Result<Vec<Seen>> {
        let stored = self.view.open_records()?;
        let stored = stored.into_iter().filter(|(hash, _)| !self.records.contains_key(hash));
        let newer = self.records.iter().map(|(hash, newer)| (*hash, newer.clone()));
        let seen = |(hash, versioned): (KeyHash, Versioned)| {
            let record = versioned.record.filter(|record| record.attempt().is_some())?;
            Some(Seen { hash, record })
        };
        Ok(newer.chain(stored).filter_map(seen).collect())
    }

    /// The record as the next open makes it: its owner is gone.
    fn orphaned(&self, seen: Seen) -> Seen {
        let State::InFlight(attempt) = &seen.record.state else { return seen };
        let since = attempt.deadline.map_or(self.time, |deadline| deadline.min(self.time));
        let state = State::Orphan { attempt: attempt.clone(), since };
        let Record { key, fingerprint, .. } = &*seen.record;
        let record = Record { key: key.clone(), fingerprint: fingerprint.clone(), state };
        Seen { hash: seen.hash, record: Arc::new(record) }
    }
}

fn read_only() -> Error {
    Error::new(ErrorKind::Unsupported, "the store is open to be read")
}

impl Backend for Files {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn identify(&self, key: &Key, fingerprint: Fingerprint) -> (KeyHash, KeyedFingerprint) {
        (KeyHash::of(key, &self.secret), KeyedFingerprint::new(fingerprint, &self.secret))
    }

    fn submit(&self, operation: Operation) {
        operation.tell(Err(read_only()));
    }

    fn withdraw(&self, _: KeyHash, _: Wait) {}

    fn read(&self, key: &Key) -> Result<Reading<Option<Seen>>> {
        let hash = KeyHash::of(key, &self.secret);
        let found = self.record(hash, key)?.map(|record| Seen { hash, record });
        Ok(Reading { found, now: self.now() })
    }

    fn checkpoint(&self, key: &Key, hash: KeyHash, token: Token) -> Result<Option<SharedBytes>> {
        let look = || {
            let record = self.record(hash, key)?;
            checkpoint::of(record.as_deref(), token, self.now())
        };
        checkpoint::read(look, |stored| self.view.checkpoint(hash, stored))
    }

    fn open_records(&self) -> Result<Reading<Vec<Seen>>> {
        let found = self.open()?.into_iter().map(|seen| self.orphaned(seen)).collect();
        Ok(Reading { found, now: self.now() })
    }

    fn scan(&self, after: Option<KeyHash>, most: usize) -> Result<Reading<ScanPage>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.records.range((from, Bound::Unbounded)).take(most);
        let newer: Vec<_> = behind.map(|(hash, newer)| (*hash, newer.clone())).collect();
        let through = match newer.last() {
            Some((last, _)) if newer.len() == most => *last,
            _ => KeyHash(u128::MAX),
        };
        let now = self.now();
        let stored = self.view.scan(after, through, most, now)?;
        Ok(Reading { found: stored.under(newer, most), now })
    }

    fn buckets(&self) -> Result<Vec<Bucket>> {
        Ok(self.view.buckets())
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        let now = self.now();
        // Damage is reported where records are read.
        let open = self.open().unwrap_or_default();
        for Seen { record, .. } in &open {
            if record.orphaned_since(now).is_some() {
                stats.orphans += 1;
            } else if record.is_in_flight() {
                stats.in_flight += 1;
            }
            stats.open_bytes += record.weight() as u64;
        }
        stats.folded_records = self.view.entries();
        stats.runs = self.view.runs() as u64;
        stats.store_bytes = self.bytes;
        stats
    }

    fn fold(&self) -> Result<()> {
        Err(read_only())
    }

    fn sweep(&self) -> Result<u64> {
        Err(read_only())
    }

    fn backup_to(&self, _: &Path) -> Result<()> {
        Err(read_only())
    }

    fn reopen(&self) -> Result<()> {
        Err(read_only())
    }

    fn close(&self) -> Result<CloseReport> {
        Err(read_only())
    }

    fn end(&self) {
        drop(self.held.lock().take());
    }

    fn location(&self) -> String {
        self.home.path.display().to_string()
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.home.path)
    }

    fn set_owner_note(&self, _: &[u8]) -> Result<()> {
        Err(read_only())
    }
}
