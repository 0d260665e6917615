//! The life of the process: its store, its sockets, its signals, its end.

mod admin;
mod lifecycle;
mod store;

pub(crate) use lifecycle::run;
