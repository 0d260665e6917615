//! What the Rust layer, this library and the Go middleware must agree on: the bytes of stored
//! responses, the parts of fingerprints, and the refusals. The vectors are shared with the Go tests.
#![allow(missing_docs, clippy::unwrap_used)]

mod crossing;
mod fingerprints;
mod refusals;
mod vectors;
