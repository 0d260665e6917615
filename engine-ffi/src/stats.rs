//! What the engine tells of itself.

use crate::answer::in_ms;

/// Counters and gauges of an engine. Set `size` before the call. Counters count since the engine was
/// opened or reopened.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// sizeof(oncekey_stats) of the caller.
    pub size: u32,
    /// 1 while new claims are refused as STORE_FULL.
    pub full: u32,
    /// Claims whose owner lives.
    pub in_flight: u64,
    /// How long the oldest of them has been held, in milliseconds.
    pub oldest_claim_ms: u64,
    /// Orphans that nobody resolved yet, about.
    pub orphans: u64,
    /// Begins that wait for the disk.
    pub queued: u64,
    /// Begins that wait for an owner or for another begin of their key.
    pub waiters: u64,
    /// Memory of records that are not folded yet, in bytes.
    pub recent_bytes: u64,
    /// Completed records in the store file.
    pub folded_records: u64,
    /// Runs that index them.
    pub runs: u64,
    /// Bytes of the store file and of the journal.
    pub store_bytes: u64,
    /// Begins answered CLAIMED.
    pub claimed: u64,
    /// Begins answered REPLAY.
    pub replayed: u64,
    /// Begins answered LOCKED.
    pub locked: u64,
    /// Begins answered MISMATCH.
    pub mismatched: u64,
    /// Begins answered ORPHANED.
    pub orphaned: u64,
    /// Operations completed.
    pub completed: u64,
    /// Claims aborted.
    pub aborted: u64,
    /// Claims freed without an end.
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
    pub(crate) fn new(stats: &oncekey::Stats) -> Self {
        Self {
            size: 0,
            full: u32::from(stats.full),
            in_flight: stats.in_flight,
            oldest_claim_ms: stats.oldest_claim.map_or(0, in_ms),
            orphans: stats.orphans,
            queued: stats.queued,
            waiters: stats.waiters,
            recent_bytes: stats.recent_bytes,
            folded_records: stats.folded_records,
            runs: stats.runs,
            store_bytes: stats.store_bytes,
            claimed: stats.claimed,
            replayed: stats.replayed,
            locked: stats.locked,
            mismatched: stats.mismatched,
            orphaned: stats.orphaned,
            completed: stats.completed,
            aborted: stats.aborted,
            abandoned: stats.abandoned,
            taken_over: stats.taken_over,
            released: stats.released,
            fenced: stats.fenced,
            errors: stats.errors,
            groups: stats.groups,
            entries: stats.entries,
            folds: stats.folds,
            swept: stats.swept,
            failures: stats.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    /// The engine's own list, from its source.
    #[test]
    fn everything_that_the_engine_tells_is_here() {
        let source = include_str!("../../engine/src/stats.rs");
        let fields =
            source.split_once("pub struct Stats {").unwrap().1.split_once("\n}").unwrap().0;
        let mut found = 0;
        for line in fields.lines().filter_map(|line| line.trim().strip_prefix("pub ")) {
            let name = line.split_once(':').unwrap().0;
            assert!(
                include_str!("stats.rs").contains(&format!("stats.{name}")),
                "{name} is missing"
            );
            found += 1;
        }
        assert!(found > 25, "{found} fields");
    }
}
