//! The embedded store: one directory, held by one process.

pub(crate) mod backup;
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub))]
pub(crate) mod clock;
mod derived;
pub(crate) mod directory;
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub))]
pub mod disk;
pub(crate) mod durability;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(all(test, oncekey_loom))]
mod interleavings;
pub(crate) mod journal;
pub(crate) mod lifecycle;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod owner;
pub(crate) mod reader;
pub(crate) mod recovery;
pub(crate) mod session;
#[cfg(feature = "stepping")]
pub mod stepper;
pub(crate) mod store;
pub(crate) mod threads;
pub(crate) mod verify;
pub(crate) mod worker;
pub(crate) mod workers;
