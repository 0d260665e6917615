//! Requests the right to execute.

use crate::abi::answer::Answer;
use crate::abi::types::{Engine, Error, Fingerprint, Key};
use crate::boundary::convert::Caller;
use crate::boundary::entry::entry;
use crate::objects::engine;
use crate::objects::fingerprint::FINGERPRINTS;

/// Requests the right to execute the operation that `key` names. With `max_wait_ms` above 0, a begin of a key
/// whose owner still executes waits up to this many milliseconds: for the response (REPLAY), for an abort
/// (CLAIMED), or for a death of the owner (ORPHANED). After that time the outcome is LOCKED. Blocks while it
/// waits for the disk.
///
/// The caller frees `answer->data`, and ends `answer->claim` or frees `answer->orphan`. Under ONCEKEY_STRICT,
/// CLAIMED is durable when this returns. Fails with INVALID_INPUT, OVERLOADED, STORE_FULL, OUTCOME_UNKNOWN,
/// UNAVAILABLE, CLOSED, CORRUPTED, IO; the caller must then not execute.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_begin(
    engine: Engine,
    key: Key,
    fingerprint: Fingerprint,
    max_wait_ms: u64,
    answer: *mut Answer,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let answer = caller.out(answer);
    entry(Some(caller.out(error)), || {
        let answer = answer.required("answer")?;
        let key = caller.key(key)?;
        let engine = engine::get(engine.id)?;
        let fingerprint = FINGERPRINTS.get(fingerprint.id)?;
        let pending = engine::begin(&engine, &key, fingerprint, max_wait_ms);
        *answer = Answer::from_begin(pending.wait()?)?;
        Ok(())
    })
}
