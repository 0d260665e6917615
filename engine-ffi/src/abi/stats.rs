//! The statistics of an engine, as C sees them.

use crate::abi::plain::plain;
use crate::abi::time::in_ms;

plain!(Stats);

/// Counters and gauges of an engine. Set `size` before the call. Counters start at 0 when the engine is
/// opened or reopened.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// sizeof(oncekey_stats) of the caller.
    pub size: u32,
    /// 1 while new claims are refused because space, descriptors or a new file cannot be had; else 0.
    pub full: u32,
    /// Claims whose owner lives.
    pub in_flight: u64,
    /// How long the oldest claim in flight has been held, in milliseconds.
    pub oldest_claim_ms: u64,
    /// Unresolved orphans. The number is approximate.
    pub orphans: u64,
    /// Begins that wait for the disk.
    pub queued: u64,
    /// Begins that wait for an owner or for another begin of their key.
    pub waiters: u64,
    /// Memory of records that are not folded yet, in bytes.
    pub recent_bytes: u64,
    /// Completed records in the record files.
    pub folded_records: u64,
    /// Runs that index the record files.
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
    /// Claims whose owner ended without completing or aborting them.
    pub abandoned: u64,
    /// Orphans taken over.
    pub taken_over: u64,
    /// Orphans released.
    pub released: u64,
    /// Late calls that were refused because of their token.
    pub fenced: u64,
    /// Calls that failed or were refused.
    pub errors: u64,
    /// Groups made durable, each with one sync.
    pub groups: u64,
    /// Changes in these groups.
    pub entries: u64,
    /// Folds committed.
    pub folds: u64,
    /// Rows removed by the sweeper.
    pub swept: u64,
    /// Failures after which the engine refused writes.
    pub failures: u64,
    /// Bytes of claims in flight and of orphans, checkpoints included.
    pub open_bytes: u64,
    /// Backups that are being written.
    pub backups: u64,
    /// The bytes that these backups will have copied at their end.
    pub backup_bytes: u64,
    /// The bytes that they have copied so far.
    pub backup_bytes_copied: u64,
}

/// Fills `Stats` from the engine's statistics, and lists the names that it uses. A field with the same name
/// on both sides is written once, so that no two fields can be exchanged by mistake.
macro_rules! mirrored {
    ($stats:ident: { $($theirs:ident => $own:ident: $value:expr,)* } $($same:ident),* $(,)?) => {
        impl Stats {
            #[cfg(test)]
            const MIRRORED: &[&str] = &[$(stringify!($theirs),)* $(stringify!($same),)*];

            pub(crate) fn new($stats: &oncekey::Stats) -> Self {
                Self { size: 0, $($own: $value,)* $($same: $stats.$same,)* }
            }
        }
    };
}

mirrored! {
    stats: {
        full => full: u32::from(stats.full),
        oldest_claim => oldest_claim_ms: stats.oldest_claim.map_or(0, in_ms),
    }
    in_flight, orphans, queued, waiters, recent_bytes, folded_records, runs, store_bytes, claimed,
    replayed, locked, mismatched, orphaned, completed, aborted, abandoned, taken_over, released,
    fenced, errors, groups, entries, folds, swept, failures, open_bytes, backups, backup_bytes,
    backup_bytes_copied,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The engine's struct is non-exhaustive, so the compiler does not report a new field.
    #[test]
    fn everything_that_the_engine_tells_is_here() {
        let theirs = oncekey::Stats::default().fields();
        let mut theirs: Vec<_> = theirs.iter().map(|(name, _)| *name).collect();
        let mut ours = Stats::MIRRORED.to_vec();
        theirs.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, theirs);
    }
}
