//! The exported functions. Each does its work between `Caller::new` and `entry`.

mod begin;
mod buffer;
mod claim;
mod control;
mod engine;
mod error;
mod fingerprint;
#[cfg(feature = "inject-panic")]
mod inject;
mod orphan;
mod queue;
mod version;

pub use begin::*;
pub use buffer::*;
pub use claim::*;
pub use control::*;
pub use engine::*;
pub use error::*;
pub use fingerprint::*;
#[cfg(feature = "inject-panic")]
pub use inject::oncekey_test_panic_next;
pub use orphan::*;
pub use queue::*;
pub use version::*;
