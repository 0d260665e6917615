//! The record of one key.

use std::sync::Arc;
use std::time::Duration;

use crate::base::bytes::SharedBytes;
use crate::semantics::fingerprint::StoredFingerprint;
use crate::semantics::key::Key;
use crate::semantics::time::Time;
use crate::semantics::token::Token;

/// The record of one key. No record at all is the state *absent*.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) key: Key,
    pub(crate) fingerprint: StoredFingerprint,
    pub(crate) state: State,
}

/// The state of a record. [`transition`](super::transition) says what each command makes of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    InFlight(Attempt),
    Orphan { attempt: Attempt, since: Time },
    Completed(Completed),
}

/// One attempt to execute an operation: what a claim stands for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attempt {
    /// The token of the claim, the newest of its key.
    pub(crate) token: Token,
    /// 1 for the first, one more for each take-over.
    pub(crate) number: u32,
    pub(crate) started_at: Time,
    /// When the claim becomes an orphan although its owner lives (`max_execution`).
    pub(crate) deadline: Option<Time>,
    /// The TTL of a response completed without its own, and of an orphan.
    pub(crate) ttl: Duration,
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// The last recovery point that an attempt saved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Checkpoint {
    /// The bytes, in memory. A fold may have stored them since.
    Here(SharedBytes),
    /// In the store file, which is read when a caller asks for the checkpoint.
    Stored(StoredCheckpoint),
}

/// Length and checksum of the bytes that the store file holds as the checkpoint of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredCheckpoint {
    pub(crate) len: u32,
    pub(crate) checksum: u64,
}

impl Checkpoint {
    /// The number of its bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Here(data) => data.len(),
            Self::Stored(stored) => stored.len as usize,
        }
    }

    /// The number of its bytes in memory.
    fn held(&self) -> usize {
        match self {
            Self::Here(data) => data.len(),
            Self::Stored(_) => 0,
        }
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Completed {
    pub(crate) token: Token,
    pub(crate) completed_at: Time,
    pub(crate) expires_at: Time,
    /// `None`: completed, but the response was not kept.
    pub(crate) response: Option<SharedBytes>,
}

/// The newest state of a key, with the journal sequence of the change that made it.
#[derive(Clone, Debug)]
pub(crate) struct Versioned {
    pub(crate) sequence: u64,
    /// `None`: the key is absent, even where an older layer of the store still has a record.
    pub(crate) record: Option<Arc<Record>>,
}

/// The state of a record at one moment, with its TTL and deadline applied.
pub(super) enum Effective<'a> {
    Absent,
    InFlight(&'a Attempt),
    Orphan(&'a Attempt),
    Completed(&'a Completed),
}

impl Record {
    pub(super) fn effective(&self, now: Time) -> Effective<'_> {
        match &self.state {
            State::Completed(completed) if now < completed.expires_at => {
                Effective::Completed(completed)
            }
            State::Completed(_) => Effective::Absent,
            State::InFlight(attempt) => match attempt.deadline {
                Some(deadline) if now >= deadline => orphan_until_expired(attempt, deadline, now),
                _ => Effective::InFlight(attempt),
            },
            State::Orphan { attempt, since } => orphan_until_expired(attempt, *since, now),
        }
    }

    /// The moment since which the record is an orphan, if it is one at `now`.
    pub(crate) fn orphaned_since(&self, now: Time) -> Option<Time> {
        match (self.effective(now), &self.state) {
            (Effective::Orphan(_), State::Orphan { since, .. }) => Some(*since),
            (Effective::Orphan(attempt), _) => attempt.deadline,
            _ => None,
        }
    }

    /// Whether the record counts as absent at `now`.
    pub(crate) fn is_expired(&self, now: Time) -> bool {
        matches!(self.effective(now), Effective::Absent)
    }

    /// Whether a claim on the record is held, past its deadline or not.
    pub(crate) fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight(_))
    }

    /// Whether it is an orphan. One in flight past its deadline is none as yet.
    pub(crate) fn is_orphan(&self) -> bool {
        matches!(self.state, State::Orphan { .. })
    }

    /// The attempt of a record that is in flight or an orphan.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        match &self.state {
            State::InFlight(attempt) | State::Orphan { attempt, .. } => Some(attempt),
            State::Completed(_) => None,
        }
    }

    /// The same record with its checkpoint in the store file. `None` when no checkpoint is in
    /// memory.
    pub(crate) fn without_checkpoint_bytes(
        &self,
        stored: impl FnOnce(&Checkpoint) -> StoredCheckpoint,
    ) -> Option<Self> {
        let mut attempt = self.attempt()?.clone();
        let here = attempt.checkpoint.filter(|saved| matches!(saved, Checkpoint::Here(_)))?;
        attempt.checkpoint = Some(Checkpoint::Stored(stored(&here)));
        let state = match &self.state {
            State::InFlight(_) => State::InFlight(attempt),
            State::Orphan { since, .. } => State::Orphan { attempt, since: *since },
            State::Completed(_) => return None,
        };
        Some(Self { key: self.key.clone(), fingerprint: self.fingerprint.clone(), state })
    }

    /// When a live claim becomes an orphan.
    pub(crate) fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::InFlight(attempt) => attempt.deadline,
            _ => None,
        }
    }

    /// When the record expires and the key is new again; `None` while it is in flight, since a live
    /// claim never expires.
    pub(crate) fn expires_at(&self) -> Option<Time> {
        match &self.state {
            State::InFlight(_) => None,
            State::Orphan { attempt, since } => Some(since.after(attempt.ttl)),
            State::Completed(completed) => Some(completed.expires_at),
        }
    }

    /// About as many bytes as the record takes in memory. A checkpoint in the store file does not
    /// count.
    pub(crate) fn weight(&self) -> usize {
        let payload = match &self.state {
            State::Completed(completed) => completed.response.as_ref().map_or(0, |r| r.len()),
            State::InFlight(attempt) | State::Orphan { attempt, .. } => {
                attempt.checkpoint.as_ref().map_or(0, Checkpoint::held)
            }
        };
        size_of::<Self>() + self.key.identity().len() + self.fingerprint.bytes().len() + payload
    }
}

fn orphan_until_expired(attempt: &Attempt, since: Time, now: Time) -> Effective<'_> {
    if now < since.after(attempt.ttl) { Effective::Orphan(attempt) } else { Effective::Absent }
}
