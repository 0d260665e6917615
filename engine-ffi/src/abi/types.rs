//! The types that cross the boundary: numbers and pointers, all valid when zero.

use crate::abi::plain::plain;

plain!(Slice, Buffer, Key, Engine, Claim, Orphan, Fingerprint, Queue, Error);

/// Bytes that belong to the caller. {NULL, 0} is the empty slice. The library keeps no pointer after the
/// call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// The first byte; may be NULL when `len` is 0.
    pub ptr: *const u8,
    /// The number of bytes.
    pub len: usize,
}

/// Bytes that the library gave out. Free them with oncekey_buffer_free.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// The first byte; NULL when `len` is 0.
    pub ptr: *const u8,
    /// The number of bytes.
    pub len: usize,
    /// The handle that holds the bytes. Not for the caller.
    pub owner: u64,
}

impl Buffer {
    pub(crate) const EMPTY: Self = Self { ptr: std::ptr::null(), len: 0, owner: 0 };
}

/// The identity of an operation: the party that it belongs to, and its name.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// 0 to 255 bytes.
    pub scope: Slice,
    /// 1 to 255 bytes.
    pub key: Slice,
}

/// A fencing token. Of two tokens of one key, the later one is larger when compared with memcmp.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The incarnation of the store, the epoch and the sequence, each 8 bytes, big-endian.
    pub bytes: [u8; 24],
}

impl Token {
    pub(crate) const NONE: Self = Self { bytes: [0; 24] };

    pub(crate) fn new(token: oncekey::Token) -> Self {
        Self { bytes: token.to_bytes() }
    }
}

/// An open store. The handle is a number and may be copied. 0 is no engine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Not for the caller.
    pub id: u64,
}

/// The exclusive right to execute an operation. 0 is no claim.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Not for the caller.
    pub id: u64,
}

/// An operation whose owner ended with an unknown outcome. 0 is no orphan.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Not for the caller.
    pub id: u64,
}

/// The identity of a request: equal fingerprints mean the same request. 0 is no fingerprint.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Not for the caller.
    pub id: u64,
}

/// A completion queue. 0 is no queue.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Not for the caller.
    pub id: u64,
}

/// The message of a failure, for people. 0 is no error.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Not for the caller.
    pub id: u64,
}
