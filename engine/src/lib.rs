//! oncekey
#![forbid(unsafe_code)]
#![allow(dead_code)]

mod clock;
mod codec;
pub mod disk;
mod error;
mod fingerprint;
mod journal;
mod key;
mod recent;
mod transition;

pub use clock::{Clock, OsClock};
pub use error::{Error, ErrorKind, Result};
pub use fingerprint::{Fingerprint, FingerprintBuilder};
pub use key::Key;
