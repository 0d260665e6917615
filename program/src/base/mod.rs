//! What every other folder may use, and knows none of them.

pub(crate) mod exit;
pub(crate) mod network;
pub(crate) mod units;
