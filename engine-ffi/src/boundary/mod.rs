//! The way over the boundary: pointers, handles, failures, panics, forks.

pub(crate) mod convert;
#[cfg(any(feature = "control-socket", feature = "postgres"))]
pub(crate) mod descriptors;
pub(crate) mod entry;
pub(crate) mod failure;
pub(crate) mod fork;
pub(crate) mod handle_table;
#[cfg(feature = "leak-check")]
mod leaks;
pub(crate) mod report;
pub(crate) mod signals;
