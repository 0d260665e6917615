//! Where the engine's locks, atomics, threads and clock reading come from, so that tests can put a
//! scheduler under them that tries many interleavings: loom with `--cfg oncekey_loom`, shuttle with
//! `--cfg oncekey_shuttle`. Otherwise these are other names for parking_lot, arc_swap, std and oneshot.
//!
//! Not taken from here: `Arc`, which decides nothing; the counters of `stats.rs`, likewise; and what
//! `store/backend.rs` uses, since redb calls it with locks of its own held, where no scheduler may
//! switch to another thread.

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

        /// A thread of the engine begins: from here on [`is_current`] knows it.
        pub(crate) fn enter() {
            OWN.set(Some(std::thread::current().id()));
        }

        /// Whether this is the thread of the engine that is asked for. Unlike
        /// `std::thread::current`, it also answers where a thread's last destructors run.
        pub(crate) fn is_current(thread: &Thread) -> bool {
            OWN.try_with(Cell::get).is_ok_and(|own| own == Some(thread.id()))
        }
    }

    /// A place for a shared value that is read all the time and seldom replaced. Readers write to
    /// nothing that they share, so that they do not hold each other up.
    #[derive(Debug)]
    pub(crate) struct Swap<T>(arc_swap::ArcSwap<T>);

    impl<T> Swap<T> {
        pub(crate) fn new(value: Arc<T>) -> Self {
            Self(arc_swap::ArcSwap::new(value))
        }

        /// The value at this moment, for a while.
        pub(crate) fn load(&self) -> impl Deref<Target = Arc<T>> + use<T> {
            self.0.load()
        }

        /// Puts another value in its place and gives the old one.
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

/// A wait that clocks can count: one beyond a century lasts a century, which is for ever.
pub(crate) fn countable(wait: Duration) -> Duration {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    wait.min(CENTURY)
}
