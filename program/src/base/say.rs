//! Lines on standard error: of a command for people, and of the log. A missing reader does not end the process.

use std::io::{self, Write};

/// The target of the lines of the log that are about the process as a whole. The engine's lines have it, too.
pub(crate) const LOG: &str = "oncekey";

/// Writes a line for people. The proxy writes none once its log has begun.
pub(crate) fn say(line: &str) {
    // If standard error has no reader, no place is left for a message about it.
    let _ = writeln!(io::stderr(), "{}", one_line(line));
}

/// A text with its line breaks and control characters escaped: paths and foreign messages contain
/// them, and a terminal obeys them.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        let nasty = "a\nb\r\u{1b}[31mc\u{2028}d \u{e4}";
        assert_eq!(one_line(nasty), "a\\nb\\r\\u{1b}[31mc\\u{2028}d \u{e4}");
    }
}
