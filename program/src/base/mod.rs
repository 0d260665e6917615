//! The parts that every other folder may use. They import from no other folder.

pub(crate) mod exit;
pub(crate) mod latency;
pub(crate) mod network;
pub(crate) mod notify;
pub(crate) mod private;
pub(crate) mod say;
pub(crate) mod units;
pub(crate) mod workers;
