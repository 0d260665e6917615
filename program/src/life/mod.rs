//! The life of the process: its store, its sockets, its signals, its end.

mod check;
mod child;
#[cfg(feature = "otel")]
mod collector;
mod desk;
mod lifecycle;
mod maker;
mod reload;
mod store;

pub(crate) use check::check;
pub(crate) use lifecycle::run;
