//! Lines on standard error. A missing reader does not end the process.

use std::io::{self, Write};

/// Writes a line for people.
pub(crate) fn say(line: &str) {
    // If standard error has no reader, no place is left for a message about it.
    let _ = writeln!(io::stderr(), "{line}");
}
