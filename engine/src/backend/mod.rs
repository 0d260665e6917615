//! The seam between the meaning of a claim and the place where its record lives.

pub(crate) mod operation;
pub(crate) mod stats;
pub(crate) mod telemetry;
