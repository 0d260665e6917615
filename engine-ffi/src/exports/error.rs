//! Calls on an error.

use std::ffi::c_char;

use crate::abi::status::ONCEKEY_OK;
use crate::abi::types::Error;
use crate::boundary::entry::entry;
use crate::boundary::report::ERRORS;

/// The message of an error, for people. The text is valid until the error is freed. Never NULL; empty when
/// the error is not valid.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_error_message(error: Error) -> *const c_char {
    let mut message = c"".as_ptr();
    entry(None, || {
        // The text lives in the box, which does not move until the error is freed.
        message = ERRORS.with(error.id, |report| report.message.as_ptr())?;
        Ok(())
    });
    message
}

/// The status that came with an error; ONCEKEY_INVALID_HANDLE when the error is not valid.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_error_status(error: Error) -> i32 {
    let mut status = ONCEKEY_OK;
    let found = entry(None, || {
        status = ERRORS.with(error.id, |report| report.status)?;
        Ok(())
    });
    if found == ONCEKEY_OK { status } else { found }
}

/// Frees an error and its message. Freeing 0 has no effect.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_error_free(error: Error) -> i32 {
    entry(None, || ERRORS.remove(error.id).map(drop))
}
