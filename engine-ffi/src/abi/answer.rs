//! What was found under a key, and what a claim or orphan is about, as C sees them.

use crate::abi::plain::plain;
use crate::abi::types::{Buffer, Claim, Orphan, Slice, Token};

plain!(Answer, Info);

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
    /// REPLAY: the response. CLAIMED: the last checkpoint of the attempts before. MISMATCH: the labels of
    /// the parts that differ, each followed by a NUL.
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
    /// Whether any attempt saved a checkpoint.
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
    /// Claims: the last checkpoint. That of an orphan is read by oncekey_orphan_checkpoint.
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
