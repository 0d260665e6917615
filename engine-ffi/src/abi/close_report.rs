//! The report of a close.

use crate::abi::plain::plain;

plain!(CloseReport);

/// The state in which oncekey_engine_close left the store.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CloseReport {
    /// Claims that were still held. They are orphans at the next open.
    pub in_flight: u64,
    /// The last journal sequence number that the store file contains.
    pub folded_through: u64,
}
