//! An embedded idempotency engine: an operation that is sent twice with the same idempotency key
//! runs once, and the second caller gets the first answer, across retries, concurrent duplicates,
//! crashes and power loss.
//!
//! A server calls [`Engine::begin`] with a [`Key`] and the [`Fingerprint`] of a request. One caller
//! gets a [`Claim`], executes, and [completes](Claim::complete) it with the response. Every other caller
//! gets that response, or the reason why there is none yet.
//!
//! Every acknowledged change is on disk, in a directory that one process holds at a time. Servers
//! over HTTP use the layer of the crate `oncekey-http`. Many processes that share their keys use
//! the crate `oncekey-postgres`, which opens the same [`Engine`] over a database.
//!
//! # A request, its retry, and the death of its owner
//!
//! ```
//! use oncekey::{Begin, Engine, Fingerprint, Key};
//!
//! /// Charges a card, at most once for each key.
//! fn charge(engine: &Engine, key: &Key, amount: &str) -> Result<String, oncekey::Error> {
//!     let request = Fingerprint::builder().part("amount", amount).finish();
//!     Ok(match engine.begin(key, request).wait()? {
//!         Begin::Claimed(claim) => {
//!             let response = format!("charged {amount}"); // the card is charged here
//!             claim.complete(response.as_bytes()).wait()?;
//!             response
//!         }
//!         Begin::Replay(recorded) => {
//!             String::from_utf8_lossy(recorded.response().unwrap_or_default()).into_owned()
//!         }
//!         Begin::Locked(in_flight) => format!("try again in {:?}", in_flight.retry_after()),
//!         Begin::Mismatch(mismatch) => format!("another {:?} was charged", mismatch.parts()),
//!         Begin::Orphaned(orphan) => format!("attempt {}: outcome unknown", orphan.attempt()),
//!     })
//! }
//!
//! # let dir = std::env::temp_dir().join(format!("oncekey-doc-guide-{}", std::process::id()));
//! let engine = Engine::open(&dir)?;
//! let key = Key::new("tenant-7", "order-1")?;
//! assert_eq!(charge(&engine, &key, "20 EUR")?, "charged 20 EUR");
//! assert_eq!(charge(&engine, &key, "20 EUR")?, "charged 20 EUR"); // the retry: no second charge
//! assert_eq!(charge(&engine, &key, "99 EUR")?, r#"another ["amount"] was charged"#);
//!
//! // An owner that dies in the middle leaves an orphan, which the engine never executes by itself.
//! let key = Key::new("tenant-7", "order-2")?;
//! let request = Fingerprint::builder().part("amount", "5 EUR").finish();
//! let Begin::Claimed(claim) = engine.begin(&key, request).wait()? else { unreachable!() };
//! drop(claim);
//! assert_eq!(charge(&engine, &key, "5 EUR")?, "attempt 1: outcome unknown");
//! # engine.close()?;
//! # std::fs::remove_dir_all(&dir).ok();
//! # Ok::<(), oncekey::Error>(())
//! ```
//!
//! # The answers
//!
//! | [`Begin`] | the operation | the caller |
//! |---|---|---|
//! | [`Claimed`](Begin::Claimed) | is new, or its record expired | executes, then completes, or aborts when nothing happened |
//! | [`Replay`](Begin::Replay) | was completed | gives the recorded response |
//! | [`Locked`](Begin::Locked) | is being executed | tries again later, or [waits](Engine::begin_waiting) |
//! | [`Mismatch`](Begin::Mismatch) | the key belongs to another request | refuses |
//! | [`Orphaned`](Begin::Orphaned) | may have happened: its owner is gone | finds out, then [resolves](Orphan) the orphan |
//!
//! [`ErrorKind`] says what to do after an error, and whether a claim is still held.
//!
//! # Where to read on
//!
//! - [`Engine::run`]: the common case in one call.
//! - [`Options`]: TTL, durability, bounds. [`Durability`]: what survives a power loss.
//! - [`Claim`], [`Orphan`], [`Pending`]: the types in a caller's hands. Any thread or task may hold them.
//! - [`Stats`] and the features `metrics` and `tracing`: figures and events for operators.
//! - [`verify`], [`Engine::backup_to`]: checking and copying a store. [`Reader`], [`owner`]:
//!   inspecting a store from outside.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `embedded` (default) | the store in a directory: [`Engine::open`], [`Options`], [`Reader`], [`verify`]. Without it the crate is what `oncekey-postgres` needs, and neither redb nor the journal is compiled |
//! | `metrics` | reports to the facade `metrics` |
//! | `tracing` | reports to `tracing` |
//! | `serde` | writes and reads [`Key`], [`Options`], `EngineOptions` of `oncekey-postgres`, [`Stats`] and [`CloseReport`], and writes [`Verification`] |
//! | `testing` | the seams to the filesystem and the clocks: [`disk`], [`Clock`],
//! [`Options::disk`], [`Options::clock`]. The crate `oncekey-testing` has test implementations of
//! them |
//! | `stepping` | is for the tests of this crate and promises nothing |
//!
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
// Some of the shared parts serve only the embedded store.
#![cfg_attr(not(feature = "embedded"), allow(dead_code, unused_imports))]

mod admission;
mod api;
mod backend;
mod base;
#[cfg(feature = "embedded")]
mod embedded;
#[cfg(not(any(oncekey_loom, oncekey_shuttle)))]
#[doc(hidden)]
pub mod fleet;
mod semantics;

pub use api::attempt::Failed;
pub use api::begin::{Begin, InFlight, Lookup, Mismatch, Recorded};
pub use api::claim::{Claim, Completion};
pub use api::engine::Engine;
pub use api::listed::Listed;
pub use api::orphan::Orphan;
pub use api::pending::Pending;
pub use api::run::{Run, RunError};
pub use backend::reports::{Bucket, CloseReport, Damage, Statistic, Stats, Verification};
pub use base::bytes::SharedBytes;
pub use base::error::{Error, ErrorKind, Result};
#[cfg(fuzzing)]
pub use embedded::fuzzing;
#[cfg(feature = "stepping")]
#[doc(hidden)]
pub use embedded::stepper as stepping;
#[cfg(feature = "testing")]
pub use embedded::{
    clock::{Clock, OsClock},
    disk,
};
#[cfg(feature = "embedded")]
pub use embedded::{
    disk::{os::network_filesystem, standard_streams::fill_standard_streams},
    durability::Durability,
    open::verify,
    options::Options,
    owner::owner,
    reader::Reader,
};
pub use semantics::fingerprint::{Fingerprint, FingerprintBuilder, MAX_LABEL_LEN, MAX_PARTS};
pub use semantics::http_request::{FingerprintedHeaders, HttpRequest, MAX_FINGERPRINTED_HEADERS};
pub use semantics::key::{Key, MAX_KEY_LEN};
pub use semantics::token::Token;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
