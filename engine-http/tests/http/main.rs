//! The contract of the layer, row by row, over real sockets with a real client.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test itself does")]

mod acceptance;
#[cfg(feature = "admin")]
mod admin;
#[cfg(feature = "admin")]
mod admin_api;
mod bodies;
mod buffers;
mod contract;
mod direct;
mod edges;
mod examples;
mod failures;
mod grpc;
mod keys;
mod policies;
mod presets;
mod support;
mod text;
mod wire;
