//! What every call goes through.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::convert::Out;
use crate::error::Failure;
use crate::fork;
use crate::status::{ONCEKEY_FORKED, ONCEKEY_OK, ONCEKEY_PANIC};
use crate::types::Error;

/// Runs the work of a call: not at all in a forked child, and no panic gets out.
///
/// Unwind safety is asserted: what a panicking call held is dropped, tables have no state that a
/// panic could leave half-changed, and the engine contains the panics of its own threads.
pub(crate) fn entry(
    error: Option<Out<'_, Error>>,
    work: impl FnOnce() -> Result<(), Failure>,
) -> i32 {
    if fork::forked() {
        return ONCEKEY_FORKED;
    }
    let ended = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(feature = "inject-panic")]
        inject::panic_if_asked();
        let Err(failure) = work() else { return ONCEKEY_OK };
        if let Some(mut error) = error {
            failure.report(&mut error);
        }
        failure.status()
    }));
    ended.unwrap_or_else(|panic| {
        // Its destructor might panic, too; what that leaves is leaked.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(again);
        }
        ONCEKEY_PANIC
    })
}

/// Panics on demand, for the tests that prove that none gets out.
#[cfg(feature = "inject-panic")]
pub(crate) mod inject {
    use std::cell::Cell;

    thread_local! {
        static NEXT: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn panic_if_asked() {
        assert!(!NEXT.replace(false), "injected");
    }

    /// Makes the next call of this thread panic. Only in builds with the feature `inject-panic`.
    #[unsafe(no_mangle)]
    pub extern "C" fn oncekey_test_panic_next() {
        NEXT.set(true);
    }
}
