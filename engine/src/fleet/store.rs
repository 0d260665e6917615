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

/// A row as a change leaves it. The store fills in the version and the times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowImage {
    /// The hash of the row.
    pub hash: u128,
    /// The version that the row must have. 0: there must be no row.
    pub expected: u64,
    /// The instance that sent the change first. Together with `op` it names the change for ever.
    pub writer: u64,
    /// The number of the change, never used again by its process.
    pub op: u64,
    /// The state that it leaves.
    pub state: RowState,
    /// The attempt that it leaves, from 1.
    pub attempt: u32,
    /// Whether it grants a claim: token, owner, start and deadline are set.
    pub grants: bool,
    /// Whether the row counted as an orphan before.
    pub resolves: bool,
    /// The TTL of the record.
    pub ttl: u64,
    /// From the store's time to the deadline of the claim.
    pub deadline_in: Option<u64>,
    /// The latest date of an orphan. The store's time counts if it is earlier.
    pub since: Option<u64>,
    /// The span from the end to the expiry. `None` in flight.
    pub expires_in: Option<u64>,
    /// The whole key. Swaps do not change it.
    pub identity: SharedBytes,
    /// `None`: unchanged.
    pub fingerprint: Option<SharedBytes>,
    /// `None`: unchanged, where the state keeps one.
    pub checkpoint: Option<SharedBytes>,
    /// The response, only when completed.
    pub body: Option<SharedBytes>,
}

/// The state of a key in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RowState {
    /// Absent; the row keeps older inserts and older versions away.
    Free = 0,
    /// Claimed.
    InFlight = 1,
    /// Given up by its owner.
    Orphan = 2,
    /// Completed, with its response.
    Completed = 3,
    /// Completed, and the response was not kept.
    WithoutResponse = 4,
}

impl RowState {
    /// The state with this number.
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Free, Self::InFlight, Self::Orphan, Self::Completed, Self::WithoutResponse]
            .into_iter()
            .find(|state| *state as i64 == number)
    }
}

/// A row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Row {
    pub hash: u128,
    /// The version of its last change.
    pub version: u64,
    /// The version that granted its claim.
    pub token: u64,
    /// The instance that holds its claim.
    pub owner: u64,
    pub writer: u64,
    pub op: u64,
    pub state: RowState,
    pub attempt: u32,
    pub started_at: u64,
    pub ttl: u64,
    pub deadline: Option<u64>,
    /// Orphan since, or completed at.
    pub since: Option<u64>,
    pub expires_at: Option<u64>,
    pub identity: SharedBytes,
    pub fingerprint: SharedBytes,
    pub checkpoint: Option<SharedBytes>,
    /// The response of a completed row; `None` when its place holds nothing.
    pub body: Option<SharedBytes>,
    /// When the owner of a row in flight ended: not after now, and not before the claim started.
    pub owner_ended: Option<u64>,
    /// In flight: the lease of the owner is over, but no process declared its end.
    pub owner_lapsed: bool,
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

impl Row {
    /// Since when a claim in flight counts as an orphan: its owner ended, or it is held beyond its deadline.
    pub fn overdue_at(&self) -> Option<u64> {
        let ends = [self.deadline, self.owner_ended].into_iter().flatten();
        ends.min().filter(|_| self.state == RowState::InFlight)
    }

    /// Whether the row counts as absent at that time: only a new claim may change it.
    pub fn has_expired(&self, now: u64) -> bool {
        let expires_at = match self.state {
            RowState::InFlight => self.overdue_at().map(|since| since.saturating_add(self.ttl)),
            _ => self.expires_at,
        };
        expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

impl RowImage {
    /// The row that the change leaves. The statement of a store must make the same row: a property
    /// test compares them.
    pub fn filled(&self, before: Option<&Row>, instance: u64, version: u64, now: u64) -> Row {
        let at = match self.state {
            RowState::InFlight => None,
            // Since its owner ended, if that was earlier.
            RowState::Orphan => [self.since, before.and_then(|row| row.owner_ended), Some(now)]
                .into_iter()
                .flatten()
                .min(),
            _ => Some(now),
        };
        let first = self.grants && self.attempt == 1;
        let keeps = matches!(self.state, RowState::InFlight | RowState::Orphan) && !first;
        let kept = before.and_then(|row| row.checkpoint.clone());
        Row {
            hash: self.hash,
            version,
            token: if self.grants { version } else { before.map_or(0, |row| row.token) },
            owner: if self.grants { instance } else { before.map_or(0, |row| row.owner) },
            writer: self.writer,
            op: self.op,
            state: self.state,
            attempt: self.attempt,
            started_at: if self.grants { now } else { before.map_or(0, |row| row.started_at) },
            ttl: self.ttl,
            deadline: match self.grants {
                true => self.deadline_in.map(|span| now + span),
                false => before.and_then(|row| row.deadline),
            },
            since: at,
            expires_at: at.and_then(|at| self.expires_in.map(|span| at + span)),
            identity: before.map_or(&self.identity, |row| &row.identity).clone(),
            fingerprint: match (&self.fingerprint, before) {
                (Some(fingerprint), _) => fingerprint.clone(),
                (None, Some(row)) => row.fingerprint.clone(),
                (None, None) => SharedBytes::copy_of(&[]),
            },
            checkpoint: if keeps { self.checkpoint.clone().or(kept) } else { None },
            body: self.body.clone(),
            owner_ended: None,
            owner_lapsed: false,
        }
    }
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
