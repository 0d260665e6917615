//! Panics that are caught and become errors do not reach the panic hook of the host.
//!
//! A hook runs before anything can catch the panic, so there is no other way than a hook: it hands on
//! to the one that was there before, unless the thread is inside [`quietly`].

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::thread;

thread_local! {
    /// Whether the next panic of this thread is one that [`quietly`] catches.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Puts the hook in front of the one that is there, once in the life of the process.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    // Where a panic ends the process, it is printed. A panicking thread cannot change hooks: a later
    // open does.
    if cfg!(panic = "abort") || thread::panicking() {
        return;
    }
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // A second panic before the first is caught ends the process, which the host is told.
            let quiet = QUIET.try_with(|quiet| quiet.replace(false)).unwrap_or(false);
            if !quiet {
                before(panic);
            }
        }));
    });
}

/// Runs `work`, and gives its panic to the caller alone.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> thread::Result<T> {
    let outer = QUIET.try_with(|quiet| quiet.replace(true)).unwrap_or(false);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    let _ = QUIET.try_with(|quiet| quiet.set(outer));
    result
}
