//! What the engine tells of itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backend::operation::Answer;
use crate::backend::telemetry;
use crate::embedded::session::Core;
use crate::semantics::command::{Command, Reply};

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
    /// By the hash of the key, so that threads seldom count in one place at once.
    answers: [Answers; 16],
    pub(crate) groups: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) folds: AtomicU64,
    pub(crate) swept: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) store_bytes: AtomicU64,
}

/// Two cache lines of its own: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Answers {
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
}

impl Counters {
    pub(crate) fn count(&self, answer: &Answer) {
        let answers = &self.answers[answer.hash().0 as usize % self.answers.len()];
        let (counter, outcome) = match answer.parts() {
            (_, Err(_)) => (&answers.errors, "error"),
            (_, Ok(Reply::Fenced | Reply::AlreadyCompleted)) => (&answers.fenced, "fenced"),
            (Command::Begin { .. }, Ok(Reply::Claimed)) => (&answers.claimed, "claimed"),
            (Command::TakeOver { .. }, Ok(_)) => (&answers.taken_over, "taken_over"),
            (_, Ok(Reply::Replay)) => (&answers.replayed, "replayed"),
            (_, Ok(Reply::Locked)) => (&answers.locked, "locked"),
            (_, Ok(Reply::Mismatch(_))) => (&answers.mismatched, "mismatched"),
            (_, Ok(Reply::Orphaned)) => (&answers.orphaned, "orphaned"),
            (Command::Complete { .. }, Ok(_)) => (&answers.completed, "completed"),
            (Command::Abort { .. }, Ok(_)) => (&answers.aborted, "aborted"),
            (Command::OwnerGone { .. }, Ok(_)) => (&answers.abandoned, "abandoned"),
            (Command::Release { .. }, Ok(_)) => (&answers.released, "released"),
            (Command::Checkpoint { .. } | Command::Begin { .. }, Ok(_)) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        telemetry::answered(outcome);
    }

    pub(crate) fn fill(&self, stats: &mut Stats) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for answers in &self.answers {
            stats.claimed += get(&answers.claimed);
            stats.replayed += get(&answers.replayed);
            stats.locked += get(&answers.locked);
            stats.mismatched += get(&answers.mismatched);
            stats.orphaned += get(&answers.orphaned);
            stats.completed += get(&answers.completed);
            stats.aborted += get(&answers.aborted);
            stats.abandoned += get(&answers.abandoned);
            stats.taken_over += get(&answers.taken_over);
            stats.released += get(&answers.released);
            stats.fenced += get(&answers.fenced);
            stats.errors += get(&answers.errors);
        }
        stats.groups = get(&self.groups);
        stats.entries = get(&self.entries);
        stats.folds = get(&self.folds);
        stats.swept = get(&self.swept);
        stats.failures = get(&self.failures);
        stats.store_bytes = get(&self.store_bytes);
    }
}
