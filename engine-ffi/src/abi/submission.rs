//! What goes into a completion queue, and what comes out.

use crate::abi::answer::Answer;
use crate::abi::plain::plain;
use crate::abi::request::Part;
use crate::abi::types::{Claim, Error, Fingerprint, Key, Orphan, Slice};

plain!(Submission, Completion);

/// As oncekey_begin: `key`, `fingerprint`, `max_wait_ms`.
pub const ONCEKEY_OP_BEGIN: u32 = 401;
/// As oncekey_claim_complete_with: `claim`, `data` unless ONCEKEY_NO_RESPONSE is set, `ttl_ms`.
pub const ONCEKEY_OP_COMPLETE: u32 = 402;
/// As oncekey_claim_abort: `claim`.
pub const ONCEKEY_OP_ABORT: u32 = 403;
/// As oncekey_claim_checkpoint: `claim`, `data`.
pub const ONCEKEY_OP_CHECKPOINT: u32 = 404;
/// As oncekey_orphan_take_over: `orphan`. The completion's answer is CLAIMED.
pub const ONCEKEY_OP_TAKE_OVER: u32 = 405;
/// As oncekey_orphan_complete: `orphan`, `data`.
pub const ONCEKEY_OP_ORPHAN_COMPLETE: u32 = 406;
/// As oncekey_orphan_release: `orphan`.
pub const ONCEKEY_OP_RELEASE: u32 = 407;

/// ONCEKEY_OP_COMPLETE without a response to keep.
pub const ONCEKEY_NO_RESPONSE: u32 = 16_777_216;
/// ONCEKEY_OP_BEGIN frees `fingerprint`, whatever comes of it.
pub const ONCEKEY_FREE_FINGERPRINT: u32 = 33_554_432;
/// ONCEKEY_OP_BEGIN makes its fingerprint of `parts`, and does not look at `fingerprint`.
pub const ONCEKEY_FINGERPRINT_PARTS: u32 = 67_108_864;

/// An operation to submit. Fields that do not belong to `op` are not looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Submission {
    /// ONCEKEY_OP_BEGIN and the others.
    pub op: u32,
    /// ONCEKEY_NO_RESPONSE, ONCEKEY_FREE_FINGERPRINT, ONCEKEY_FINGERPRINT_PARTS, ored.
    pub flags: u32,
    /// Comes back with the completion, and names a begin to oncekey_queue_cancel.
    pub user_data: u64,
    /// The key of a begin.
    pub key: Key,
    /// The fingerprint of a begin.
    pub fingerprint: Fingerprint,
    /// How long a begin waits for an owner, unless oncekey_queue_cancel gives it up.
    pub max_wait_ms: u64,
    /// The claim to end or to save a checkpoint of.
    pub claim: Claim,
    /// The orphan to resolve.
    pub orphan: Orphan,
    /// The response or checkpoint.
    pub data: Slice,
    /// The TTL of a completion; 0: the store's.
    pub ttl_ms: u64,
    /// With ONCEKEY_FINGERPRINT_PARTS: as oncekey_fingerprint_from_parts takes them. Hashed in the call
    /// that submits them: large ones better by oncekey_fingerprint_from_parts, on any thread.
    pub parts: *const Part,
    /// How many.
    pub part_count: usize,
}

/// What came of a submission. The caller frees `error`, and what is in `answer`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// That of the submission.
    pub user_data: u64,
    /// ONCEKEY_OK, or why it failed. Whether a claim or orphan is gone is as with the blocking call.
    pub status: i32,
    /// That of the submission.
    pub op: u32,
    /// What went wrong, for people; 0 when the status is OK.
    pub error: Error,
    /// Whether a response is kept; for the two ways to complete.
    pub kept: u32,
    /// Always 0.
    pub reserved: u32,
    /// What was found, for ONCEKEY_OP_BEGIN and ONCEKEY_OP_TAKE_OVER.
    pub answer: Answer,
}

#[cfg(test)]
impl Submission {
    /// A begin that does not wait and frees its fingerprint.
    pub(crate) fn begin(name: &'static [u8], fingerprint: Fingerprint) -> Self {
        let empty = Slice { ptr: std::ptr::null(), len: 0 };
        Self {
            op: ONCEKEY_OP_BEGIN,
            flags: ONCEKEY_FREE_FINGERPRINT,
            user_data: 0,
            key: Key { scope: empty, key: Slice { ptr: name.as_ptr(), len: name.len() } },
            fingerprint,
            max_wait_ms: 0,
            claim: Claim { id: 0 },
            orphan: Orphan { id: 0 },
            data: empty,
            ttl_ms: 0,
            parts: std::ptr::null(),
            part_count: 0,
        }
    }
}
