//! What the engine tells of itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::core::Core;
use crate::op::Answer;
use crate::telemetry;
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
    /// Completed records in the record files, expired ones that were not swept yet included.
    pub folded_records: u64,
    /// Runs that index them.
    pub runs: u64,
    /// Bytes of the store file, of the files that it lists and of the journal, as of the last fold or sweep.
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

impl Stats {
    pub(crate) fn of(core: &Core) -> Self {
        let now = core.now();
        let mut stats = Stats::default();
        core.counters.fill(&mut stats);
        let mut oldest = None;
        for shard in core.table.shards() {
            for record in shard.live_records() {
                stats.in_flight += 1;
                let started = record.attempt().map(|attempt| attempt.started_at);
                oldest = [oldest, started].into_iter().flatten().min();
            }
        }
        stats.oldest_claim = oldest.map(|started| now.since(started));
        stats.orphans = core.orphans_about() as u64;
        stats.full = core.full.load(Ordering::Relaxed);
        stats.queued = core.queue.begins() as u64;
        stats.waiters = core.waiters() as u64;
        let recent = &core.recent;
        stats.recent_bytes =
            (recent.active.load(Ordering::Relaxed) + recent.folding.load(Ordering::Relaxed)) as u64;
        let view = core.view();
        stats.folded_records = view.entries();
        stats.runs = view.runs() as u64;
        stats
    }
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
        let (counter, outcome) = match answer.parts() {
            (_, Err(_)) => (&self.errors, "error"),
            (_, Ok(Reply::Fenced | Reply::AlreadyCompleted)) => (&self.fenced, "fenced"),
            (Command::Begin { .. }, Ok(Reply::Claimed)) => (&self.claimed, "claimed"),
            (Command::TakeOver { .. }, Ok(_)) => (&self.taken_over, "taken_over"),
            (_, Ok(Reply::Replay)) => (&self.replayed, "replayed"),
            (_, Ok(Reply::Locked)) => (&self.locked, "locked"),
            (_, Ok(Reply::Mismatch(_))) => (&self.mismatched, "mismatched"),
            (_, Ok(Reply::Orphaned)) => (&self.orphaned, "orphaned"),
            (Command::Complete { .. }, Ok(_)) => (&self.completed, "completed"),
            (Command::Abort { .. }, Ok(_)) => (&self.aborted, "aborted"),
            (Command::OwnerGone { .. }, Ok(_)) => (&self.abandoned, "abandoned"),
            (Command::Release { .. }, Ok(_)) => (&self.released, "released"),
            (Command::Checkpoint { .. } | Command::Begin { .. }, Ok(_)) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        telemetry::answered(outcome);
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
