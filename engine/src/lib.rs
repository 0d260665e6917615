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

mod begin;
mod claim;
mod clock;
mod codec;
mod committer;
mod core;
mod directory;
pub mod disk;
mod engine;
mod error;
mod fingerprint;
mod folder;
mod folds;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handle;
#[cfg(all(test, oncekey_loom))]
mod interleavings;
mod journal;
mod key;
mod lock_table;
mod op;
mod options;
mod orphan;
mod pending;
mod queue;
mod recent;
mod recovery;
mod replays;
mod retired;
mod running;
mod shared;
mod shared_bytes;
mod stats;
#[cfg(feature = "stepping")]
#[doc(hidden)]
pub mod stepping;
mod store;
mod sync;
mod telemetry;
mod timers;
mod transition;
mod verify;

pub use begin::{Begin, InFlight, Lookup, Mismatch, Recorded};
pub use claim::{Claim, Completion};
pub use clock::{Clock, OsClock};
pub use engine::{CloseReport, Engine};
pub use error::{Error, ErrorKind, Result};
pub use fingerprint::{Fingerprint, FingerprintBuilder, MAX_LABEL_LEN, MAX_PARTS};
pub use handle::Failed;
pub use key::{Key, MAX_KEY_LEN};
pub use options::{Durability, Options};
pub use orphan::Orphan;
pub use pending::Pending;
pub use shared_bytes::SharedBytes;
pub use stats::Stats;
pub use transition::Token;
pub use verify::{Damage, Verification, verify};
