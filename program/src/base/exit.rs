//! How the program ends.

use std::process::ExitCode;

/// What is said, and the exit code: docs/proxy.md lists them.
pub(crate) struct Failure {
    code: u8,
    pub(crate) lines: Vec<String>,
}

impl Failure {
    fn new(code: u8, line: String) -> Self {
        Self { code, lines: vec![format!("oncekey: {line}")] }
    }

    /// Input, output, or the engine failed.
    pub(crate) fn failed(line: String) -> Self {
        Self::new(1, line)
    }

    /// The command line or the configuration is wrong.
    pub(crate) fn usage(line: String) -> Self {
        Self::new(2, line)
    }

    /// The configuration is wrong, in these places.
    pub(crate) fn config(lines: Vec<String>) -> Self {
        Self { code: 2, lines }
    }

    /// Another process holds the store.
    pub(crate) fn held(line: String) -> Self {
        Self::new(5, line)
    }

    /// Says it, and ends with its code.
    pub(crate) fn report(self) -> ExitCode {
        self.lines.iter().for_each(|line| eprintln!("{line}"));
        self.code.into()
    }
}
