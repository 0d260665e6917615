//! The embedded backend over its life: open, reopen, close.

use std::path::Path;
use std::sync::Arc;

use crate::api::engine::Engine;
use crate::backend::operation::{Operation, Wait};
use crate::backend::reports::{CloseReport, Stats};
use crate::backend::{Backend, Reading, Seen, Settings, telemetry};
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::atomic::Ordering;
use crate::base::sync::{Mutex, Swap};
use crate::base::wait::block_on;
use crate::embedded::backup;
use crate::embedded::directory::{self, StoreDirectory};
use crate::embedded::options::Options;
use crate::embedded::session::Core;
use crate::embedded::threads::Running;
use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::secret::Secret;
use crate::semantics::token::Token;

/// A store directory that this process holds.
pub(crate) struct Embedded {
    options: Options,
    settings: Settings,
    home: StoreDirectory,
    /// Of the store, whichever session is open.
    secret: Secret,
    /// The session that is open now.
    core: Swap<Core>,
    /// `None` once closed. Held while the store is opened, reopened or closed.
    running: Mutex<Option<Running>>,
}

impl Embedded {
    pub(crate) fn open(path: &Path, options: Options, create: bool) -> Result<Engine> {
        options.validate()?;
        let (home, lock) = directory::open(&options, path, create)?;
        let (core, secret, running) = Running::start(&options, &home, &lock, None)?;
        // What an earlier build, or a copy, left open to others.
        directory::narrow(&home).unwrap_or_else(|error| telemetry::stays_wide(&error));
        let running = Mutex::new(Some(running));
        let settings = options.settings();
        let core = Swap::new(core);
        Ok(Engine::over(Arc::new(Self { options, settings, home, secret, core, running })))
    }

    fn core(&self) -> Arc<Core> {
        self.core.load().clone()
    }

    fn open_core(&self) -> Result<Arc<Core>> {
        let core = self.core();
        if core.is_closed() { Err(core.refusal()) } else { Ok(core) }
    }

    /// Ends the threads; `None` when that was done before.
    fn stop(&self, fold: bool) -> Option<Result<CloseReport>> {
        let mut running = self.running.lock();
        let threads = running.take()?;
        let core = self.core();
        let folded = if fold { core.fold() } else { Ok(()) };
        core.close();
        let lock = threads.join(&core);
        drop(lock);
        Some(folded.map(|()| CloseReport {
            in_flight: u64::try_from(core.in_flight.load(Ordering::Relaxed)).unwrap_or(0),
            folded_through: core.folds.folded_through(),
        }))
    }
}

impl Backend for Embedded {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn identify(&self, key: &Key, fingerprint: Fingerprint) -> (KeyHash, KeyedFingerprint) {
        (KeyHash::of(key, &self.secret), KeyedFingerprint::new(fingerprint, &self.secret))
    }

    fn submit(&self, operation: Operation) {
        self.core.load().submit(operation);
    }

    fn withdraw(&self, hash: KeyHash, wait: Wait) {
        self.core.load().withdraw(hash, wait);
    }

    fn read(&self, key: &Key) -> Result<Reading<Option<Seen>>> {
        let core = self.open_core()?;
        let hash = KeyHash::of(key, &self.secret);
        let record = core.peek(hash, key)?;
        let found = record.map(|record| Seen { hash, record });
        Ok(Reading { found, now: core.now() })
    }

    fn checkpoint(&self, key: &Key, hash: KeyHash, token: Token) -> Result<Option<SharedBytes>> {
        self.open_core()?.checkpoint(hash, key, token)
    }

    fn open_records(&self) -> Result<Reading<Vec<Seen>>> {
        let core = self.open_core()?;
        let found = core.open_records()?;
        Ok(Reading { found, now: core.now() })
    }

    fn stats(&self) -> Stats {
        self.core().stats()
    }

    fn fold(&self) -> Result<()> {
        self.core().fold()
    }

    fn sweep(&self) -> Result<u64> {
        let core = self.open_core()?;
        block_on(core.inbox.sweep()).unwrap_or_else(|_| Err(core.refusal()))
    }

    fn backup_to(&self, path: &Path) -> Result<()> {
        self.fold()?;
        let core = self.open_core()?;
        backup::back_up(&core, path)
    }

    fn reopen(&self) -> Result<()> {
        let mut running = self.running.lock();
        let Some(threads) = running.take() else {
            return Err(Error::new(ErrorKind::Closed, ""));
        };
        let old = self.core();
        old.suspend();
        let lock = threads.join(&old);
        match Running::start(&self.options, &self.home, &lock, Some(&self.secret)) {
            Ok((core, _, threads)) => {
                drop(self.core.swap(core));
                *running = Some(threads);
                Ok(())
            }
            Err(error) => {
                old.not_reopened(&error);
                *running = Some(Running::ended(lock));
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
}
