//! Calls on an orphan.

use crate::abi::answer::{Answer, Info};
use crate::abi::time::{in_ms, unix_ms};
use crate::abi::types::{Buffer, Claim, Error, Orphan, Slice};
use crate::boundary::convert::Caller;
use crate::boundary::entry::entry;
use crate::objects::buffer::Bytes;
use crate::objects::claim::is_kept;
use crate::objects::ending::Ending;
use crate::objects::orphan::ORPHANS;

/// Claims the operation of an orphan, with a new token, the next attempt number, and the last checkpoint
/// (oncekey_claim_info). The operation may have happened already, so a caller that executes now executes it
/// at least once. Blocks while it waits for the disk; durable when the status is OK.
///
/// The orphan is gone after OK, FENCED and ALREADY_COMPLETED (it was resolved elsewhere). After OVERLOADED,
/// STORE_FULL, OUTCOME_UNKNOWN, UNAVAILABLE, CLOSED and all other statuses the caller still holds it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_orphan_take_over(
    orphan: Orphan,
    claim: *mut Claim,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let claim = caller.out(claim);
    entry(Some(caller.out(error)), || {
        let claim = claim.required("claim")?;
        let ending = Ending::submit(&ORPHANS, orphan.id, oncekey::Orphan::take_over)?;
        let answer = Answer::claimed(ending.wait()?)?;
        // The caller reads the checkpoint with oncekey_claim_info.
        answer.data.free();
        *claim = answer.claim;
        Ok(())
    })
}

/// Ends the operation with a response, when the caller has found out that it happened. `kept` may be NULL.
/// Blocks while it waits for the disk; durable when the status is OK. When the orphan is gone is the same as
/// for oncekey_orphan_take_over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_orphan_complete(
    orphan: Orphan,
    response: Slice,
    kept: *mut u32,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let mut kept = caller.out(kept);
    entry(Some(caller.out(error)), || {
        let response = caller.bytes(response, "the response")?;
        let ending = Ending::submit(&ORPHANS, orphan.id, |orphan| orphan.complete(response))?;
        kept.set(is_kept(ending.wait()?));
        Ok(())
    })
}

/// Frees the key, when the caller has found out that the operation did not happen, or wants it executed
/// again. Blocks while it waits for the disk; durable when the status is OK. When the orphan is gone is the
/// same as for oncekey_orphan_take_over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_orphan_release(orphan: Orphan, error: *mut Error) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    entry(Some(caller.out(error)), || {
        Ending::submit(&ORPHANS, orphan.id, oncekey::Orphan::release)?.wait()
    })
}

/// Reads key, token, attempt and age of an orphan, and whether it has a checkpoint. Does not read the store.
/// The caller frees `info->data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_orphan_info(
    orphan: Orphan,
    info: *mut Info,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let info = caller.out(info);
    entry(Some(caller.out(error)), || {
        let info = info.required("info")?;
        let orphan = ORPHANS.get(orphan.id)?;
        *info = Info {
            since_ms: unix_ms(orphan.since()),
            age_ms: in_ms(orphan.age()),
            has_checkpoint: u32::from(orphan.checkpoint_len().is_some()),
            ..Info::new(orphan.key(), None, orphan.token(), orphan.attempt())?
        };
        Ok(())
    })
}

/// Reads the last checkpoint that any attempt saved. May read the store. `found` is 0 when there is none. The
/// caller frees `data`.
///
/// Fails with FENCED or ALREADY_COMPLETED when the orphan was resolved, and with CORRUPTED when the
/// checkpoint is damaged; a damaged orphan can still be resolved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_orphan_checkpoint(
    orphan: Orphan,
    data: *mut Buffer,
    found: *mut u32,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let (data, found) = (caller.out(data), caller.out(found));
    entry(Some(caller.out(error)), || {
        let (data, found) = (data.required("data")?, found.required("found")?);
        if let Some(saved) = ORPHANS.get(orphan.id)?.last_checkpoint()? {
            *data = Buffer::new(Bytes::Shared(saved))?;
            *found = 1;
        }
        Ok(())
    })
}

/// Frees the handle of an orphan and changes nothing in the store. Freeing 0 has no effect.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_orphan_free(orphan: Orphan) -> i32 {
    entry(None, || ORPHANS.remove(orphan.id).map(drop))
}
