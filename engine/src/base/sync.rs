//! The source of the engine's locks, atomics, threads and clock readings, so that tests can put a
//! scheduler under them that tries many interleavings: loom with `--cfg oncekey_loom`, shuttle with
//! `--cfg oncekey_shuttle`. Otherwise these are other names for parking_lot, arc_swap, std and
//! oneshot.
//!
//! Some code does not take its primitives from here: `Arc` and the atomics of counters and limits,
//! which order nothing; and the folder `embedded/store/redb`, because redb calls it with locks of
//! its own held, where no scheduler may switch to another thread.

use std::time::Duration;

#[cfg(any(oncekey_loom, oncekey_shuttle))]
mod explored;
#[cfg(oncekey_shuttle)]
pub(crate) mod oneshot;

#[cfg(not(any(oncekey_loom, oncekey_shuttle)))]
mod system {
    use std::ops::Deref;
    use std::sync::Arc;

    pub(crate) use std::sync::atomic;
    pub(crate) use std::time::Instant;

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

    pub(crate) mod thread {
        use std::cell::Cell;
        use std::thread::{Thread, ThreadId};

        pub(crate) use std::thread::{Builder, JoinHandle};

        thread_local! {
            static OWN: Cell<Option<ThreadId>> = const { Cell::new(None) };
        }

        /// Called first by a thread of the engine, so that [`is_current`] recognizes the thread.
        pub(crate) fn enter() {
            OWN.set(Some(std::thread::current().id()));
        }

        /// Whether `thread`, a thread of the engine, is the current one. Unlike
        /// `std::thread::current`, this also works in the last destructors of a thread.
        pub(crate) fn is_current(thread: &Thread) -> bool {
            OWN.try_with(Cell::get).is_ok_and(|own| own == Some(thread.id()))
        }
    }

    /// A shared value that is read constantly and seldom replaced. Readers write to no shared
    /// memory, so they do not slow each other down.
    #[derive(Debug)]
    pub(crate) struct Swap<T>(arc_swap::ArcSwap<T>);

    impl<T> Swap<T> {
        pub(crate) fn new(value: Arc<T>) -> Self {
            Self(arc_swap::ArcSwap::new(value))
        }

        /// The current value. Keep the result only briefly.
        pub(crate) fn load(&self) -> impl Deref<Target = Arc<T>> + use<T> {
            self.0.load()
        }

        /// Puts another value in place and returns the old one.
        pub(crate) fn swap(&self, value: Arc<T>) -> Arc<T> {
            self.0.swap(value)
        }
    }
}

#[cfg(not(oncekey_shuttle))]
pub(crate) use ::oneshot;
#[cfg(any(oncekey_loom, oncekey_shuttle))]
pub(crate) use explored::{Condvar, Instant, Mutex, MutexGuard, Swap, atomic, thread};
#[cfg(not(any(oncekey_loom, oncekey_shuttle)))]
pub(crate) use system::{Condvar, Instant, Mutex, MutexGuard, Swap, atomic, thread};

/// The instant `wait` from now.
pub(crate) fn after(wait: Duration) -> Instant {
    Instant::now() + countable(wait)
}

/// Every clock can count a century ahead. A longer wait need not end.
pub(crate) const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// `wait`, but at most a century.
pub(crate) fn countable(wait: Duration) -> Duration {
    wait.min(CENTURY)
}
