//! Bytes that C holds.

use oncekey::SharedBytes;

use crate::convert::Caller;
use crate::entry::entry;
use crate::error::Failure;
use crate::handle::Table;
use crate::types::Buffer;

static BUFFERS: Table<Bytes> = Table::new(5);

pub(crate) enum Bytes {
    /// A stored response, not copied.
    Shared(SharedBytes),
    Owned(Box<[u8]>),
}

impl Buffer {
    pub(crate) const EMPTY: Self = Self { ptr: std::ptr::null(), len: 0, owner: 0 };

    pub(crate) fn new(bytes: Bytes) -> Result<Self, Failure> {
        // Both live on the heap, where they stay when their owner moves into the table.
        let (ptr, len) = match &bytes {
            Bytes::Shared(bytes) => (bytes.as_ptr(), bytes.len()),
            Bytes::Owned(bytes) => (bytes.as_ptr(), bytes.len()),
        };
        if len == 0 {
            return Ok(Self::EMPTY);
        }
        let owner = BUFFERS.insert(bytes).map_err(|_| Failure::too_many())?;
        Ok(Self { ptr, len, owner })
    }

    /// Frees what no caller has seen.
    pub(crate) fn free(self) {
        let _ = BUFFERS.remove(self.owner);
    }
}

/// Frees the bytes of a buffer and zeroes it. NULL and a zeroed buffer are freed without effect.
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
