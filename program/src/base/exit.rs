//! The exit codes, and the messages of a failed command.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use oncekey::{Error, ErrorKind};
use serde_json::json;

use super::say::{LOG, one_line, say};

/// The reason why the program did not finish its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed,
    Usage,
    Absent,
    Damaged,
    Held,
    Conflict,
    Forbidden,
    Interrupted,
}

/// The code of each exit, its name in JSON and its meaning.
const EXITS: [(Exit, u8, &str, &str); 8] = [
    (Exit::Failed, 1, "failed", "failed: input or output, the server, the engine"),
    (Exit::Usage, 2, "usage", "usage, configuration, or a question without a terminal"),
    (Exit::Absent, 3, "absent", "the key is absent (get), or there are orphans (--fail-if-any)"),
    (Exit::Damaged, 4, "damaged", "damage was found"),
    (Exit::Held, 5, "storeInUse", "the store is held, and its owner cannot be asked for this"),
    (Exit::Conflict, 6, "conflict", "fenced, completed already, or resolved by another"),
    (Exit::Forbidden, 7, "forbidden", "not allowed: token, role, read-only"),
    (Exit::Interrupted, 130, "interrupted", "interrupted"),
];

impl Exit {
    fn row(self) -> (Self, u8, &'static str, &'static str) {
        EXITS[self as usize]
    }

    pub(crate) fn code(self) -> u8 {
        self.row().1
    }

    /// The exit for an error of the engine.
    pub(crate) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidInput => Self::Usage,
            ErrorKind::Fenced | ErrorKind::AlreadyCompleted => Self::Conflict,
            ErrorKind::StoreInUse => Self::Held,
            ErrorKind::Corrupted | ErrorKind::StoreTruncated | ErrorKind::StoreEmpty => {
                Self::Damaged
            }
            _ => Self::Failed,
        }
    }

    /// The exit for an error of opening the store in `directory`. A file that is not the store's counts as
    /// damage to a store, unless the directory is none: it has no store file, or is a backup that was not
    /// finished.
    pub(crate) fn of_open(error: &Error, directory: &Path) -> Self {
        let has = |name| directory.join(name).exists();
        match error.kind() {
            ErrorKind::StoreForeign if has(STORE_FILE) && !has(UNFINISHED) => Self::Damaged,
            _ => Self::of(error),
        }
    }
}

/// The name of the file that makes a directory a store.
pub(crate) const STORE_FILE: &str = "store.redb";

/// The mark of a backup that is not complete.
pub(crate) const UNFINISHED: &str = "backup.unfinished";

/// The list of exit codes, for the help and the manual.
pub(crate) fn exit_codes() -> String {
    let mut text = "Exit codes:\n    0  done".to_owned();
    for (_, code, _, meaning) in EXITS {
        // Writing into a String cannot fail.
        let _ = write!(text, "\n  {code:>3}  {meaning}");
    }
    text
}

/// The lines for the operator, and the exit.
#[derive(Debug)]
pub(crate) struct Failure {
    /// `None`: the reader of the output is gone, which does not count as a failure.
    pub(crate) exit: Option<Exit>,
    pub(crate) lines: Vec<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit: Some(exit), lines: vec![format!("oncekey: {}", line.into())] }
    }

    /// Ends with a code and without a message.
    pub(crate) fn silent(exit: Option<Exit>) -> Self {
        Self { exit, lines: Vec::new() }
    }

    /// Adds the way out of damage, if the exit is that of damage.
    pub(crate) fn with_remedy(self) -> Self {
        match self.exit {
            Some(Exit::Damaged) => self.hint(
                "keep the store as it is, and restore a backup into a new directory: oncekey restore \
                 BACKUP STORE",
            ),
            _ => self,
        }
    }

    /// Adds a line for people.
    pub(crate) fn hint(mut self, line: impl Into<String>) -> Self {
        self.lines.push(format!("  {}", line.into()));
        self
    }

    /// The exit for a failure of input, output, or the engine.
    pub(crate) fn failed(line: impl Into<String>) -> Self {
        Self::new(Exit::Failed, line)
    }

    /// The exit for a wrong command line or configuration.
    pub(crate) fn usage(line: impl Into<String>) -> Self {
        Self::new(Exit::Usage, line)
    }

    /// The exit for a wrong configuration, with a line for each mistake.
    pub(crate) fn config(lines: Vec<String>) -> Self {
        Self { exit: Some(Exit::Usage), lines }
    }

    /// The exit for a store that another process holds.
    pub(crate) fn held(line: impl Into<String>) -> Self {
        Self::new(Exit::Held, line)
    }

    /// The lines as one, without the name of the program.
    pub(crate) fn message(&self) -> String {
        let message = self.lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        message.trim_start_matches("oncekey: ").to_owned()
    }

    /// Writes the lines into the log, as one. The exit is left.
    pub(crate) fn log(self) -> Self {
        tracing::error!(target: LOG, "{}", one_line(&self.message()));
        Self::silent(self.exit)
    }

    /// Prints the lines, in JSON on request, and returns the exit code.
    pub(crate) fn report(self, as_json: bool) -> ExitCode {
        let Some(exit) = self.exit else { return ExitCode::SUCCESS };
        let (_, code, kind, _) = exit.row();
        if as_json && !self.lines.is_empty() {
            let message = self.message();
            say(&json!({"error": {"kind": kind, "message": message, "exit": code}}).to_string());
        } else {
            self.lines.iter().for_each(|line| say(line));
        }
        code.into()
    }
}

/// The error at the bottom of an error: the words above it may be for another reader.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_has_its_row() {
        for (at, (exit, code, kind, _)) in EXITS.into_iter().enumerate() {
            assert_eq!(exit as usize, at);
            assert!(exit.code() == code && !kind.is_empty() && code != 0);
            assert!(exit_codes().contains(&format!("{code}  ")));
        }
    }
}
