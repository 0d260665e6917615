//! `oncekey completions` and `oncekey man`.

use std::io;
use std::path::PathBuf;

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
            .map_err(failed)
    }
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}
