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
    /// Completed records in the record files.
    pub folded_records: u64,
    /// Runs that index them.
    pub runs: u64,
    /// Bytes of the store file, of the record files and of the journal.
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

/// Fields that are called the same on both sides: none can be taken for another.
macro_rules! mirrored {
    ($stats:expr, { $($own:ident: $value:expr,)* }, [$($same:ident),* $(,)?]) => {
        Stats { $($own: $value,)* $($same: $stats.$same,)* }
    };
}

impl Stats {
    pub(crate) fn new(stats: &oncekey::Stats) -> Self {
        let full = u32::from(stats.full);
        let oldest_claim_ms = stats.oldest_claim.map_or(0, in_ms);
        mirrored!(stats, { size: 0, full: full, oldest_claim_ms: oldest_claim_ms, }, [
            in_flight, orphans, queued, waiters, recent_bytes, folded_records,
            runs, store_bytes, claimed, replayed, locked, mismatched,
            orphaned, completed, aborted, abandoned, taken_over, released,
            fenced, errors, groups, entries, folds, swept,
            failures,
        ])
    }
}

#[cfg(test)]
mod tests {
    /// The engine's struct is not exhaustive, so that the compiler does not tell of a new field.
    #[test]
    fn everything_that_the_engine_tells_is_here() {
        let fields = |source: &'static str| {
            let body = source.split_once("pub struct Stats {").unwrap().1;
            let lines = body.split_once("\n}").unwrap().0.lines();
            let fields = lines.filter_map(|line| line.trim().strip_prefix("pub "));
            fields.map(|line| line.split_once(':').unwrap().0).collect::<Vec<_>>()
        };
        let own = fields(include_str!("stats.rs"));
        let theirs = fields(include_str!("../../engine/src/backend/reports.rs"));
        assert!(theirs.len() > 25, "{theirs:?}");
        for name in &theirs {
            let in_ms = format!("{name}_ms");
            assert!(own.contains(name) || own.contains(&in_ms.as_str()), "{name} is missing");
        }
        assert_eq!(own.len(), theirs.len() + 1, "the size is the only field of its own");
    }
}
