//! The only place that names redb: its file, and the guard around its calls.

pub(crate) mod backend;
mod quiet_panics;
pub(crate) mod storage;
pub(crate) mod tables;
pub(crate) mod write_buffer;
