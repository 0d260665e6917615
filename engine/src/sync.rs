//! Where the engine's locks, atomics, threads and clock reading come from, so that tests can put a
//! scheduler under them that tries many interleavings: loom with `--cfg oncekey_loom`, shuttle with
//! `--cfg oncekey_shuttle`. Otherwise these are other names for parking_lot, std and oneshot.
//!
//! Not taken from here: `Arc`, which decides nothing; the counters of `stats.rs`, likewise; and what
//! `store/backend.rs` uses, since redb calls it with locks of its own held, where no scheduler may
//! switch to another thread.

#[cfg(any(oncekey_loom, oncekey_shuttle))]
mod explored;
#[cfg(oncekey_shuttle)]
pub(crate) mod oneshot;

#[cfg(not(any(oncekey_loom, oncekey_shuttle)))]
mod system {
    pub(crate) use std::sync::atomic;
    pub(crate) use std::thread;
    pub(crate) use std::time::Instant;

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
}

#[cfg(not(oncekey_shuttle))]
pub(crate) use ::oneshot;
#[cfg(any(oncekey_loom, oncekey_shuttle))]
pub(crate) use explored::{Condvar, Instant, Mutex, MutexGuard, RwLock, atomic, thread};
#[cfg(not(any(oncekey_loom, oncekey_shuttle)))]
pub(crate) use system::{Condvar, Instant, Mutex, MutexGuard, RwLock, atomic, thread};
