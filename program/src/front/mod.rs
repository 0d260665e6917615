//! The side of the clients: connections, routes, and a request from its head to its answer.

pub(crate) mod listener;
pub(crate) mod proxy;
pub(crate) mod route;
pub(crate) mod scope;
pub(crate) mod serve;
