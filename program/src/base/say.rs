//! Lines on standard error, where the reader may be gone: that ends no process.

use std::io::{self, Write};

/// Writes a line for people.
pub(crate) fn say(line: &str) {
    // Nobody is left to be told that nobody reads.
    let _ = writeln!(io::stderr(), "{line}");
}
