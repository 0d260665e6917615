//! Panics on demand, for the tests that show that no panic gets out.

use crate::boundary::entry::inject::NEXT;

/// Makes the next call of this thread panic. Only in builds with the feature `inject-panic`.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_test_panic_next() {
    NEXT.set(true);
}
