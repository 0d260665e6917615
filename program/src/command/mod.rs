//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::base::exit::exit_codes;
use crate::operate::{self, Output};

mod proxy;

pub(crate) use proxy::Proxy;

/// Idempotency keys for any HTTP server: a request sent twice runs once, and the second caller gets
/// the first response, across crashes and restarts.
#[derive(Parser)]
#[command(name = "oncekey", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) output: Output,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The command line, with the list of exit codes in its help.
    pub(crate) fn whole() -> clap::Command {
        Self::command().after_help(exit_codes())
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs in front of a server and gives its requests idempotency keys
    #[command(after_help = "Example: oncekey proxy --upstream http://127.0.0.1:3000")]
    Proxy(Box<Proxy>),
    /// Shows the contents and the activity of a store, in figures
    Stats(operate::Stats),
    /// Lists keys
    Ls(operate::Ls),
    /// Shows the state of a key
    Get(operate::Get),
    /// Lists keys whose outcome is unknown
    #[command(
        after_help = "To release all that are older than an hour:\n  oncekey orphans --json --older 1h |\n    jq -c '.orphans[]|{action:\"release\",scope,key,token,reason:\"never charged\"}' |\n    oncekey resolve --from -"
    )]
    Orphans(operate::Orphans),
    /// Records whether an operation with an unknown outcome happened
    Resolve(Box<operate::Resolve>),
    /// Copies a store, running or not, and verifies the copy
    Backup(operate::Backup),
    /// Makes a store from a backup
    Restore(operate::Restore),
    /// Reads a whole store and checks every checksum
    Verify(operate::Verify),
    /// Shows the number of records by the time of their expiry
    Expiry(operate::Expiry),
    /// Writes every record as a line of JSON
    Export(operate::Export),
    /// Checks the machine, the store and the configuration for problems
    Doctor(operate::Doctor),
    /// Draws the figures of a running server each second
    Top(operate::Top),
    /// Tells a running server to fold, sweep, reopen, reload or drain
    Ctl(operate::Ctl),
    /// Prints a link to the console of a running server
    Console(operate::Console),
    /// Ends with 0 when a server is healthy: for HEALTHCHECK
    Health(operate::Health),
    /// Prints completions for a shell
    Completions(operate::Completions),
    /// Prints the manual
    Man(operate::Man),
    /// Reads the configuration of a proxy and prints its mistakes
    #[command(after_help = "Example: oncekey check --config oncekey.toml --strict")]
    Check(Box<Check>),
}

/// The same as `oncekey proxy --check`.
#[derive(Args)]
pub(crate) struct Check {
    /// The file to check
    #[arg(long, value_name = "FILE", env = "ONCEKEY_CONFIG")]
    config: PathBuf,

    /// Ends with 2 when there is a warning
    #[arg(long)]
    strict: bool,

    /// Prints the configuration that is in force, as TOML
    #[arg(long)]
    print: bool,
}

impl Check {
    /// The arguments of the same check by `oncekey proxy --check`. Environment variables of the proxy count.
    pub(crate) fn as_proxy(&self) -> Proxy {
        let words = ["oncekey", "--check", "--config"].map(OsString::from).into_iter();
        let words = words.chain([self.config.clone().into_os_string()]);
        let strict = self.strict.then(|| "--strict".into());
        let print = self.print.then(|| "--print".into());
        let command = <Proxy as Args>::augment_args(clap::Command::new("oncekey"));
        let matches = command.get_matches_from(words.chain(strict).chain(print));
        // These words are always arguments of the same command.
        clap::FromArgMatches::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn the_command_line_is_well_formed() {
        Cli::whole().debug_assert();
    }
}
