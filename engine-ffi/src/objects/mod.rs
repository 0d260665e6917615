//! The values behind the handles of C, and the data made from them.

pub(crate) mod answer;
pub(crate) mod buffer;
pub(crate) mod claim;
mod control_socket;
pub(crate) mod ending;
pub(crate) mod engine;
pub(crate) mod fingerprint;
pub(crate) mod opening;
mod option_values;
pub(crate) mod orphan;
pub(crate) mod shared_store;
