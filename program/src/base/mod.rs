//! What every other folder may use, and knows none of them.

pub(crate) mod exit;
pub(crate) mod latency;
pub(crate) mod network;
pub(crate) mod notify;
pub(crate) mod units;
