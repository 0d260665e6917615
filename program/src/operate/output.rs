//! Prints results on standard output, and everything else on standard error.

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::show::{self, Time};
use crate::base::exit::{Exit, Failure};
use crate::base::say::say;

/// The form of results.
#[derive(Args, Clone, Debug)]
pub(crate) struct Output {
    /// Prints one JSON document, and errors as JSON on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Prints a list as JSON, one line for each member
    #[arg(long, global = true)]
    pub(crate) ndjson: bool,

    /// When to use colours; NO_COLOR and CLICOLOR_FORCE also count
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub(crate) color: Color,

    /// How times are written
    #[arg(long, global = true, value_enum, default_value = "local", value_name = "FORM")]
    pub(crate) time: Time,

    /// Prints no notes on standard error
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Prints on standard error which server or files are asked
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

impl Output {
    /// Whether errors are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json || self.ndjson
    }

    pub(crate) fn colored(&self) -> bool {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto if set("NO_COLOR") => false,
            Color::Auto => {
                io::stdout().is_terminal()
                    || std::env::var("CLICOLOR_FORCE").is_ok_and(|value| value != "0")
            }
        }
    }

    /// `text` in bold, if colours are on.
    fn bold(&self, text: &str) -> String {
        if self.colored() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// `text` in an ANSI colour, if colours are on.
    pub(crate) fn painted(&self, color: u8, text: &str) -> String {
        if self.colored() { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A moment in the chosen form; `-` for none.
    pub(crate) fn moment(&self, millis: Option<u64>) -> String {
        millis.map_or_else(|| "-".to_owned(), |millis| show::moment(self.time, millis))
    }

    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| written(&error))
    }

    /// One JSON document.
    pub(crate) fn document(&self, value: &Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    /// Prints the list `name` of `document`: as a document, as lines of JSON, or as a table.
    pub(crate) fn list(
        &self,
        document: &Value,
        name: &str,
        head: &[&str],
        row: impl Fn(&Value) -> Vec<String>,
    ) -> Result<(), Failure> {
        if self.json {
            return self.document(document);
        }
        let list = if name.is_empty() { document.as_array() } else { document[name].as_array() };
        let members = list.map(Vec::as_slice).unwrap_or_default();
        if self.ndjson {
            let lines: String = members.iter().map(|member| format!("{member}\n")).collect();
            return self.bytes(lines.as_bytes());
        }
        self.table(head, &members.iter().map(row).collect::<Vec<_>>())
    }

    /// Prints a table whose columns are as wide as their cells. Lines longer than the terminal are cut.
    pub(crate) fn table(&self, head: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let width = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            cells.chain([head[at].len()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..head.len()).map(width).collect();
        let line = |cells: &[String]| {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            show::cut(line.trim_end(), columns())
        };
        let head: Vec<_> = head.iter().map(|&name| name.to_owned()).collect();
        let mut text = format!("{}\n", self.bold(&line(&head)));
        rows.iter().for_each(|row| text.push_str(&format!("{}\n", line(row))));
        self.bytes(text.as_bytes())
    }

    /// A remark for people, on standard error.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    /// Whether there is a terminal to ask a question on.
    pub(crate) fn can_ask(&self) -> bool {
        !self.is_json() && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks for a line.
    pub(crate) fn ask(&self, question: &str) -> Result<String, Failure> {
        eprint!("{question} ");
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        match read.map_err(|error| Failure::failed(format!("standard input: {error}")))? {
            0 => Err(Failure::new(Exit::Interrupted, "no answer")),
            _ => Ok(line.trim().to_owned()),
        }
    }

    /// Asks for a confirmation. Without a terminal, `--yes` must have given it.
    pub(crate) fn confirm(&self, yes: bool, question: &str) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        if !self.can_ask() {
            return Err(Failure::usage("there is no terminal to ask on: give --yes"));
        }
        match self.ask(&format!("{question} [y/N]"))?.as_str() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::new(Exit::Interrupted, "left as it is")),
        }
    }
}

fn written(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::silent(None),
        _ => Failure::failed(format!("standard output: {error}")),
    }
}

/// The width of lines: `COLUMNS`, else the width of the terminal, else no limit.
pub(crate) fn columns() -> usize {
    let given = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col);
    let columns = given.or_else(|| terminal().map(usize::from));
    columns.filter(|columns| *columns > 0).unwrap_or(usize::MAX)
}
