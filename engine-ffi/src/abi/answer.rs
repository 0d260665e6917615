//! The answers to a begin or a get, and the description of a claim or orphan, as C sees them.

use crate::abi::plain::plain;
use crate::abi::types::{Buffer, Claim, Orphan, Slice, Token};

plain!(Answer, Info);

/// The store holds no record of the key, or only an expired one. Only oncekey_engine_get has this outcome.
pub const ONCEKEY_ABSENT: i32 = 200;
/// The key is new, or its record expired: execute the operation, then complete the claim.
pub const ONCEKEY_CLAIMED: i32 = 201;
/// The operation was completed: send the recorded response, do not execute.
pub const ONCEKEY_REPLAY: i32 = 202;
/// The operation is being executed now. Try again later.
pub const ONCEKEY_LOCKED: i32 = 203;
/// The key was used with a different request. Do not execute.
pub const ONCEKEY_MISMATCH: i32 = 204;
/// The outcome of an earlier attempt is unknown: it died, or was abandoned. The engine never executes the
/// operation again by itself.
pub const ONCEKEY_ORPHANED: i32 = 205;

/// The answer to a begin or a get. Fields that do not belong to the outcome are 0. The caller frees `data`,
/// and `claim` or `orphan` where they are not 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// ONCEKEY_CLAIMED or another outcome.
    pub outcome: i32,
    /// CLAIMED, LOCKED, ORPHANED: the number of the attempt, from 1.
    pub attempt: u32,
    /// CLAIMED: the claim.
    pub claim: Claim,
    /// ORPHANED: the orphan.
    pub orphan: Orphan,
    /// CLAIMED, ORPHANED, REPLAY: the token of the attempt.
    pub token: Token,
    /// 1 when `data` holds a response, checkpoint or list of labels, which may be empty; else 0.
    pub has_data: u32,
    /// Always 0.
    pub reserved: u32,
    /// REPLAY: the response. CLAIMED: the last checkpoint of the earlier attempts. MISMATCH: the labels of
    /// the parts that differ, each followed by a NUL.
    pub data: Buffer,
    /// REPLAY: when the operation was completed. ORPHANED: when it became an orphan. Milliseconds since 1970,
    /// in engine time.
    pub since_ms: u64,
    /// REPLAY: when the record expires and the key is new again. Milliseconds since 1970, in engine time.
    pub expires_ms: u64,
    /// LOCKED: how long the owner has been executing, in milliseconds.
    pub running_ms: u64,
    /// LOCKED: a hint when to try again, 100 to 500 milliseconds.
    pub retry_after_ms: u64,
}

/// The description of a claim or orphan. The caller frees `data`, which holds the bytes of the slices.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// 1 when any attempt saved a checkpoint, else 0.
    pub has_checkpoint: u32,
    /// The fencing token.
    pub token: Token,
    /// Orphans: when it became an orphan. Milliseconds since 1970, in engine time.
    pub since_ms: u64,
    /// Orphans: the age at the time when the handle was made, in milliseconds.
    pub age_ms: u64,
    /// The party that the key belongs to.
    pub scope: Slice,
    /// The key.
    pub key: Slice,
    /// Claims: the last checkpoint. Read that of an orphan with oncekey_orphan_checkpoint.
    pub checkpoint: Slice,
    /// Holds the bytes of the three slices.
    pub data: Buffer,
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
}
