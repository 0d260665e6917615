//! The embedded backend over its life: open, reopen, close.

use std::path::Path;
use std::sync::Arc;

use crate::api::engine::Engine;
use crate::backend::operation::{Operation, Wait};
use crate::backend::reports::{Bucket, CloseReport, Stats};
use crate::backend::{Backend, Reading, ScanPage, Seen, Settings, check_note, telemetry};
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Mutex, Swap};
use crate::base::wait::block_on;
use crate::embedded::backup;
use crate::embedded::directory::{self, StoreDirectory};
use crate::embedded::options::Options;
use crate::embedded::session::Session;
use crate::embedded::threads::Threads;
use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::secret::Secret;
use crate::semantics::token::Token;

/// A store directory that this process holds.
pub(crate) struct Embedded {
    options: Options,
    settings: Settings,
    home: StoreDirectory,
    /// The secret of the store, the same in every session.
    secret: Secret,
    /// The session that is open now.
    session: Swap<Session>,
    /// `None` once closed. Locked during a reopen, a close and a change of the owner's note.
    running: Mutex<Option<Threads>>,
    /// Whether the store may have a note of this owner. Written with `running` locked.
    noted: AtomicBool,
}

impl Embedded {
    pub(crate) fn open(path: &Path, options: Options, create: bool) -> Result<Engine> {
        options.validate()?;
        let open = || directory::open(&options, path, create);
        let (home, lock) = directory::when_free(&options, open)?;
        // The note of an owner that was killed is removed.
        set_note(&home, b"");
        let (session, secret, running) = Threads::start(&options, &home, &lock, None)?;
        // An earlier build, or a copy, may have left files open to other users.
        directory::narrow(&home).unwrap_or_else(|error| telemetry::stays_wide(&error));
        set_note(&home, &options.owner_note);
        let noted = AtomicBool::new(!options.owner_note.is_empty());
        let running = Mutex::new(Some(running));
        let settings = options.settings();
        let session = Swap::new(session);
        Ok(Engine::over(Arc::new(Self {
            options,
            settings,
            home,
            secret,
            session,
            running,
            noted,
        })))
    }

    fn session(&self) -> Arc<Session> {
        self.session.load().clone()
    }

    fn open_session(&self) -> Result<Arc<Session>> {
        let session = self.session();
        if session.is_closed() { Err(session.refusal()) } else { Ok(session) }
    }

    /// Ends the threads. `None` when they were ended before.
    fn stop(&self, fold: bool) -> Option<Result<CloseReport>> {
        let mut running = self.running.lock();
        let threads = running.take()?;
        let session = self.session();
        let folded = if fold { session.fold() } else { Ok(()) };
        session.close();
        let lock = threads.join(&session);
        if self.noted.load(Ordering::Relaxed) {
            set_note(&self.home, b"");
        }
        drop(lock);
        Some(folded.map(|()| CloseReport {
            in_flight: session.limits.in_flight(),
            folded_through: session.folds.folded_through(),
        }))
    }
}

/// Sets the note of the owner. A failure is only reported: an owner needs no note.
fn set_note(home: &StoreDirectory, note: &[u8]) {
    home.set_note(note).unwrap_or_else(|error| telemetry::not_noted(&error));
}

impl Backend for Embedded {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn identify(&self, key: &Key, fingerprint: Fingerprint) -> (KeyHash, KeyedFingerprint) {
        (KeyHash::of(key, &self.secret), KeyedFingerprint::new(fingerprint, &self.secret))
    }

    fn submit(&self, operation: Operation) {
        self.session.load().submit(operation);
    }

    fn withdraw(&self, hash: KeyHash, wait: Wait) {
        self.session.load().withdraw(hash, wait);
    }

    fn read(&self, key: &Key) -> Result<Reading<Option<Seen>>> {
        let session = self.open_session()?;
        let hash = KeyHash::of(key, &self.secret);
        let record = session.peek(hash, key)?;
        let found = record.map(|record| Seen { hash, record });
        Ok(Reading { found, now: session.now() })
    }

    fn checkpoint(&self, key: &Key, hash: KeyHash, token: Token) -> Result<Option<SharedBytes>> {
        self.open_session()?.checkpoint(hash, key, token)
    }

    fn open_records(&self) -> Result<Reading<Vec<Seen>>> {
        let session = self.open_session()?;
        let found = session.open_records()?;
        Ok(Reading { found, now: session.now() })
    }

    fn scan(&self, after: Option<KeyHash>, most: usize) -> Result<Reading<ScanPage>> {
        let session = self.open_session()?;
        let found = session.scan(after, most)?;
        Ok(Reading { found, now: session.now() })
    }

    fn buckets(&self) -> Result<Vec<Bucket>> {
        Ok(self.open_session()?.view().buckets())
    }

    fn stats(&self) -> Stats {
        self.session().stats()
    }

    fn fold(&self) -> Result<()> {
        self.session().fold()
    }

    fn sweep(&self) -> Result<u64> {
        let session = self.open_session()?;
        block_on(session.inbox.sweep()).unwrap_or_else(|_| Err(session.refusal()))
    }

    fn backup_to(&self, path: &Path) -> Result<()> {
        self.fold()?;
        let session = self.open_session()?;
        backup::back_up(&session, path)
    }

    fn reopen(&self) -> Result<()> {
        let mut running = self.running.lock();
        let Some(threads) = running.take() else {
            return Err(Error::new(ErrorKind::Closed, ""));
        };
        let old = self.session();
        old.suspend();
        let lock = threads.join(&old);
        match Threads::start(&self.options, &self.home, &lock, Some(&self.secret)) {
            Ok((session, _, threads)) => {
                drop(self.session.swap(session));
                *running = Some(threads);
                Ok(())
            }
            Err(error) => {
                old.not_reopened(&error);
                *running = Some(Threads::ended(lock));
                Err(error)
            }
        }
    }

    fn close(&self) -> Result<CloseReport> {
        self.stop(true).unwrap_or_else(|| Err(Error::new(ErrorKind::Closed, "")))
    }

    fn end(&self) {
        self.stop(false);
    }

    fn location(&self) -> String {
        self.home.path.display().to_string()
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.home.path)
    }

    fn set_owner_note(&self, note: &[u8]) -> Result<()> {
        check_note(note)?;
        // ORDER: locked until the note is written. An engine that ends meanwhile empties the note
        // after that, and unlocks the directory last.
        let running = self.running.lock();
        if running.is_none() {
            return Err(Error::new(ErrorKind::Closed, ""));
        }
        self.noted.store(true, Ordering::Relaxed);
        self.home.set_note(note)
    }
}
