//! What the engine tells of itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::lock_table::Answer;
use crate::transition::{Command, Reply};

/// A snapshot of the engine, as [`Engine::stats`](crate::Engine::stats) takes it. Counters count
/// since the engine was opened or reopened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Claims whose owner lives.
    pub in_flight: u64,
    /// How long the oldest of them has been held.
    pub oldest_claim: Option<Duration>,
    /// Orphans that nobody resolved yet. Live claims that outlived a fold and orphans resolved
    /// since the last fold are counted in.
    pub orphans: u64,
    /// Begins that wait for the disk.
    pub queued: u64,
    /// Begins that wait for an owner or for another begin of their key.
    pub waiters: u64,
    /// Memory of records that are journalled but not yet folded, in bytes.
    pub recent_bytes: u64,
    /// Completed records in the store file, expired ones that were not swept yet included.
    pub folded_records: u64,
    /// Runs that index them.
    pub runs: u64,
    /// Bytes of the store file and of the journal, as of the last fold or sweep.
    pub store_bytes: u64,
    /// Whether new claims are refused as `StoreFull`.
    pub full: bool,
    /// Begins answered `Claimed`.
    pub claimed: u64,
    /// Begins answered `Replay`.
    pub replayed: u64,
    /// Begins answered `Locked`.
    pub locked: u64,
    /// Begins answered `Mismatch`.
    pub mismatched: u64,
    /// Begins answered `Orphaned`.
    pub orphaned: u64,
    /// Operations completed.
    pub completed: u64,
    /// Claims aborted.
    pub aborted: u64,
    /// Claims dropped without an end.
    pub abandoned: u64,
    /// Orphans taken over.
    pub taken_over: u64,
    /// Orphans released.
    pub released: u64,
    /// Late calls refused by their token.
    pub fenced: u64,
    /// Calls that failed or were refused.
    pub errors: u64,
    /// Groups made durable, each with one sync.
    pub groups: u64,
    /// Changes in them.
    pub entries: u64,
    /// Folds committed.
    pub folds: u64,
    /// Rows removed by the sweeper.
    pub swept: u64,
    /// Failures that latched the engine.
    pub failures: u64,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    claimed: AtomicU64,
    replayed: AtomicU64,
    locked: AtomicU64,
    mismatched: AtomicU64,
    orphaned: AtomicU64,
    completed: AtomicU64,
    aborted: AtomicU64,
    abandoned: AtomicU64,
    taken_over: AtomicU64,
    released: AtomicU64,
    fenced: AtomicU64,
    errors: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) folds: AtomicU64,
    pub(crate) swept: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) store_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, answer: &Answer) {
        let counter = match answer.parts() {
            (_, Err(_)) => &self.errors,
            (_, Ok(Reply::Fenced | Reply::AlreadyCompleted)) => &self.fenced,
            (Command::Begin { .. }, Ok(Reply::Claimed)) => &self.claimed,
            (Command::TakeOver { .. }, Ok(_)) => &self.taken_over,
            (_, Ok(Reply::Replay)) => &self.replayed,
            (_, Ok(Reply::Locked)) => &self.locked,
            (_, Ok(Reply::Mismatch(_))) => &self.mismatched,
            (_, Ok(Reply::Orphaned)) => &self.orphaned,
            (Command::Complete { .. }, Ok(_)) => &self.completed,
            (Command::Abort { .. }, Ok(_)) => &self.aborted,
            (Command::OwnerGone { .. }, Ok(_)) => &self.abandoned,
            (Command::Release { .. }, Ok(_)) => &self.released,
            (Command::Checkpoint { .. } | Command::Begin { .. }, Ok(_)) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fill(&self, stats: &mut Stats) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.claimed = get(&self.claimed);
        stats.replayed = get(&self.replayed);
        stats.locked = get(&self.locked);
        stats.mismatched = get(&self.mismatched);
        stats.orphaned = get(&self.orphaned);
        stats.completed = get(&self.completed);
        stats.aborted = get(&self.aborted);
        stats.abandoned = get(&self.abandoned);
        stats.taken_over = get(&self.taken_over);
        stats.released = get(&self.released);
        stats.fenced = get(&self.fenced);
        stats.errors = get(&self.errors);
        stats.groups = get(&self.groups);
        stats.entries = get(&self.entries);
        stats.folds = get(&self.folds);
        stats.swept = get(&self.swept);
        stats.failures = get(&self.failures);
        stats.store_bytes = get(&self.store_bytes);
    }
}
