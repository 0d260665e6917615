//! The reports about requests: metrics, spans, and the access log.

pub(crate) mod access_log;
pub(crate) mod meter;
pub(crate) mod metrics;
pub(crate) mod spans;
pub(crate) mod trace;
