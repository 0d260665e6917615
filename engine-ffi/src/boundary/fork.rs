//! Whether this process was forked from a process that had used the library.
//!
//! In a child only the forking thread exists: the engine's threads are gone, locks may be held for ever, and
//! closing an inherited store file would release the parent's lock on it. So the child must not touch
//! anything. One flag makes every call refuse.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::boundary::failure::Failure;

static FORKED: AtomicBool = AtomicBool::new(false);
static WATCH: Once = Once::new();

pub(crate) fn forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Makes later children of this process set the flag. Call this before anything is created that a child could
/// inherit. A process that forked earlier is an ordinary process.
pub(crate) fn watch() -> Result<(), Failure> {
    static WATCHING: AtomicBool = AtomicBool::new(false);
    WATCH.call_once(|| WATCHING.store(register(), Ordering::Relaxed));
    if WATCHING.load(Ordering::Relaxed) {
        Ok(())
    } else {
        Err(Failure::io("no memory to watch for forks"))
    }
}

#[cfg(unix)]
fn register() -> bool {
    unsafe extern "C" fn child() {
        FORKED.store(true, Ordering::Relaxed);
    }
    // SAFETY: the handler only stores into a static atomic, which is allowed in a forked child.
    unsafe { libc::pthread_atfork(None, None, Some(child)) == 0 }
}

#[cfg(not(unix))]
fn register() -> bool {
    true
}
