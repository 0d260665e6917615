//! Failures as C holds them.

use std::ffi::CString;

use crate::abi::types::Error;
use crate::boundary::convert::Out;
use crate::boundary::failure::Failure;
use crate::boundary::handle_table::Table;

pub(crate) static ERRORS: Table<Box<Report>> = Table::new(6);

pub(crate) struct Report {
    pub(crate) status: i32,
    pub(crate) message: CString,
}

/// The failure as C holds it; no error when there is no room for one.
pub(crate) fn keep(failure: &Failure) -> Error {
    let mut message = failure.message();
    message.retain(|c| c != '\0');
    let message = CString::new(message).unwrap_or_default();
    let report = Box::new(Report { status: failure.status(), message });
    Error { id: ERRORS.insert(report).unwrap_or(0) }
}

pub(crate) fn report(failure: &Failure, error: &mut Out<'_, Error>) {
    if error.is_wanted() {
        error.set(keep(failure));
    }
}
