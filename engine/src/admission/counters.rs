//! Counters of answers and of work, for [`Stats`].

use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::operation::Answer;
use crate::backend::reports::Stats;
use crate::backend::telemetry;
use crate::semantics::command::{Command, Reply};

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Split by the hash of the key, so that threads seldom count in the same place at once.
    answers: [Answers; 16],
    pub(crate) groups: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) folds: AtomicU64,
    pub(crate) swept: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) store_bytes: AtomicU64,
}

/// Aligned to two cache lines, because processors fetch them in pairs.
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
