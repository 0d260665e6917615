//! Calls on a buffer.

use crate::abi::types::Buffer;
use crate::boundary::convert::Caller;
use crate::boundary::entry::entry;
use crate::objects::buffer::BUFFERS;

/// Frees the bytes of a buffer and zeroes it. NULL and a zeroed buffer have no effect.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_buffer_free(buffer: *mut Buffer) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let Some(owner) = caller.optional(buffer).map(|buffer| buffer.owner) else {
        return entry(None, || Ok(()));
    };
    entry(None, || {
        let freed = BUFFERS.remove(owner);
        caller.out(buffer);
        freed.map(drop)
    })
}
