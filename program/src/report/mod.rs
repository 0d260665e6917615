//! The reports about requests: metrics, spans, and a line for each.

pub(crate) mod access_log;
pub(crate) mod meter;
pub(crate) mod metrics;
pub(crate) mod spans;
pub(crate) mod trace;
