//! Failures on their way to C.

use std::borrow::Cow;
use std::error::Error as _;
use std::ffi::{CString, c_char};
use std::fmt::Write;

use crate::convert::Out;
use crate::entry::entry;
use crate::handle::Table;
use crate::status::{self, *};
use crate::types::Error;

static ERRORS: Table<Box<Report>> = Table::new(6);

struct Report {
    status: i32,
    message: CString,
}

/// Why a call fails. The message is only written when somebody takes it.
#[derive(Debug)]
pub(crate) enum Failure {
    Engine(oncekey::Error),
    Own(i32, Cow<'static, str>),
}

impl Failure {
    pub(crate) fn new(status: i32, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Own(status, message.into())
    }

    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ONCEKEY_INVALID_INPUT, message)
    }

    pub(crate) fn null(what: &str) -> Self {
        Self::invalid(format!("{what} is NULL"))
    }

    pub(crate) fn io(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ONCEKEY_IO, message)
    }

    pub(crate) fn too_many() -> Self {
        Self::new(ONCEKEY_OVERLOADED, "there are no more handles")
    }

    pub(crate) fn status(&self) -> i32 {
        match self {
            Self::Engine(error) => status::of(error.kind()),
            Self::Own(status, _) => *status,
        }
    }

    /// The message with its causes, each after a colon.
    fn message(&self) -> String {
        match self {
            Self::Own(_, message) => message.to_string(),
            Self::Engine(error) => {
                let mut message = error.to_string();
                let mut cause = error.source();
                while let Some(error) = cause {
                    // Writing into a String does not fail.
                    let _ = write!(message, ": {error}");
                    cause = error.source();
                }
                message
            }
        }
    }

    /// The failure as C holds it; no error when there is no room for one.
    pub(crate) fn to_handle(&self) -> Error {
        let mut message = self.message();
        message.retain(|c| c != '\0');
        let message = CString::new(message).unwrap_or_default();
        let report = Box::new(Report { status: self.status(), message });
        Error { id: ERRORS.insert(report).unwrap_or(0) }
    }

    pub(crate) fn report(&self, error: &mut Out<'_, Error>) {
        if error.is_wanted() {
            error.set(self.to_handle());
        }
    }
}

impl From<oncekey::Error> for Failure {
    fn from(error: oncekey::Error) -> Self {
        Self::Engine(error)
    }
}

/// What went wrong, for people: a text that is valid until the error is freed. Never NULL; empty when
/// the error is not valid.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_error_message(error: Error) -> *const c_char {
    let mut message = c"".as_ptr();
    entry(None, || {
        // The text lives in the box, which stays where it is until the error is freed.
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

/// Frees an error and its message. 0 is freed without effect.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_error_free(error: Error) -> i32 {
    entry(None, || ERRORS.remove(error.id).map(drop))
}
