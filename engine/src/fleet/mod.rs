//! Many processes, one shared store: the part of a fleet that is the same for every [`store::Store`].
//!
//! For the crates of this repository only: nothing here is stable.

pub mod store;

mod asking;
mod backend;
mod clock;
mod completing;
mod deciding;
mod driver;
mod hearing;
mod image;
mod machine;
#[cfg(any(test, feature = "stepping"))]
pub mod memory;
mod options;
mod replays;
mod row;
mod settling;
#[cfg(test)]
mod shards;
#[cfg(test)]
mod simulation;
mod slot;
mod waiting;

pub use backend::open;
pub use completing::{Completing, failed};
pub use options::Options;
