//! The upstream side: connections, sending, and the outcome of what was sent.

mod checkpoints;
mod collect;
mod connect;
mod course;
pub(crate) mod health;
mod once;
mod outcome;
mod send;
mod service;
mod tls;
mod tunnel;

pub(crate) use checkpoints::Control;
pub(crate) use course::Course;
pub(crate) use once::send_once;
pub(crate) use send::Upstreams;
pub(crate) use service::{Conduct, PassFailed, UpstreamService};
pub(crate) use tls::Tls;
