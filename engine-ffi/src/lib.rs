//! The C interface of [oncekey](../oncekey/index.html), as the shared and static library
//! `liboncekey` with the header `include/oncekey.h`.
//!
//! This crate is for C and, through the package in `go/`, for Go: Rust programs use `oncekey`. The
//! rules that hold for every function (ownership, NULL, threads, errors, fork, versions) are in
//! `docs/c-api.md`.
//!
//! How it is built, from the outside in: an exported function hands its raw pointers to
//! `convert`, the one module with unsafe code, and the rest of its work to `entry`, which
//! refuses calls of forked children and lets no panic out. What C holds are numbers, looked up in
//! the tables of `handle`.
//!
//! # Safety
//! All exported functions have the same contract: each pointer is NULL or points to memory that
//! is valid for the length of the call, for as many elements as the length beside it says, and is
//! not used by another thread meanwhile. NULL, wrong lengths and wrong handles are not undefined
//! behaviour; they are refused where they are not allowed.
#![allow(clippy::missing_safety_doc, reason = "the contract is the same for all: see above")]

mod answer;
mod begin;
mod buffer;
mod claim;
mod completions;
mod convert;
mod ending;
mod engine;
mod entry;
mod error;
mod fingerprint;
mod fork;
mod handle;
mod options;
mod orphan;
mod outstanding;
mod queue;
mod request;
#[cfg(unix)]
mod signal;
mod slots;
mod stats;
mod status;
mod submission;
mod types;

pub use answer::*;
pub use begin::*;
pub use buffer::*;
pub use claim::*;
pub use engine::*;
#[cfg(feature = "inject-panic")]
pub use entry::inject::oncekey_test_panic_next;
pub use error::*;
pub use fingerprint::*;
pub use options::*;
pub use orphan::*;
pub use queue::*;
pub use request::*;
pub use stats::*;
pub use status::*;
pub use submission::*;
pub use types::*;
