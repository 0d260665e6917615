//! Lines on standard error: of a command for people, and of the log. A missing reader does not end the process.

use std::io::{self, Write};

/// The target of the lines of the log that are about the process as a whole. The engine's lines have it, too.
pub(crate) const LOG: &str = "oncekey";

/// Writes a line for people. The proxy writes none once its log has begun.
pub(crate) fn say(line: &str) {
    // If standard error has no reader, no place is left for a message about it.
    let _ = writeln!(io::stderr(), "{line}");
}
