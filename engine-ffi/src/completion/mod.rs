//! Completion queues: operations that are answered later.

pub(crate) mod completions;
pub(crate) mod outstanding;
#[cfg(unix)]
pub(crate) mod signal;
pub(crate) mod slots;
