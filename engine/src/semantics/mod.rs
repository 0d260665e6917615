//! The meaning of records, commands and answers. No I/O, no clock, no lock.

pub(crate) mod command;
pub(crate) mod fingerprint;
pub(crate) mod http_request;
pub(crate) mod key;
pub(crate) mod record;
pub(crate) mod record_codec;
#[cfg(test)]
pub(crate) mod samples;
pub(crate) mod secret;
pub(crate) mod time;
pub(crate) mod token;
pub(crate) mod transition;
