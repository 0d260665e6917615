//! Panics that are caught and become errors do not reach the panic hook of the host.
//!
//! A hook runs before anything can catch the panic, so only a hook can keep it quiet. The hook here
//! calls the previous one, unless the thread is inside [`quietly`].

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::thread;

thread_local! {
    /// Whether the next panic of this thread is one that [`quietly`] catches.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Puts the hook in front of the present one, once in the life of the process.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    // A panic that ends the process must be printed. A panicking thread cannot change hooks, so a
    // later open installs this one.
    if cfg!(panic = "abort") || thread::panicking() {
        return;
    }
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // A second panic before the first is caught ends the process, so the host must see it.
            let quiet = QUIET.try_with(|quiet| quiet.replace(false)).unwrap_or(false);
            if !quiet {
                before(panic);
            }
        }));
    });
}

/// Runs `work`. Only the caller learns of its panic.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> thread::Result<T> {
    let outer = QUIET.try_with(|quiet| quiet.replace(true)).unwrap_or(false);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    let _ = QUIET.try_with(|quiet| quiet.set(outer));
    result
}
