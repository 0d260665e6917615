//! Failures behind the error handles of C.

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

/// Makes a message one line without NUL: its causes come from other libraries.
fn one_line(message: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    message.chars().map(|c| if breaks(c) { ' ' } else { c }).collect()
}

/// The error handle of a failure; 0 when there is no room for one.
pub(crate) fn keep(failure: &Failure) -> Error {
    let message = CString::new(one_line(&failure.message())).unwrap_or_default();
    let report = Box::new(Report { status: failure.status(), message });
    Error { id: ERRORS.insert(report).unwrap_or(0) }
}

pub(crate) fn report(failure: &Failure, error: &mut Out<'_, Error>) {
    if error.is_wanted() {
        error.set(keep(failure));
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_message_for_c_is_one_line_without_a_nul() {
        assert_eq!(one_line("a\nb\0c\u{1b}d\u{2028}e \u{e4}"), "a b c d e \u{e4}");
    }
}
