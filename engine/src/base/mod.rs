//! The base of every other folder: errors, bytes, encoding, and the primitives of concurrency.

pub(crate) mod bytes;
pub(crate) mod codec;
pub(crate) mod error;
pub(crate) mod range;
#[cfg(feature = "serde")]
pub(crate) mod serialize;
pub(crate) mod sync;
pub(crate) mod wait;
