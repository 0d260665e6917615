//! What the engine and its handles share: the core that is open now, and the threads that work for
//! it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::api::begin::Begin;
use crate::api::engine::CloseReport;
use crate::api::pending::Pending;
use crate::backend::operation::{Op, Request};
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::atomic::Ordering;
use crate::base::sync::{Instant, Mutex, Swap};
use crate::embedded::directory;
use crate::embedded::options::Options;
use crate::embedded::session::Core;
use crate::embedded::threads::Running;
use crate::semantics::command::Command;
use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
use crate::semantics::key::Key;
use crate::semantics::token::Token;

/// What the engine and its claims and orphans hold together.
pub(crate) struct Shared {
    options: Options,
    path: PathBuf,
    core: Swap<Core>,
    /// `None` once closed. Held while the engine is opened, reopened or closed.
    running: Mutex<Option<Running>>,
}

impl Shared {
    pub(crate) fn start(path: PathBuf, options: Options, create: bool) -> Result<Self> {
        let lock = directory::open(&options, &path, create)?;
        let (core, running) = Running::start(&options, &path, &lock)?;
        let running = Mutex::new(Some(running));
        Ok(Self { options, path, core: Swap::new(core), running })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn core(&self) -> Arc<Core> {
        self.core.load().clone()
    }

    pub(crate) fn open_core(&self) -> Result<Arc<Core>> {
        let core = self.core();
        if core.is_closed() { Err(core.refusal()) } else { Ok(core) }
    }

    pub(crate) fn begin(
        self: &Arc<Self>,
        key: &Key,
        fingerprint: Fingerprint,
        wait_until: Option<Instant>,
    ) -> Pending<Begin> {
        if let Err(error) = fingerprint.validate() {
            return Pending::ready(Err(error));
        }
        let core = self.core.load();
        let hash = core.hash(key);
        let command = Command::Begin {
            fingerprint: KeyedFingerprint::new(fingerprint, &core.secret),
            ttl: self.options.ttl,
            max_execution: self.options.max_execution,
        };
        let wait = wait_until.map(|until| core.timers.wait(until));
        let request = Request { key: key.clone(), hash, command, wait };
        let shared = self.clone();
        let (op, pending) =
            Pending::asked(request, move |outcome| Begin::answer(&shared, hash, outcome));
        core.submit(op);
        let pending = pending.on_delivery(Begin::delivered);
        let Some(wait) = wait else { return pending };
        // A `Pending` keeps no store open.
        let core = Arc::downgrade(&core);
        pending.on_giving_up(move || {
            if let Some(core) = core.upgrade() {
                core.withdraw(hash, wait);
            }
        })
    }

    /// Submits an operation of a handle, to whatever core is open now.
    pub(crate) fn submit(&self, op: Op) {
        self.core.load().submit(op);
    }

    pub(crate) fn complete_command(
        &self,
        token: Token,
        response: Option<&[u8]>,
        ttl: Option<Duration>,
    ) -> Command {
        let kept = response.filter(|response| response.len() <= self.options.max_response);
        Command::Complete { token, response: kept.map(SharedBytes::copy_of), ttl }
    }

    pub(crate) fn take_over_command(&self, token: Token) -> Command {
        Command::TakeOver { token, max_execution: self.options.max_execution }
    }

    pub(crate) fn check_checkpoint(&self, data: &[u8]) -> Result<()> {
        let limit = self.options.max_checkpoint;
        if data.len() <= limit {
            return Ok(());
        }
        Err(Error::invalid(format!("the checkpoint has {} bytes, at most {limit}", data.len())))
    }

    /// Ends the threads; `None` when that was done before.
    pub(crate) fn stop(&self, fold: bool) -> Option<Result<CloseReport>> {
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

    pub(crate) fn reopen(&self) -> Result<()> {
        let mut running = self.running.lock();
        let Some(threads) = running.take() else {
            return Err(Error::new(ErrorKind::Closed, ""));
        };
        let old = self.core();
        old.suspend();
        let lock = threads.join(&old);
        match Running::start(&self.options, &self.path, &lock) {
            Ok((core, threads)) => {
                drop(self.core.swap(core));
                *running = Some(threads);
                Ok(())
            }
            Err(error) => {
                *running = Some(Running::ended(lock));
                Err(error)
            }
        }
    }
}
