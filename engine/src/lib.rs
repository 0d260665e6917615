//! An embedded idempotency engine: an operation that is sent twice with the same idempotency key
//! runs once, and the second caller gets the first answer, across retries, concurrent duplicates,
//! crashes and power loss.
//!
//! A server calls [`Engine::begin`] with a [`Key`] and the [`Fingerprint`] of a request. One caller
//! gets a [`Claim`], executes, and [completes](Claim::complete) it with the response; everybody else
//! gets that response, or is told why not. See [`Begin`] for the five answers.
//!
//! Everything that was answered is on disk, in a directory that one process holds at a time.
//!
#![forbid(unsafe_code)]

mod admission;
mod api;
mod backend;
mod base;
mod embedded;
#[cfg(not(any(oncekey_loom, oncekey_shuttle)))]
#[doc(hidden)]
pub mod fleet;
mod semantics;

pub use api::attempt::Failed;
pub use api::begin::{Begin, InFlight, Lookup, Mismatch, Recorded};
pub use api::claim::{Claim, Completion};
pub use api::engine::Engine;
pub use api::orphan::Orphan;
pub use api::pending::Pending;
pub use backend::reports::{CloseReport, Damage, Statistic, Stats, Verification};
pub use base::bytes::SharedBytes;
pub use base::error::{Error, ErrorKind, Result};
pub use embedded::clock::{Clock, OsClock};
pub use embedded::disk;
#[cfg(fuzzing)]
pub use embedded::fuzzing;
pub use embedded::open::verify;
pub use embedded::options::{Durability, Options};
#[cfg(feature = "stepping")]
#[doc(hidden)]
pub use embedded::stepper as stepping;
pub use semantics::fingerprint::{Fingerprint, FingerprintBuilder, MAX_LABEL_LEN, MAX_PARTS};
pub use semantics::http_request::{FingerprintedHeaders, HttpRequest, MAX_FINGERPRINTED_HEADERS};
pub use semantics::key::{Key, MAX_KEY_LEN};
pub use semantics::token::Token;
