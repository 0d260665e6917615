//! What a backend says of itself: plain data, which knows no backend.

use std::fmt;
use std::time::Duration;

use crate::base::error::Error;
use crate::semantics::key::Key;

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
    /// Bytes of claims in flight and of orphans, checkpoints included. Records that changed since the
    /// last fold are counted twice.
    pub open_bytes: u64,
    /// Completed records in the record files, expired ones that were not swept yet included.
    pub folded_records: u64,
    /// Runs that index them.
    pub runs: u64,
    /// Bytes of the store file, of the files that it lists and of the journal, as of the last fold or sweep.
    pub store_bytes: u64,
    /// Backups that are being written.
    pub backups: u64,
    /// What they will have copied in the end, in bytes.
    pub backup_bytes: u64,
    /// What they have copied so far, in bytes.
    pub backup_bytes_copied: u64,
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

/// What [`Engine::close`](crate::Engine::close) left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Claims that were still held: orphans at the next open.
    pub in_flight: u64,
    /// The last journal sequence that is in the store file. The next open has nothing to replay.
    pub folded_through: u64,
}

/// What [`verify`](crate::verify) found.
#[derive(Clone, Debug, Default)]
#[must_use = "a damaged store is not an error of `verify`"]
pub struct Verification {
    pub(crate) records: u64,
    damage: Vec<Damage>,
}

impl Verification {
    /// The records in the store file that hold their checksums: completed ones, older lives of a
    /// key included, orphans and those in flight.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Every damage, in no particular order; empty when the store is sound.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Whether there is no damage.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    pub(crate) fn damaged(&mut self, key: Option<Key>, error: &Error) {
        self.damage.push(Damage { key, error: error.clone() });
    }
}

/// One place of a store that is not what was written there.
#[derive(Clone, Debug)]
pub struct Damage {
    key: Option<Key>,
    error: Error,
}

impl Damage {
    /// The key of the damaged record; `None` when it can not be told any more, or when something
    /// else than a record is damaged: an index, or a page of the file.
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// What is wrong.
    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{key:?}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}
