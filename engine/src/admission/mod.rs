//! Order inside one process: which command works on a key, which commands wait, and how many may.

pub(crate) mod counters;
pub(crate) mod limits;
pub(crate) mod line;
pub(crate) mod queue;
pub(crate) mod slot;
pub(crate) mod slots;
pub(crate) mod waits;
