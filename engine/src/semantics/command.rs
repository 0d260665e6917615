//! The command of a caller on a key, the change of its record, and the reply.

use std::time::Duration;

use crate::base::bytes::SharedBytes;
use crate::semantics::fingerprint::{KeyedFingerprint, StoredFingerprint};
use crate::semantics::key::Key;
use crate::semantics::time::Time;
use crate::semantics::token::Token;

/// A command of a caller on a key.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Begin { fingerprint: KeyedFingerprint, ttl: Duration, max_execution: Option<Duration> },
    Complete { token: Token, response: Option<SharedBytes>, ttl: Option<Duration> },
    Abort { token: Token },
    Checkpoint { token: Token, data: SharedBytes },
    OwnerGone { token: Token },
    TakeOver { token: Token, max_execution: Option<Duration> },
    Release { token: Token },
}

impl Command {
    /// Whether the command asks for a claim, so that it may be refused by a bound.
    pub(crate) fn starts_execution(&self) -> bool {
        matches!(self, Self::Begin { .. } | Self::TakeOver { .. })
    }

    /// Whether the command ends the claim that it comes from.
    pub(crate) fn ends_claim(&self) -> bool {
        matches!(self, Self::Complete { .. } | Self::Abort { .. } | Self::OwnerGone { .. })
    }
}

/// A durable step of one record. The journal holds changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Absent or expired → in flight, attempt 1.
    Claim { key: Key, fingerprint: StoredFingerprint, ttl: Duration, deadline: Option<Time> },
    /// Orphan, or in flight past its deadline → in flight, attempt + 1, checkpoint kept.
    TakeOver { deadline: Option<Time> },
    /// In flight or orphan → completed.
    Complete { response: Option<SharedBytes>, expires_at: Time },
    /// In flight → in flight with another checkpoint.
    Checkpoint { data: SharedBytes },
    /// In flight or orphan → orphan, checkpoint kept.
    Orphan { since: Time },
    /// In flight or orphan → absent.
    Remove,
}

/// The answer to a command. Details (response, token, checkpoint) are in the record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Claimed,
    Replay,
    Locked,
    Mismatch(Vec<String>),
    Orphaned,
    Done,
    Fenced,
    AlreadyCompleted,
}
