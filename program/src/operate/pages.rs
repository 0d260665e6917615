//! `oncekey completions` and `oncekey man`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use super::output::Output;
use crate::base::exit::Failure;

/// Prints a completion script: source <(oncekey completions bash)
#[derive(Args)]
pub(crate) struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, mut command: Command, output: &Output) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "oncekey", &mut script);
        output.bytes(&script)
    }
}

/// Prints the manual, or writes a page for each command into a directory
#[derive(Args)]
pub(crate) struct Man {
    #[arg(value_name = "DIR")]
    to: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(&self, command: Command, output: &Output) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::failed(format!("writing the manual: {error}"));
        let Some(to) = &self.to else {
            return output.bytes(&page(&command).map_err(failed)?);
        };
        let whole = command.disable_help_subcommand(true);
        std::fs::create_dir_all(to)
            .and_then(|()| clap_mangen::generate_to(whole, to))
            .and_then(|()| rewrite(to))
            .map_err(failed)
    }
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    Ok(escaped(&String::from_utf8_lossy(&page)).into_bytes())
}

fn rewrite(pages: &Path) -> io::Result<()> {
    for entry in fs::read_dir(pages)? {
        let path = entry?.path();
        let is_ours = path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("oncekey") && name.ends_with(".1")
        });
        if is_ours {
            fs::write(&path, escaped(&fs::read_to_string(&path)?))?;
        }
    }
    Ok(())
}

/// In ASCII, as roff reads it without a preprocessor.
fn escaped(page: &str) -> String {
    let escape = |character: char| match character.is_ascii() {
        true => character.to_string(),
        false => format!("\\[u{:04X}]", u32::from(character)),
    };
    page.chars().map(escape).collect()
}
