//! Order inside one process: who works on a key, who waits, and how many may.

pub(crate) mod counters;
pub(crate) mod limits;
pub(crate) mod line;
pub(crate) mod queue;
pub(crate) mod slot;
pub(crate) mod slots;
pub(crate) mod waits;
