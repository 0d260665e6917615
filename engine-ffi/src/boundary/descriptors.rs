//! The descriptor numbers of the standard streams.

use crate::boundary::failure::Failure;

/// Call this before a runtime opens sockets by itself: no socket may get a number that the program prints to.
pub(crate) fn fill_standard_streams() -> Result<(), Failure> {
    oncekey::fill_standard_streams().map_err(|error| {
        Failure::io(format!("a standard stream is closed, and there is no /dev/null: {error}"))
    })
}
