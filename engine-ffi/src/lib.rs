//! The C interface of [oncekey](../oncekey/index.html), as the shared and static library
//! `liboncekey` with the header `include/oncekey.h`.
//!
//! This crate is for C and, through the package in `go/`, for Go. Rust programs use `oncekey`. The rules that
//! hold for every function (ownership, NULL, threads, errors, fork, versions) are in `docs/c-api.md`.
//!
//! The crate has five folders, and each uses only those before it: `abi` (the layout of the data that crosses
//! the boundary), `boundary` (pointers, handles, failures, panics), `objects` (the values behind handles),
//! `completion` (queues), `exports` (the functions). An exported function hands its raw pointers to
//! `boundary::convert`, the one module that dereferences them, and the rest of its work to `boundary::entry`,
//! which refuses calls of forked children and lets no panic out. C holds numbers, which the tables of
//! `boundary::handle_table` map to values.
//!
//! # Safety
//! All exported functions have the same contract: each pointer is NULL or points to memory that
//! is valid for the length of the call, for as many elements as the length beside it says, and is
//! not used by another thread meanwhile. NULL, wrong lengths and wrong handles are not undefined
//! behaviour; they are refused where they are not allowed.
#![allow(clippy::missing_safety_doc, reason = "the contract is the same for all: see above")]

mod abi;
mod boundary;
mod completion;
mod exports;
mod objects;

pub use abi::*;
pub use exports::*;
