#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
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
