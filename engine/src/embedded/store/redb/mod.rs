//! The only place that names redb: its file, and the guard around its calls.

pub(crate) mod storage;
pub(crate) mod write_buffer;
