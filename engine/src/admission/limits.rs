//! The bounds on claims, begins and orphans, and their numbers.
//!
//! Each number changes where a claim, a begin or an orphan comes or goes. A begin reserves all that
//! its claim needs, so that the end of a claim is never refused.

// Atomics of std also under loom and shuttle: these numbers order nothing.
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::range::at_least;
use crate::base::sync::Mutex;
use crate::semantics::command::Command;
use crate::semantics::record::Record;

/// The greatest numbers that are allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) in_flight: usize,
    /// Begins on their way to the store.
    pub(crate) queued: usize,
    pub(crate) waiting: usize,
    pub(crate) orphans: u64,
    /// Bytes of claims in flight and orphans.
    pub(crate) open_bytes: u64,
}

impl Bounds {
    // Besides tests only the fleet uses this, and builds for loom and shuttle have no fleet.
    #[cfg_attr(any(oncekey_loom, oncekey_shuttle), allow(dead_code))]
    pub(crate) const NONE: Self = Self {
        in_flight: usize::MAX,
        queued: usize::MAX,
        waiting: usize::MAX,
        orphans: u64::MAX,
        open_bytes: u64::MAX,
    };

    pub(crate) fn validate(&self) -> Result<()> {
        at_least("max_in_flight", self.in_flight, 1)?;
        at_least("max_queue", self.queued, 1)?;
        at_least("max_waiters", self.waiting, 1)?;
        at_least("max_orphans", self.orphans, 1)
    }
}

/// The bounds, and the numbers that count towards them. All threads of one open store share them.
#[derive(Debug)]
pub(crate) struct Limits {
    bounds: Bounds,
    /// Claims, and begins that may become claims.
    in_flight: AtomicIsize,
    queued: AtomicUsize,
    waiting: AtomicUsize,
    /// Orphans.
    pub(crate) orphans: Gauge,
    /// A record that changed since the last fold counts twice: as it was folded and as it is.
    pub(crate) open_bytes: Gauge,
    /// Why no new claims are granted.
    pub(crate) shortage: Shortage,
    /// A bound refused a command, and a fold may make room: resolved records count until they are
    /// folded.
    fold_would_help: AtomicBool,
}

impl Limits {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            in_flight: AtomicIsize::new(0),
            queued: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            orphans: Gauge::default(),
            open_bytes: Gauge::default(),
            shortage: Shortage::default(),
            fold_would_help: AtomicBool::new(false),
        }
    }

    #[cfg(test)]
    pub(crate) fn unbounded() -> Self {
        Self::new(Bounds::NONE)
    }

    /// Refuses a begin when too many are on their way to the store.
    pub(crate) fn check_queue(&self) -> Result<()> {
        let limit = self.bounds.queued;
        if self.queued() < limit {
            return Ok(());
        }
        Err(overloaded(limit as u64, "begins wait for the store"))
    }

    /// Reserves what a command needs to change its record, or refuses the command. A command that
    /// may start an execution counts as in flight from then on.
    pub(crate) fn reserve(&self, command: &Command) -> Result<()> {
        match command {
            Command::Checkpoint { data, .. } => return self.reserve_open_bytes(data.len()),
            Command::Begin { .. } => self.reserve_open_bytes(size_of::<Record>())?,
            Command::TakeOver { .. } => {}
            _ => return Ok(()),
        }
        self.check_claim(command)?;
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= self.most_in_flight() {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(overloaded(self.bounds.in_flight as u64, "claims are in flight"));
        }
        Ok(())
    }

    /// Refuses a claim for any reason but the number of claims in flight.
    fn check_claim(&self, command: &Command) -> Result<()> {
        if let Some(why) = self.shortage.why() {
            let context = format!("no new claims for now: {}", why.context());
            return Err(Error::caused_by(why.kind(), context, why));
        }
        let limit = self.bounds.orphans;
        if matches!(command, Command::Begin { .. }) && self.orphans.total() >= limit {
            self.fold_would_help.store(true, Ordering::Relaxed);
            return Err(overloaded(limit, "orphans are unresolved"));
        }
        Ok(())
    }

    fn most_in_flight(&self) -> isize {
        isize::try_from(self.bounds.in_flight).unwrap_or(isize::MAX)
    }

    fn reserve_open_bytes(&self, more: usize) -> Result<()> {
        let limit = self.bounds.open_bytes;
        if self.open_bytes.total().saturating_add(more as u64) <= limit {
            return Ok(());
        }
        self.fold_would_help.store(true, Ordering::Relaxed);
        let message = format!("claims and orphans take {limit} bytes, the most allowed");
        Err(Error::new(ErrorKind::Overloaded, message))
    }

    /// Gives back what [`reserve`](Self::reserve) reserved.
    pub(crate) fn release(&self, command: &Command) {
        if command.starts_execution() {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Claims were granted, or ended when the number is negative.
    pub(crate) fn claims_changed(&self, by: isize) {
        if by != 0 {
            self.in_flight.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Whether, since the last call, a bound refused a command for which a fold may make room.
    pub(crate) fn asks_for_a_fold(&self) -> bool {
        self.fold_would_help.load(Ordering::Relaxed)
            && self.fold_would_help.swap(false, Ordering::Relaxed)
    }

    /// Counts one more operation that waits at a key. The bound refuses only begins.
    pub(super) fn wait(&self, command: &Command) -> Result<()> {
        let limit = self.bounds.waiting;
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= limit
            && matches!(command, Command::Begin { .. })
        {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(overloaded(limit as u64, "begins wait for an owner"));
        }
        Ok(())
    }

    /// Counts an operation that waits again. The bound let it wait before.
    pub(super) fn wait_on(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stop_waiting(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn queue_begin(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unqueue_begins(&self, count: usize) {
        if count > 0 {
            self.queued.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// Claims, and begins that may become claims.
    pub(crate) fn in_flight(&self) -> u64 {
        u64::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Begins on their way to the store.
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether a claim would be refused to this command now.
    // Only the fleet calls this, and builds for loom and shuttle have no fleet.
    #[cfg_attr(any(oncekey_loom, oncekey_shuttle), allow(dead_code))]
    pub(crate) fn refuses(&self, command: &Command) -> bool {
        self.in_flight.load(Ordering::Relaxed) >= self.most_in_flight()
            || self.check_claim(command).is_err()
    }

    /// Operations that wait at a key.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

fn overloaded(limit: u64, what: &str) -> Error {
    Error::new(ErrorKind::Overloaded, format!("{limit} {what}, the most allowed"))
}

/// A count over records in three parts: the folded records, the changes since the last fold began,
/// and the changes that a fold under way writes. A change may be below zero, and wraps.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    folded: AtomicU64,
    active: AtomicU64,
    folding: AtomicU64,
}

impl Gauge {
    pub(crate) fn total(&self) -> u64 {
        [&self.folded, &self.folding, &self.active]
            .map(|part| part.load(Ordering::Relaxed))
            .into_iter()
            .fold(0, u64::wrapping_add)
            // Two parts are read apart from each other: for a moment the sum may be below zero.
            .cast_signed()
            .max(0)
            .cast_unsigned()
    }

    pub(crate) fn add(&self, count: u64) {
        self.active.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, count: u64) {
        self.active.fetch_sub(count, Ordering::Relaxed);
    }

    /// A fold begins.
    pub(crate) fn rotate(&self) {
        self.folding.store(self.active.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The fold has ended.
    pub(crate) fn evicted(&self) {
        self.folding.store(0, Ordering::Relaxed);
    }

    /// The store file holds `count`.
    pub(crate) fn set_folded(&self, count: u64) {
        self.folded.store(count, Ordering::Relaxed);
    }
}

/// A lack of space, of descriptors or of a prepared journal segment. No claims are granted until
/// the fold worker has what it needs again.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    /// Read by every begin, hence no lock.
    on: AtomicBool,
    why: Mutex<Option<Error>>,
}

impl Shortage {
    /// Sets the reason, `None` for no shortage. Returns whether there was a shortage before.
    pub(crate) fn set(&self, why: Option<Error>) -> bool {
        let on = why.is_some();
        *self.why.lock() = why;
        self.on.swap(on, Ordering::Relaxed)
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn why(&self) -> Option<Error> {
        if self.is_on() { self.why.lock().clone() } else { None }
    }
}

#[cfg(all(test, not(oncekey_loom), not(oncekey_shuttle)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
    use crate::semantics::secret::Secret;
    use crate::semantics::token::Token;

    const TOKEN: Token = Token { incarnation: 1, epoch: 1, sequence: 1 };

    fn begin() -> Command {
        let fingerprint =
            KeyedFingerprint::new(Fingerprint::builder().finish(), &Secret([1; Secret::LEN]));
        Command::Begin { fingerprint, ttl: Duration::from_secs(1), max_execution: None }
    }

    #[test]
    fn each_bound_refuses_begins_and_no_end() {
        type Fill = fn(&Limits);
        let bounds: [(&str, Bounds, Fill); 5] = [
            ("claims", Bounds { in_flight: 1, ..Bounds::NONE }, |limits| limits.claims_changed(1)),
            ("the store", Bounds { queued: 1, ..Bounds::NONE }, Limits::queue_begin),
            ("orphans", Bounds { orphans: 1, ..Bounds::NONE }, |limits| limits.orphans.add(1)),
            ("bytes", Bounds { open_bytes: 1000, ..Bounds::NONE }, |limits| {
                limits.open_bytes.add(999)
            }),
            ("an owner", Bounds { waiting: 1, ..Bounds::NONE }, |limits| {
                drop(limits.wait(&begin()))
            }),
        ];
        for (what, bounds, fill) in bounds {
            let limits = Limits::new(bounds);
            let ask = |command: &Command| match what {
                "an owner" => limits.wait(command),
                "the store" if command.starts_execution() => limits.check_queue(),
                _ => limits.reserve(command),
            };
            ask(&begin()).unwrap_or_else(|error| panic!("{what}: {error}"));
            match what {
                "an owner" => limits.stop_waiting(),
                "the store" => {}
                _ => limits.release(&begin()),
            }
            fill(&limits);
            let counted = (limits.in_flight(), limits.waiting());
            let error = ask(&begin()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Overloaded, "{what}");
            assert!(error.to_string().contains(what), "{error}");
            assert_eq!((limits.in_flight(), limits.waiting()), counted, "refused and counted");
            ask(&Command::Abort { token: TOKEN }).unwrap();
        }
    }

    #[test]
    fn a_fold_is_asked_for_once_where_it_may_make_room() {
        let limits = Limits::new(Bounds { orphans: 0, ..Bounds::NONE });
        assert!(!limits.asks_for_a_fold());
        limits.reserve(&begin()).unwrap_err();
        assert!(limits.asks_for_a_fold());
        assert!(!limits.asks_for_a_fold());
    }

    #[test]
    fn a_shortage_refuses_by_its_own_kind() {
        let limits = Limits::unbounded();
        assert!(!limits.shortage.set(Some(Error::new(ErrorKind::StoreFull, "no space"))));
        let error = limits.reserve(&begin()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreFull);
        assert!(limits.shortage.set(None));
        limits.reserve(&begin()).unwrap();
    }

    #[test]
    fn a_gauge_counts_what_is_folded_folding_and_changed() {
        let gauge = Gauge::default();
        gauge.set_folded(1);
        gauge.add(20);
        gauge.rotate();
        gauge.add(500);
        gauge.remove(200);
        assert_eq!(gauge.total(), 321);
        gauge.set_folded(21);
        gauge.evicted();
        assert_eq!(gauge.total(), 321);
        gauge.remove(310);
        assert_eq!(gauge.total(), 11);
        gauge.rotate();
        gauge.set_folded(11);
        gauge.evicted();
        assert_eq!(gauge.total(), 11);
    }
}
