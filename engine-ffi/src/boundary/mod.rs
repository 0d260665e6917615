//! The way over the boundary: pointers, handles, failures, panics, forks.

pub(crate) mod convert;
pub(crate) mod entry;
pub(crate) mod failure;
pub(crate) mod fork;
pub(crate) mod handle_table;
#[cfg(feature = "leak-check")]
mod leaks;
pub(crate) mod report;
pub(crate) mod signals;
