//! Rows of a shared store, and the images of their changes.

use crate::base::bytes::SharedBytes;

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
