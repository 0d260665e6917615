//! What closing an engine tells.

use crate::abi::plain::plain;

plain!(CloseReport);

/// What oncekey_engine_close left behind.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CloseReport {
    /// Claims that were still held: orphans at the next open.
    pub in_flight: u64,
    /// The last journal sequence that is in the store file.
    pub folded_through: u64,
}
