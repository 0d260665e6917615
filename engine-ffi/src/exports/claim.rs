//! Calls on a claim.

use crate::abi::answer::Info;
use crate::abi::types::{Claim, Error, Slice};
use crate::boundary::convert::Caller;
use crate::boundary::entry::entry;
use crate::boundary::failure::Failure;
use crate::objects::claim::{CLAIMS, checkpoint, is_kept, ttl};
use crate::objects::ending::Ending;

/// Ends the operation with its response, which every identical begin gets until the TTL is over. A response
/// longer than `max_response` is not kept, and `kept` becomes 0; `kept` may be NULL. Blocks while it waits
/// for the disk; durable when the status is OK.
///
/// The claim is gone after OK, FENCED (another caller took over) and ALREADY_COMPLETED. After
/// OUTCOME_UNKNOWN, UNAVAILABLE, STORE_FULL, CLOSED and all other statuses the caller still holds it, to try
/// again or to free it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_claim_complete(
    claim: Claim,
    response: Slice,
    kept: *mut u32,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let mut kept = caller.out(kept);
    entry(Some(caller.out(error)), || {
        let response = caller.bytes(response, "the response")?;
        let ending = Ending::submit(&CLAIMS, claim.id, |claim| claim.complete(response))?;
        kept.set(is_kept(ending.wait()?));
        Ok(())
    })
}

/// Like oncekey_claim_complete, with a TTL of its own in milliseconds (0: the TTL of the store). If
/// `response` is NULL, no response is kept: a begin learns only that the operation was completed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_claim_complete_with(
    claim: Claim,
    response: *const Slice,
    ttl_ms: u64,
    kept: *mut u32,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let mut kept = caller.out(kept);
    entry(Some(caller.out(error)), || {
        let response = match caller.optional(response) {
            Some(slice) => Some(caller.bytes(*slice, "the response")?),
            None => None,
        };
        let ttl = ttl(ttl_ms);
        let ending = Ending::submit(&CLAIMS, claim.id, |claim| claim.complete_with(response, ttl))?;
        kept.set(is_kept(ending.wait()?));
        Ok(())
    })
}

/// Declares that nothing happened in this attempt. The first attempt frees the key. A later attempt leaves
/// the operation as the orphan that it took over. Blocks while it waits for the disk; durable when the status
/// is OK.
///
/// When the claim is gone is the same as for oncekey_claim_complete.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_claim_abort(claim: Claim, error: *mut Error) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    entry(Some(caller.out(error)), || {
        Ending::submit(&CLAIMS, claim.id, oncekey::Claim::abort)?.wait()
    })
}

/// Saves a recovery point. If this claim becomes an orphan, its resolver gets the last one. At most
/// `max_checkpoint` bytes. Blocks while it waits for the disk; durable when the status is OK. The claim
/// stays.
///
/// Fails with INVALID_INPUT when `data` is too long, FENCED, ALREADY_COMPLETED, OUTCOME_UNKNOWN, UNAVAILABLE,
/// STORE_FULL, CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_claim_checkpoint(
    claim: Claim,
    data: Slice,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    entry(Some(caller.out(error)), || {
        let data = caller.bytes(data, "the checkpoint")?;
        let pending = checkpoint(claim.id, data)?;
        Ok(pending.wait()?)
    })
}

/// Reads key, token, attempt and last checkpoint of a claim. May read the store. The caller frees
/// `info->data`. The claim stays. Fails with CORRUPTED when the checkpoint is damaged, and with FENCED or
/// ALREADY_COMPLETED when the claim was ended elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_claim_info(
    claim: Claim,
    info: *mut Info,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let info = caller.out(info);
    entry(Some(caller.out(error)), || {
        let info = info.required("info")?;
        // The claim is taken out meanwhile, since the read goes through the engine.
        let (claim, taken) = CLAIMS.take(claim.id)?;
        let checkpoint = claim.last_checkpoint();
        let told = checkpoint.map_err(Failure::from).and_then(|saved| {
            Info::new(claim.key(), saved.as_deref(), claim.token(), claim.attempt())
        });
        taken.give_back(claim);
        *info = told?;
        Ok(())
    })
}

/// Drops a claim. If it was not ended, the operation becomes an orphan: its outcome is unknown. Does not
/// block. Freeing 0 has no effect.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_claim_free(claim: Claim) -> i32 {
    entry(None, || CLAIMS.remove(claim.id).map(drop))
}
