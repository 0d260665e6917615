//! The trait [`Store`]: a shared place of rows that is changed by compare-and-swap.
//!
//! A store knows hashes, versions, times and bytes, and nothing of claims. It can do four things:
//! insert a row where none is, swap a row whose version is the expected one, free a row, and return
//! the present row. A group of such changes is one atomic step. `transition` decides the meaning of
//! a change before the change comes here.

use std::any::Any;
use std::fmt::{self, Debug};
use std::time::Duration;

use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};

pub use super::row::{Row, RowImage, RowState};

/// How many groups of a process may be under way at once.
pub const LANES: usize = 2;

/// The bits of a version below the generation.
pub const GENERATION_SHIFT: u32 = 44;

/// Times and spans are cut to this many milliseconds, so that sums of three stay within `i64`.
pub const MAX_MILLIS: u64 = i64::MAX as u64 / 4;

/// How long a freed row is kept at least, in milliseconds: longer than any statement lingers.
pub const TOMBSTONE_MS: u64 = 60_000;

/// Called once with the answer, on any thread.
pub type Done<T> = Box<dyn FnOnce(Result<T, Failure>) + Send>;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Nothing changed. It may be carried out when it is sent again.
    NotCarriedOut(Error),
    /// It may have been carried out, now or a little later. When it is sent again, the rows tell.
    Unknown(Error),
    /// Nothing changed, and it would fail again when it is sent again.
    Refused(Error),
}

impl Failure {
    /// The error behind the failure.
    pub fn error(&self) -> &Error {
        match self {
            Self::NotCarriedOut(error) | Self::Unknown(error) | Self::Refused(error) => error,
        }
    }
}

/// An error of a store.
pub fn error(
    kind: ErrorKind,
    context: impl Into<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    match source {
        Some(source) => Error::caused_by(kind, context, source),
        None => Error::new(kind, context),
    }
}

/// Bytes of a row.
pub fn bytes(bytes: &[u8]) -> SharedBytes {
    SharedBytes::copy_of(bytes)
}

/// The shared place of rows. All methods may be called from any thread.
pub trait Store: Debug + Send + Sync + 'static {
    /// Connects, checks the store and registers an instance; blocks.
    ///
    /// # Errors
    /// Those of an open: `StoreMissing`, `StoreNewerFormat`, `StoreUnreadable`, `Unavailable`.
    fn open(&self, new: &NewInstance) -> Result<Opened>;
    /// Registers another instance, after the one before has ended.
    fn register(&self, new: NewInstance, done: Done<Registered>);
    /// Carries out a group, while others may be under way on other lanes. The answer confirms a change only after the change is durable.
    fn group(&self, group: Group, done: Done<GroupAnswer>);
    /// The rows with these hashes.
    fn read(&self, instance: u64, hashes: Vec<u128>, done: Done<Rows>);
    /// Renews the lease of an instance, and ends those whose lease is over, as [`end`](Self::end) would.
    fn renew(&self, instance: u64, done: Done<Renewal>);
    /// Ends those of `others` whose lease is over, if `by` may declare that. Returns the ended
    /// ones.
    fn end(&self, by: u64, others: Vec<u64>, done: Done<Vec<u64>>);
    /// Brings the list of orphans up to date: it then has every claim of an ended instance and,
    /// with `overdue`, every claim that is held beyond its deadline. May take long.
    fn list(&self, by: u64, overdue: bool, done: Done<()>);
    /// The listed orphans by hash, after `after`, at most `most`.
    fn orphans(&self, instance: u64, after: Option<u128>, most: usize, done: Done<Rows>);
    /// Rows by hash from `from` on, at most `most`; fewer only when there are no more.
    fn scan(&self, instance: u64, from: u128, most: usize, done: Done<Rows>);
    /// Records by the time of their expiry, in the buckets of the store, the first to expire first. May take long.
    fn expiring(&self, done: Done<Vec<Expiring>>);
    /// Does one round of upkeep, unless another instance did one within `interval`. Counts in any
    /// case.
    fn upkeep(&self, by: u64, interval: Duration, done: Done<Upkeep>);
    /// Ends the instance and the connections; blocks.
    ///
    /// `Unavailable`: the instance ends when its lease is over.
    fn close(&self, instance: u64) -> Result<()>;
    /// The place of the store, for people. Contains no secret.
    fn location(&self) -> String;
    /// The store as its own type, for the crate that made it.
    fn as_any(&self) -> &dyn Any;
}

/// An instance that is to be registered.
#[derive(Clone, Debug)]
pub struct NewInstance {
    /// When it is not empty, the registration ends the living instance of the same name.
    pub name: String,
    /// How long it counts as living after each renewal.
    pub lease: Duration,
    /// The build, for people.
    pub build: String,
}

/// A store that was opened.
#[derive(Clone)]
pub struct Opened {
    /// The new instance.
    pub registered: Registered,
    /// The secret of the store.
    pub secret: [u8; 64],
    /// The incarnation of all its tokens.
    pub incarnation: u64,
}

/// Without the secret.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registered, secret: _, incarnation } = self;
        f.debug_struct("Opened")
            .field("registered", registered)
            .field("incarnation", incarnation)
            .finish_non_exhaustive()
    }
}

/// An instance that was registered.
#[derive(Clone, Copy, Debug)]
pub struct Registered {
    /// Its number, never used again.
    pub instance: u64,
    /// The end of its lease.
    pub lease_until: u64,
    /// The store's time.
    pub now: u64,
}

/// The result of a renewal.
#[derive(Clone, Copy, Debug)]
pub enum Renewal {
    /// The lease runs until then.
    Renewed {
        /// The end of the lease.
        lease_until: u64,
        /// The store's time.
        now: u64,
    },
    /// The instance was ended.
    Ended {
        /// The store's time.
        now: u64,
    },
}

/// Changes that are carried out in one atomic step, at most one of each row.
#[derive(Clone, Debug)]
pub struct Group {
    /// Where it is under way, below [`LANES`].
    pub lane: usize,
    /// The instance that sends it and owns the claims that it grants.
    pub instance: u64,
    /// Counts the groups of the instance, from 1.
    pub number: u64,
    /// From this store time on the group changes nothing.
    pub valid_until: u64,
    /// Whether the answer waits until the group is durable.
    pub durable: bool,
    /// The changes.
    pub images: Vec<RowImage>,
}

/// Rows, and the store's time when they were read.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Only the rows that exist.
    pub rows: Vec<Row>,
    /// The store's time.
    pub now: u64,
    /// The generation that the store is in.
    pub generation: u64,
}

/// A change that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The hash of the row.
    pub hash: u128,
    /// The version that the row has since.
    pub version: u64,
    /// The store's time at which it was carried out, to which the spans of its image were added.
    pub at: u64,
}

/// The outcome of a group. A change that is neither applied nor has a row met a row that it could
/// not see yet, or none. Its row must be read; the key must not be taken as absent.
#[derive(Clone, Debug, Default)]
pub struct GroupAnswer {
    /// The changes that were carried out.
    pub applied: Vec<Applied>,
    /// The rows of the other changes, as of the beginning of the group or later.
    pub found: Rows,
    /// The instance has ended, so claims were not granted. Known when the rows were read.
    pub ended: bool,
}

/// Entries that expire in one bucket of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// The end of the bucket.
    pub end: u64,
    /// How many entries there are.
    pub records: u64,
    /// The bytes of their responses.
    pub bytes: u64,
}

/// The result of a round of upkeep.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upkeep {
    /// Whether it was this instance's turn.
    pub elected: bool,
    /// How many instances it ended.
    pub ended: u64,
    /// How many rows it removed.
    pub removed: u64,
    /// How many orphans are listed.
    pub orphans: u64,
    /// The size of the store, in bytes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opened_store_is_printed_without_its_secret() {
        let registered = Registered { instance: 1, lease_until: 2, now: 3 };
        let opened = Opened { registered, secret: [77; 64], incarnation: 4 };
        let printed = format!("{opened:?}");
        assert!(printed.contains("incarnation: 4") && !printed.contains("77"), "{printed}");
    }
}
