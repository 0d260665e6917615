//! The tools of the measuring programs: callers, the raw limit of the disk, and the figures of a run.
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

/// Any error of a measurement. It is printed and not handled.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
