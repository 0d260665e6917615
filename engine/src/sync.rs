//! Where the engine's locks, atomics and threads come from, so that tests can put a scheduler under
//! them that tries many interleavings.
//!
//! Not taken from here: `Arc`, which decides nothing; the counters of `stats.rs`, likewise; and what
//! `store/backend.rs` uses, since redb calls it with locks of its own held, where no scheduler may
//! switch to another thread.

pub(crate) use std::sync::atomic;
pub(crate) use std::thread;
pub(crate) use std::time::Instant;

pub(crate) use ::oneshot;
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
