//! The five answers to `begin`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::api::claim::Claim;
use crate::api::orphan::Orphan;
use crate::backend::Backend;
use crate::backend::operation::Outcome;
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, Result};
use crate::semantics::command::Reply;
use crate::semantics::key::KeyHash;
use crate::semantics::record::{Completed, Record, State};
use crate::semantics::time::Time;
use crate::semantics::token::Token;

/// The answer of [`Engine::begin`](crate::Engine::begin).
#[derive(Debug)]
#[must_use = "a claim that is dropped becomes an orphan"]
pub enum Begin {
    /// The key is new, or its record expired: execute the operation, then complete the claim.
    Claimed(Claim),
    /// The operation was completed: send the recorded response, do not execute.
    Replay(Recorded),
    /// The operation is being executed right now. Try again later.
    Locked(InFlight),
    /// The key was used with a different request. Do not execute.
    Mismatch(Mismatch),
    /// An earlier attempt died, and its outcome is unknown. A person or a policy decides; the
    /// engine never executes an orphan by itself.
    Orphaned(Orphan),
}

impl Begin {
    /// The answer of a begin, made from its outcome.
    pub(crate) fn answer(
        backend: &Arc<dyn Backend>,
        hash: KeyHash,
        outcome: Outcome,
    ) -> Result<Self> {
        let (reply, record, now) = outcome?;
        let record = record.as_deref();
        let begin = match reply {
            Reply::Claimed => {
                record.and_then(|record| Claim::new(backend, hash, record)).map(Begin::Claimed)
            }
            Reply::Replay => match record.map(|record| &record.state) {
                Some(State::Completed(completed)) => Some(Begin::Replay(Recorded::new(completed))),
                _ => None,
            },
            Reply::Locked => record.map(|record| Begin::Locked(InFlight::new(record, now))),
            Reply::Mismatch(parts) => Some(Begin::Mismatch(Mismatch::new(parts))),
            Reply::Orphaned => record
                .and_then(|record| Orphan::new(backend, hash, record, now))
                .map(Begin::Orphaned),
            Reply::Done | Reply::Fenced | Reply::AlreadyCompleted => None,
        };
        begin.ok_or_else(|| Error::corrupted("a reply does not fit its record"))
    }

    /// Called when the answer reaches its caller.
    pub(crate) fn delivered(&mut self) {
        if let Self::Claimed(claim) = self {
            claim.delivered();
        }
    }
}

/// A completed operation.
#[derive(Clone, Debug)]
pub struct Recorded {
    response: Option<SharedBytes>,
    token: Token,
    completed_at: Time,
    expires_at: Time,
}

impl Recorded {
    pub(crate) fn new(completed: &Completed) -> Self {
        Self {
            response: completed.response.clone(),
            token: completed.token,
            completed_at: completed.completed_at,
            expires_at: completed.expires_at,
        }
    }

    /// The response as it was given to `complete`; `None` when it was not kept, because it was
    /// longer than [`max_response`](crate::Options::max_response) or completed without one.
    pub fn response(&self) -> Option<&[u8]> {
        self.response.as_deref()
    }

    /// The response without a copy.
    pub fn into_response(self) -> Option<SharedBytes> {
        self.response
    }

    /// The token of the claim that completed the operation.
    pub fn token(&self) -> Token {
        self.token
    }

    /// When the operation was completed, in engine time.
    pub fn completed_at(&self) -> SystemTime {
        self.completed_at.to_wall()
    }

    /// When the record expires and the key is new again, in engine time.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at.to_wall()
    }
}

/// An operation that another caller is executing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    running_for: Duration,
    attempt: u32,
}

impl InFlight {
    pub(crate) fn new(record: &Record, now: Time) -> Self {
        record.attempt().map_or(Self { running_for: Duration::ZERO, attempt: 0 }, |attempt| Self {
            running_for: now.since(attempt.started_at),
            attempt: attempt.number,
        })
    }

    /// How long the owner has been executing.
    pub fn running_for(&self) -> Duration {
        self.running_for
    }

    /// Which attempt is executing, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// A hint how long to wait before the next try: as long as the owner has been executing, within
    /// 100 to 500 ms.
    pub fn retry_after(&self) -> Duration {
        self.running_for.clamp(Duration::from_millis(100), Duration::from_millis(500))
    }
}

/// A key that was used before with a different request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    parts: Vec<String>,
}

impl Mismatch {
    pub(crate) fn new(parts: Vec<String>) -> Self {
        Self { parts }
    }

    /// The labels of the fingerprint parts that differ, never their values.
    pub fn parts(&self) -> &[String] {
        &self.parts
    }
}

/// The state of a key, as [`Engine::get`](crate::Engine::get) returns it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Lookup {
    /// The key has no record, or only an expired one.
    Absent,
    /// A caller is executing the operation.
    InFlight(InFlight),
    /// An attempt died, and its outcome is unknown.
    Orphaned(Orphan),
    /// The operation was completed.
    Completed(Recorded),
}

impl Lookup {
    /// The state at `now` of a record that is not an orphan.
    pub(crate) fn new(record: &Record, now: Time) -> Self {
        match &record.state {
            _ if record.is_expired(now) => Self::Absent,
            State::Completed(completed) => Self::Completed(Recorded::new(completed)),
            _ => Self::InFlight(InFlight::new(record, now)),
        }
    }
}
