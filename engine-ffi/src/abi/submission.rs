//! The submissions and completions of a queue.

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

/// ONCEKEY_OP_COMPLETE: keep no response.
pub const ONCEKEY_NO_RESPONSE: u32 = 16_777_216;
/// ONCEKEY_OP_BEGIN: free `fingerprint`, whatever the result.
pub const ONCEKEY_FREE_FINGERPRINT: u32 = 33_554_432;
/// ONCEKEY_OP_BEGIN: make the fingerprint from `parts` and ignore `fingerprint`.
pub const ONCEKEY_FINGERPRINT_PARTS: u32 = 67_108_864;

/// An operation to submit. Fields that do not belong to `op` are ignored.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Submission {
    /// ONCEKEY_OP_BEGIN or another operation.
    pub op: u32,
    /// ONCEKEY_NO_RESPONSE, ONCEKEY_FREE_FINGERPRINT, ONCEKEY_FINGERPRINT_PARTS, combined with `|`.
    pub flags: u32,
    /// Returned in the completion. oncekey_queue_cancel finds a begin by it.
    pub user_data: u64,
    /// The key of a begin.
    pub key: Key,
    /// The fingerprint of a begin.
    pub fingerprint: Fingerprint,
    /// How long a begin waits for an owner, in milliseconds. oncekey_queue_cancel ends the wait early.
    pub max_wait_ms: u64,
    /// The claim to end, or to save a checkpoint of.
    pub claim: Claim,
    /// The orphan to resolve.
    pub orphan: Orphan,
    /// The response or checkpoint.
    pub data: Slice,
    /// The TTL of a completion, in milliseconds. 0: the TTL of the store.
    pub ttl_ms: u64,
    /// With ONCEKEY_FINGERPRINT_PARTS: the parts, as for oncekey_fingerprint_from_parts. The submitting call
    /// hashes them; for large parts, call oncekey_fingerprint_from_parts on another thread instead.
    pub parts: *const Part,
    /// The number of parts.
    pub part_count: usize,
}

/// The result of a submission. The caller frees `error`, and the handles and data in `answer`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// `user_data` of the submission.
    pub user_data: u64,
    /// ONCEKEY_OK, or the reason of the failure. Whether the handle of a claim or orphan is gone follows the
    /// same rule as for the blocking call.
    pub status: i32,
    /// `op` of the submission.
    pub op: u32,
    /// The message of the failure; 0 when the status is OK.
    pub error: Error,
    /// 1 when the response is kept, for ONCEKEY_OP_COMPLETE and ONCEKEY_OP_ORPHAN_COMPLETE.
    pub kept: u32,
    /// Always 0.
    pub reserved: u32,
    /// The answer, for ONCEKEY_OP_BEGIN and ONCEKEY_OP_TAKE_OVER.
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
