//! What `begin` and `get` found, and what a claim or orphan is about.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oncekey::{Begin, InFlight, Lookup, Mismatch, Recorded};

use crate::buffer::Bytes;
use crate::claim::CLAIMS;
use crate::error::Failure;
use crate::orphan::ORPHANS;
use crate::types::{Buffer, Claim, Orphan, Slice, Token};

/// The store holds nothing under the key, or only what has expired. Only oncekey_engine_get says so.
pub const ONCEKEY_ABSENT: i32 = 200;
/// The key is new, or its record expired: execute the operation, then complete the claim.
pub const ONCEKEY_CLAIMED: i32 = 201;
/// The operation was completed: give the recorded response, do not execute.
pub const ONCEKEY_REPLAY: i32 = 202;
/// The operation is being executed right now. Try again later.
pub const ONCEKEY_LOCKED: i32 = 203;
/// The key was used with a different request. Do not execute.
pub const ONCEKEY_MISMATCH: i32 = 204;
/// An earlier attempt died without saying how it ended. The engine never executes it again by itself.
pub const ONCEKEY_ORPHANED: i32 = 205;

/// What was found under a key. Fields that do not belong to the outcome are 0. The caller frees
/// `data`, and `claim` or `orphan` where it is not 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// ONCEKEY_CLAIMED and the others.
    pub outcome: i32,
    /// CLAIMED, LOCKED, ORPHANED: which attempt this is, from 1.
    pub attempt: u32,
    /// CLAIMED: the claim.
    pub claim: Claim,
    /// ORPHANED: the orphan.
    pub orphan: Orphan,
    /// CLAIMED, ORPHANED, REPLAY: the token of the attempt.
    pub token: Token,
    /// Whether there is a response or checkpoint, perhaps an empty one, in `data`.
    pub has_data: u32,
    /// Always 0.
    pub reserved: u32,
    /// REPLAY: the response. CLAIMED, ORPHANED: the last checkpoint. MISMATCH: the labels of the
    /// parts that differ, each followed by a NUL.
    pub data: Buffer,
    /// REPLAY: when the operation was completed; ORPHANED: since when it is an orphan. Milliseconds
    /// since 1970, in engine time.
    pub since_ms: u64,
    /// REPLAY: from when on the key is new again. Milliseconds since 1970.
    pub expires_ms: u64,
    /// LOCKED: how long the owner has been executing.
    pub running_ms: u64,
    /// LOCKED: a hint when to try again, 100 to 500.
    pub retry_after_ms: u64,
}

/// What a claim or orphan is about. The caller frees `data`, which holds the bytes of the slices.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// Whether any attempt before saved a checkpoint.
    pub has_checkpoint: u32,
    /// The fencing token.
    pub token: Token,
    /// Orphans: since when. Milliseconds since 1970, in engine time.
    pub since_ms: u64,
    /// Orphans: how old it was when the handle was made, in milliseconds.
    pub age_ms: u64,
    /// Who the key belongs to.
    pub scope: Slice,
    /// The key.
    pub key: Slice,
    /// The last checkpoint.
    pub checkpoint: Slice,
    /// Holds the bytes of the three slices.
    pub data: Buffer,
}

impl Token {
    pub(crate) const NONE: Self = Self { bytes: [0; 24] };

    pub(crate) fn new(token: oncekey::Token) -> Self {
        Self { bytes: token.to_bytes() }
    }
}

impl Answer {
    pub(crate) const NONE: Self = Self {
        outcome: 0,
        attempt: 0,
        claim: Claim { id: 0 },
        orphan: Orphan { id: 0 },
        token: Token::NONE,
        has_data: 0,
        reserved: 0,
        data: Buffer::EMPTY,
        since_ms: 0,
        expires_ms: 0,
        running_ms: 0,
        retry_after_ms: 0,
    };

    pub(crate) fn from_begin(begin: Begin) -> Result<Self, Failure> {
        match begin {
            Begin::Claimed(claim) => Self::claimed(claim),
            Begin::Replay(recorded) => Self::replay(recorded),
            Begin::Locked(in_flight) => Ok(Self::locked(&in_flight)),
            Begin::Mismatch(mismatch) => Self::mismatch(&mismatch),
            Begin::Orphaned(orphan) => Self::orphaned(orphan),
        }
    }

    pub(crate) fn from_lookup(lookup: Lookup) -> Result<Self, Failure> {
        match lookup {
            Lookup::InFlight(in_flight) => Ok(Self::locked(&in_flight)),
            Lookup::Orphaned(orphan) => Self::orphaned(orphan),
            Lookup::Completed(recorded) => Self::replay(recorded),
            _ => Ok(Self { outcome: ONCEKEY_ABSENT, ..Self::NONE }),
        }
    }

    /// A claim that gets no handle, for lack of them, is aborted: its caller never had it.
    pub(crate) fn claimed(claim: oncekey::Claim) -> Result<Self, Failure> {
        let abort = |claim: oncekey::Claim| drop(claim.abort());
        let (attempt, token) = (claim.attempt(), Token::new(claim.token()));
        let (data, has_data) = match checkpoint(claim.last_checkpoint()) {
            Ok(data) => data,
            Err(failure) => {
                abort(claim);
                return Err(failure);
            }
        };
        let id = CLAIMS.insert(claim).map_err(|claim| {
            abort(claim);
            Failure::too_many()
        })?;
        let claim = Claim { id };
        let outcome = ONCEKEY_CLAIMED;
        Ok(Self { outcome, attempt, claim, token, data, has_data, ..Self::NONE })
    }

    fn orphaned(orphan: oncekey::Orphan) -> Result<Self, Failure> {
        let (data, has_data) = checkpoint(orphan.last_checkpoint())?;
        Ok(Self {
            outcome: ONCEKEY_ORPHANED,
            attempt: orphan.attempt(),
            token: Token::new(orphan.token()),
            data,
            has_data,
            since_ms: unix_ms(orphan.since()),
            orphan: Orphan { id: ORPHANS.insert(orphan).map_err(|_| Failure::too_many())? },
            ..Self::NONE
        })
    }

    fn replay(recorded: Recorded) -> Result<Self, Failure> {
        let mut answer = Self {
            outcome: ONCEKEY_REPLAY,
            token: Token::new(recorded.token()),
            since_ms: unix_ms(recorded.completed_at()),
            expires_ms: unix_ms(recorded.expires_at()),
            ..Self::NONE
        };
        if let Some(response) = recorded.into_response() {
            answer.has_data = 1;
            answer.data = Buffer::new(Bytes::Shared(response))?;
        }
        Ok(answer)
    }

    fn locked(in_flight: &InFlight) -> Self {
        Self {
            outcome: ONCEKEY_LOCKED,
            attempt: in_flight.attempt(),
            running_ms: in_ms(in_flight.running_for()),
            retry_after_ms: in_ms(in_flight.retry_after()),
            ..Self::NONE
        }
    }

    fn mismatch(mismatch: &Mismatch) -> Result<Self, Failure> {
        let labels: Vec<u8> =
            mismatch.parts().iter().flat_map(|part| part.bytes().chain([0])).collect();
        let data = Buffer::new(Bytes::Owned(labels.into()))?;
        Ok(Self { outcome: ONCEKEY_MISMATCH, has_data: 1, data, ..Self::NONE })
    }
}

fn checkpoint(checkpoint: Option<&[u8]>) -> Result<(Buffer, u32), Failure> {
    match checkpoint {
        Some(bytes) => Ok((Buffer::new(Bytes::Owned(bytes.into()))?, 1)),
        None => Ok((Buffer::EMPTY, 0)),
    }
}

impl Info {
    pub(crate) fn new(
        key: &oncekey::Key,
        checkpoint: Option<&[u8]>,
        token: oncekey::Token,
        attempt: u32,
    ) -> Result<Self, Failure> {
        let saved = checkpoint.unwrap_or_default();
        let bytes = [key.scope(), key.key(), saved].concat();
        let data = Buffer::new(Bytes::Owned(bytes.into()))?;
        let mut at = data.ptr;
        let mut next = |len: usize| {
            let slice = Slice { ptr: if len == 0 { std::ptr::null() } else { at }, len };
            at = at.wrapping_add(len);
            slice
        };
        Ok(Self {
            attempt,
            has_checkpoint: u32::from(checkpoint.is_some()),
            token: Token::new(token),
            since_ms: 0,
            age_ms: 0,
            scope: next(key.scope().len()),
            key: next(key.key().len()),
            checkpoint: next(saved.len()),
            data,
        })
    }
}

pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    in_ms(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(crate) fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
