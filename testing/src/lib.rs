//! Test versions of the outside world of oncekey: a disk that loses power, fails and rots on
//! demand, and a clock that the test moves. Both are deterministic. The feature `conformance` adds
//! the suites that every backend passes; `layers` adds the rules for the layout of a crate of this
//! repository.
//!
//! ```
//! use oncekey::disk::{Caching, Disk, DiskFile};
//! use oncekey_testing::{CrashMode, Fault, OpKind, SimDisk};
//!
//! let disk = SimDisk::new();
//! let file = disk.create("/journal".as_ref(), Caching::Buffered)?;
//! file.write_at(0, b"synced")?;
//! file.sync()?;
//! disk.sync_dir("/".as_ref())?;
//! file.write_at(0, b"missed")?;
//!
//! let image = disk.crash(CrashMode::LoseAllUnsynced);
//! assert_eq!(image.read_file("/journal"), b"synced");
//!
//! disk.inject(Fault::at_kind(OpKind::Sync, 0).errno(Fault::EIO).drop_dirty());
//! assert!(file.sync().is_err());
//! # std::io::Result::Ok(())
//! ```
#![forbid(unsafe_code)]

pub mod acceptance;
pub mod caller;
pub mod calls;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod disk;
mod held;
mod in_memory;
#[cfg(feature = "layers")]
pub mod layers;
mod linear;
mod model;
#[cfg(all(feature = "postgres", unix))]
pub mod postgres;
mod random;

pub use clock::ManualClock;
pub use disk::{CrashMode, Fault, Op, OpKind, Ops, SimDisk, is_power_off};
pub use held::HeldDisk;
pub use in_memory::InMemory;
pub use linear::{Answer, Call, CallId, History, Violation};
pub use model::{Begun, Model, Refused};
pub use random::{Random, Seed, seeds};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
