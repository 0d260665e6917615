//! Whether this process is a child that was forked after the library was used.
//!
//! Only the forking thread lives on in a child: the engine's threads are gone, locks may be held for
//! ever, and closing an inherited store file would release the parent's lock on it. So the child
//! must not touch anything, which one flag makes sure of.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::boundary::failure::Failure;

static FORKED: AtomicBool = AtomicBool::new(false);
static WATCH: Once = Once::new();

pub(crate) fn forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Has children of this process know what they are. Called before anything is created that a child
/// could inherit; a process that forked before that is an ordinary one.
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
