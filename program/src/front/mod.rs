//! The client side: connections, routes, and a request from its head to its answer.

pub(crate) mod jwt;
pub(crate) mod listener;
pub(crate) mod peer;
mod preface;
pub(crate) mod proxy;
mod record;
pub(crate) mod restored;
pub(crate) mod route;
pub(crate) mod scope;
pub(crate) mod serve;
mod shared_stream;
pub(crate) mod tls;
