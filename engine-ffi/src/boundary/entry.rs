//! The common entry of all calls.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::status::{ONCEKEY_FORKED, ONCEKEY_OK, ONCEKEY_PANIC};
use crate::abi::types::Error;
use crate::boundary::convert::Out;
use crate::boundary::failure::Failure;
use crate::boundary::fork;
use crate::boundary::report;

/// Runs the work of a call. A forked child is refused, and no panic gets out.
///
/// Unwind safety is asserted: the values of a panicking call are dropped, a panic cannot leave a table
/// half-changed, and the engine contains the panics of its own threads.
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
            report::report(&failure, &mut error);
        }
        failure.status()
    }));
    ended.unwrap_or_else(|panic| {
        // The destructor of the panic might panic too. A value that it leaves is leaked.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(again);
        }
        ONCEKEY_PANIC
    })
}

/// Panics on demand, for the tests that show that no panic gets out.
#[cfg(feature = "inject-panic")]
pub(crate) mod inject {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static NEXT: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn panic_if_asked() {
        assert!(!NEXT.replace(false), "injected");
    }
}
