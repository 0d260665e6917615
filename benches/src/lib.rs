//! What the programs measure with: callers, the raw limit of the disk, and the figures of a run.
//! Unpublished; the benches are in `benches/`, the programs in `src/bin/`.
#![forbid(unsafe_code)]

pub mod drive;
pub mod kill;
pub mod queue;
pub mod raw;
pub mod report;
pub mod side;
pub mod size;
pub mod usage;
pub mod workdir;

/// Whatever may go wrong in a measurement: it is printed, nothing else.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
