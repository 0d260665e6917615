//! Asking for the right to execute.

use std::time::Duration;

use crate::answer::Answer;
use crate::convert::Caller;
use crate::engine::ENGINES;
use crate::entry::entry;
use crate::fingerprint::FINGERPRINTS;
use crate::types::{Engine, Error, Fingerprint, Key};

/// Asks for the right to execute the operation that `key` names. With `max_wait_ms` above 0 it waits so
/// long for an owner: for its response (REPLAY), its abort (CLAIMED) or its end (ORPHANED); past the
/// bound the outcome is LOCKED. Waits for the disk.
///
/// The caller frees `answer->data`, and ends `answer->claim` or frees `answer->orphan`. CLAIMED is durable
/// when it is answered, under ONCEKEY_STRICT. Fails with INVALID_INPUT, OVERLOADED, STORE_FULL,
/// OUTCOME_UNKNOWN, UNAVAILABLE, CLOSED, CORRUPTED, IO; then the caller must not execute.
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
        let engine = ENGINES.get(engine.id)?;
        let fingerprint = FINGERPRINTS.get(fingerprint.id)?;
        let pending = submit(&engine, &key, fingerprint, max_wait_ms);
        *answer = Answer::from_begin(pending.wait()?)?;
        Ok(())
    })
}

pub(crate) fn submit(
    engine: &oncekey::Engine,
    key: &oncekey::Key,
    fingerprint: oncekey::Fingerprint,
    max_wait_ms: u64,
) -> oncekey::Pending<oncekey::Begin> {
    if max_wait_ms == 0 {
        engine.begin(key, fingerprint)
    } else {
        engine.begin_waiting(key, fingerprint, Duration::from_millis(max_wait_ms))
    }
}
