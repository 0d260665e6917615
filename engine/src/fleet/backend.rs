//! An open store of a fleet, as the engine sees it.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::driver::{Driver, Events, Shared};
use super::image;
use super::machine::{Event, Machine, Rules};
use super::options::Options;
use super::store::{Done, Expiring, NewInstance, Rows, Store};
use crate::admission::counters::Counters;
use crate::admission::limits::Limits;
use crate::api::attempt::refusal;
use crate::api::engine::Engine;
use crate::backend::operation::{Operation, Wait};
use crate::backend::reports::{Bucket, CloseReport, Stats};
use crate::backend::{Backend, Reading, ScanPage, Seen, Settings};
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::thread::JoinHandle;
use crate::base::sync::{Condvar, Instant, Mutex, after, countable};
use crate::semantics::command::Reply;
use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::{Checkpoint, State};
use crate::semantics::secret::Secret;
use crate::semantics::time::Time;
use crate::semantics::token::Token;

/// The orphans of one question.
const PAGE: usize = 1_000;

/// The rows of one question of a scan. They come with their responses, and renewals wait behind
/// them.
const SCAN_PAGE: usize = 100;

/// How long a reopen waits for its new instance.
const REOPEN_PATIENCE: Duration = Duration::from_secs(30);

/// Opens an engine over a shared store.
///
/// # Errors
/// `InvalidInput`, and those of [`Store::open`].
pub fn open(store: Arc<dyn Store>, options: Options) -> Result<Engine> {
    options.validate()?;
    let sent = Instant::now();
    let new = NewInstance {
        name: options.instance_name.clone(),
        lease: options.lease,
        build: options.build.clone(),
    };
    let opened = store.open(&new)?;
    let rules = Rules {
        incarnation: opened.incarnation,
        name: options.instance_name.clone(),
        build: options.build.clone(),
        lease: options.lease,
        overload_after: countable(options.overload_after),
        settle_for: countable(options.settle_for),
        upkeep_interval: countable(options.upkeep_interval),
        replay_bytes: options.replay_bytes,
        second_group: 16,
        durable_claims: options.durable_claims,
    };
    let limits = Arc::new(Limits::new(options.bounds()));
    let machine = Machine::new(rules, limits.clone(), opened.registered, sent, Instant::now());
    let shared = Arc::new(Shared {
        store,
        events: Mutex::new(Events::default()),
        wake: Condvar::new(),
        counters: Counters::default(),
        instance: AtomicU64::new(opened.registered.instance),
        changed: Condvar::new(),
        limits,
        max_store_bytes: options.max_store_bytes,
    });
    let driver = Driver { shared: shared.clone(), machine };
    let thread = crate::base::sync::thread::Builder::new()
        .name("oncekey-fleet".to_owned())
        .spawn(move || driver.run())
        .map_err(|source| Error::io("starting a thread", source))?;
    Ok(Engine::over(Arc::new(Fleet {
        settings: options.settings(),
        secret: Secret(opened.secret),
        incarnation: opened.incarnation,
        thread: Mutex::new(Some(thread)),
        shared,
    })))
}

/// An open store of a fleet, as the engine sees it.
struct Fleet {
    settings: Settings,
    secret: Secret,
    incarnation: u64,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Fleet {
    fn instance(&self) -> u64 {
        self.shared.instance.load(Ordering::SeqCst)
    }

    fn is_closed(&self) -> bool {
        self.shared.events.lock().ended
    }

    /// Asks the store on the caller's thread, and waits.
    fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&dyn Store, Done<T>)) -> Result<T> {
        if self.is_closed() {
            return Err(Error::new(ErrorKind::Closed, ""));
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        ask(&*self.shared.store, Box::new(move |answer| drop(sender.send(answer))));
        match receiver.recv() {
            Ok(answer) => answer.map_err(|failure| failure.error().clone()),
            Err(_) => Err(Error::new(ErrorKind::Closed, "")),
        }
    }

    fn seen(&self, rows: &Rows) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for row in &rows.rows {
            if let Some(record) = image::record(row, self.incarnation, rows.now)? {
                seen.push(Seen { hash: KeyHash(row.hash), record: Arc::new(record) });
            }
        }
        Ok(seen)
    }

    /// Ends the thread. `None` when it was ended before.
    fn stop(&self) -> Option<Result<CloseReport>> {
        let thread = self.thread.lock().take()?;
        drop(self.shared.push(Event::Stop));
        if thread.thread().id() != std::thread::current().id() {
            let _panicked = thread.join();
        }
        let in_flight = self.shared.limits.in_flight();
        let ended = self.shared.store.close(self.instance());
        Some(ended.map(|()| CloseReport { in_flight, folded_through: 0 }))
    }
}

impl Backend for Fleet {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn identify(&self, key: &Key, fingerprint: Fingerprint) -> (KeyHash, KeyedFingerprint) {
        (KeyHash::of(key, &self.secret), KeyedFingerprint::new(fingerprint, &self.secret))
    }

    fn submit(&self, operation: Operation) {
        if let Some(Event::Submit(operation)) = self.shared.push(Event::Submit(operation)) {
            operation.tell(Err(Error::new(ErrorKind::Closed, "")));
        }
    }

    fn withdraw(&self, hash: KeyHash, wait: Wait) {
        drop(self.shared.push(Event::Withdraw(hash, wait)));
    }

    fn read(&self, key: &Key) -> Result<Reading<Option<Seen>>> {
        let hash = KeyHash::of(key, &self.secret);
        let by = self.instance();
        let rows = self.ask(|store, done| store.read(by, vec![hash.0], done))?;
        Ok(Reading { found: self.seen(&rows)?.pop(), now: Time(rows.now) })
    }

    fn checkpoint(&self, key: &Key, hash: KeyHash, token: Token) -> Result<Option<SharedBytes>> {
        let Reading { found, now } = self.read(key)?;
        let record = found.filter(|seen| seen.hash == hash && !seen.record.is_expired(now));
        match record.as_ref().map(|seen| (&seen.record.state, seen.record.attempt())) {
            Some((State::Completed(_), _)) => Err(refusal(&Reply::AlreadyCompleted)),
            Some((_, Some(attempt))) if attempt.token == token => match &attempt.checkpoint {
                Some(Checkpoint::Here(data)) => Ok(Some(data.clone())),
                Some(Checkpoint::Stored(_)) => {
                    Err(Error::corrupted("a row without its checkpoint"))
                }
                None => Ok(None),
            },
            _ => Err(refusal(&Reply::Fenced)),
        }
    }

    fn open_records(&self) -> Result<Reading<Vec<Seen>>> {
        let (by, overdue) = (self.instance(), self.settings.max_execution.is_some());
        self.ask(|store, done| store.list(by, overdue, done))?;
        let (mut found, mut after, mut now) = (Vec::new(), None, 0);
        loop {
            let rows = self.ask(|store, done| store.orphans(by, after, PAGE, done))?;
            now = rows.now.max(now);
            found.extend(self.seen(&rows)?);
            match rows.rows.iter().map(|row| row.hash).max() {
                Some(last) => after = Some(last),
                None => return Ok(Reading { found, now: Time(now) }),
            }
        }
    }

    fn scan(&self, after: Option<KeyHash>, most: usize) -> Result<Reading<ScanPage>> {
        let from = after.map_or(Some(0), |after| after.0.checked_add(1));
        let Some(from) = from else {
            return Ok(Reading { found: ScanPage::default(), now: Time(0) });
        };
        let (by, most) = (self.instance(), most.min(SCAN_PAGE));
        let rows = self.ask(|store, done| store.scan(by, from, most, done))?;
        let last = rows.rows.iter().map(|row| KeyHash(row.hash)).max();
        let through = last.filter(|_| rows.rows.len() == most);
        let mut seen = self.seen(&rows)?;
        seen.sort_by_key(|seen| seen.hash);
        Ok(Reading { found: ScanPage { seen, through }, now: Time(rows.now) })
    }

    fn buckets(&self) -> Result<Vec<Bucket>> {
        let buckets = self.ask(|store, done| store.expiring(done))?;
        let bucket = |of: Expiring| Bucket::new(Time(of.end).to_wall(), of.records, of.bytes);
        Ok(buckets.into_iter().map(bucket).collect())
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.shared.counters.fill(&mut stats);
        let limits = &self.shared.limits;
        stats.in_flight = limits.in_flight();
        stats.queued = limits.queued() as u64;
        stats.waiters = limits.waiting() as u64;
        stats.orphans = limits.orphans.total();
        stats.full = limits.shortage.is_on();
        stats
    }

    fn fold(&self) -> Result<()> {
        match self.is_closed() {
            true => Err(Error::new(ErrorKind::Closed, "")),
            // Every acknowledged change is in its final place.
            false => Ok(()),
        }
    }

    fn sweep(&self) -> Result<u64> {
        let by = self.instance();
        let upkeep = self.ask(|store, done| store.upkeep(by, Duration::ZERO, done))?;
        self.shared.kept(&upkeep);
        Ok(upkeep.removed)
    }

    fn backup_to(&self, _: &Path) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "use the backups of the server"))
    }

    fn reopen(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::new(ErrorKind::Closed, ""));
        }
        let old = self.instance();
        self.shared.store.close(old)?;
        drop(self.shared.push(Event::Reopened));
        match self.shared.wait_for_other(old, after(REOPEN_PATIENCE)) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Unavailable, "the store gave no instance")),
        }
    }

    fn close(&self) -> Result<CloseReport> {
        self.stop().unwrap_or_else(|| Err(Error::new(ErrorKind::Closed, "")))
    }

    fn end(&self) {
        self.stop();
    }

    fn location(&self) -> String {
        self.shared.store.location()
    }

    fn set_owner_note(&self, _: &[u8]) -> Result<()> {
        let kind = if self.is_closed() { ErrorKind::Closed } else { ErrorKind::Unsupported };
        Err(Error::new(kind, "a shared store has many owners and no note"))
    }

    fn shared_store(&self) -> Option<&dyn Any> {
        Some(self.shared.store.as_any())
    }
}
