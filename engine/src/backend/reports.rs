//! The reports of a backend: plain data, which depends on no backend.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::base::error::Error;
use crate::semantics::key::Key;

/// A statistic, as [`Stats::fields`] lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// How many there are now.
    Gauge(u64),
    /// How long it has lasted, if at all.
    Age(Option<Duration>),
    /// Whether it is so now.
    State(bool),
    /// How many there were since the engine was opened or reopened.
    Counter(u64),
}

/// Generates `Stats` and its list of fields from one list.
macro_rules! statistics {
    ($($(#[$meaning:meta])* $name:ident: $type:ty as $kind:ident,)*) => {
        /// A snapshot of the engine, as [`Engine::stats`](crate::Engine::stats) takes it. Counters
        /// count since the engine was opened or reopened.
        ///
        /// Over a store that other processes share, `orphans`, `store_bytes` and `full` are of the
        /// whole store, as of the last upkeep. Everything else is of this process, and the figures
        /// that only an embedded store has (recent and open bytes, folded records, runs, folds,
        /// backups, the oldest claim) are zero.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$meaning])* pub $name: $type,)*
        }

        impl Stats {
            /// Every statistic with the name of its field, for programs that report all of them.
            ///
            /// ```
            /// use oncekey::{Statistic, Stats};
            /// let fields = Stats::default().fields();
            /// assert!(fields.contains(&("in_flight", Statistic::Gauge(0))));
            /// ```
            pub fn fields(&self) -> Vec<(&'static str, Statistic)> {
                vec![$((stringify!($name), Statistic::$kind(self.$name)),)*]
            }
        }
    };
}

statistics! {
    /// Claims whose owner lives.
    in_flight: u64 as Gauge,
    /// How long the oldest of these claims has been held.
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds::optional"))]
    oldest_claim: Option<Duration> as Age,
    /// Orphans that are not resolved yet. One that has expired is counted until the next fold.
    orphans: u64 as Gauge,
    /// Begins that wait for the disk.
    queued: u64 as Gauge,
    /// Begins that wait for an owner or for another begin of their key.
    waiters: u64 as Gauge,
    /// Memory of records that are journalled but not yet folded, in bytes.
    recent_bytes: u64 as Gauge,
    /// Bytes of claims in flight and of orphans, checkpoints included. Records that changed since the
    /// last fold are counted twice.
    open_bytes: u64 as Gauge,
    /// Completed records in the record files, expired ones that were not swept yet included.
    folded_records: u64 as Gauge,
    /// Runs that index these records.
    runs: u64 as Gauge,
    /// Bytes of the store file, of the files that it lists and of the journal, as of the last fold or sweep.
    store_bytes: u64 as Gauge,
    /// Backups that are being written.
    backups: u64 as Gauge,
    /// About the bytes that these backups verify and copy in all.
    backup_bytes: u64 as Gauge,
    /// The bytes that these backups have verified and copied so far.
    backup_bytes_copied: u64 as Gauge,
    /// Whether new claims are refused for lack of space (`StoreFull`) or of descriptors
    /// (`Overloaded`), or because a file could not be made (`Io`, `StoreUnreadable`).
    full: bool as State,
    /// Begins answered `Claimed`.
    claimed: u64 as Counter,
    /// Begins answered `Replay`.
    replayed: u64 as Counter,
    /// Begins answered `Locked`.
    locked: u64 as Counter,
    /// Begins answered `Mismatch`.
    mismatched: u64 as Counter,
    /// Begins answered `Orphaned`.
    orphaned: u64 as Counter,
    /// Operations completed.
    completed: u64 as Counter,
    /// Claims aborted.
    aborted: u64 as Counter,
    /// Claims dropped without an end.
    abandoned: u64 as Counter,
    /// Orphans taken over.
    taken_over: u64 as Counter,
    /// Orphans released.
    released: u64 as Counter,
    /// Late calls refused by their token.
    fenced: u64 as Counter,
    /// Calls that failed or were refused.
    errors: u64 as Counter,
    /// Groups made durable, each with one sync.
    groups: u64 as Counter,
    /// Changes in these groups.
    entries: u64 as Counter,
    /// Folds committed.
    folds: u64 as Counter,
    /// Rows removed by the sweeper.
    swept: u64 as Counter,
    /// Failures that latched the engine.
    failures: u64 as Counter,
}

/// The state that [`Engine::close`](crate::Engine::close) left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CloseReport {
    /// Claims that were still held: orphans at the next open.
    pub in_flight: u64,
    /// The last journal sequence that is in the store file. The next open has nothing to replay.
    pub folded_through: u64,
}

/// Completed records that expire at about the same time, as [`Engine::buckets`](crate::Engine::buckets)
/// lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bucket {
    /// All of them are expired from then on, in engine time, and their space is given back.
    pub end: SystemTime,
    /// The number of records, earlier ones of a key included; in a fleet also orphans and freed
    /// keys.
    pub records: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

impl Bucket {
    pub(crate) fn new(end: SystemTime, records: u64, bytes: u64) -> Self {
        Self { end, records, bytes }
    }
}

/// The findings of [`verify`](crate::verify).
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[must_use = "a damaged store is not an error of `verify`"]
pub struct Verification {
    pub(crate) records: u64,
    damage: Vec<Damage>,
}

impl Verification {
    /// The number of records in the store with a correct checksum: completed ones, earlier ones of
    /// a key included, orphans and those in flight.
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

/// One damaged place of a store.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Damage {
    key: Option<Key>,
    error: Error,
}

impl Damage {
    /// The key of the damaged record. `None` when the key is lost, too, or when the damage is not
    /// in a record but in an index or in a page of the file.
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// The fault.
    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            // An operator who looks for the damage needs the key itself, made one line of ASCII.
            Some(key) => {
                let (scope, name) = (key.scope().escape_ascii(), key.key().escape_ascii());
                write!(f, "{scope}/{name}: {}", self.error)
            }
            None => self.error.fmt(f),
        }
    }
}
