//! The bytes behind the buffers of C.

use oncekey::SharedBytes;

use crate::abi::types::Buffer;
use crate::boundary::failure::Failure;
use crate::boundary::handle_table::Table;

pub(crate) static BUFFERS: Table<Bytes> = Table::new(5);

pub(crate) enum Bytes {
    /// A stored response, not copied.
    Shared(SharedBytes),
    Owned(Box<[u8]>),
}

impl Buffer {
    pub(crate) fn new(bytes: Bytes) -> Result<Self, Failure> {
        // The bytes of both variants live on the heap, where they stay when their owner moves into the table.
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

    /// Frees a buffer that no caller has seen.
    pub(crate) fn free(self) {
        let _ = BUFFERS.remove(self.owner);
    }
}
