//! The engine with many keys and over time.

mod backup;
mod keys;
mod latency;
mod open;
mod orphans;
mod turns;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use oncekey_benches::side::{Pairs, Side};
use oncekey_benches::usage::is_in_memory;
use oncekey_benches::workdir::WorkDir;
use oncekey_benches::{Result, drive, kill};
use serde::Serialize;

/// Callers that fill a store.
const FILLERS: usize = 512;

/// Measures the engine at scale. Every command prints its figures as JSON, and its progress to
/// standard error. Stores go into a directory that is removed at the end.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Where to put the stores [default: the directory that the program was built in]
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Write the figures to this file too
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Many live keys: pairs/s against an empty store, memory, space, open after kill -9
    Keys(keys::Args),
    /// Turns of fill and expire: whether the directory grows
    Turns(turns::Args),
    /// Latency over time while folds, a backup and a sweep go on, and that of the raw limit
    Latency(latency::Args),
    /// Pairs/s and latency beside a backup, against those without
    Backup(backup::Args),
    /// A new store: time and bytes of opening, pairs/s beside one whose first segments are large
    Open(open::Args),
    /// Many orphans with checkpoints: time and memory of opening and listing
    Orphans(orphans::Args),
    /// Load a store until killed: the child of `keys`
    #[command(hide = true)]
    LoadUntilKilled {
        dir: PathBuf,
        #[arg(long)]
        response: usize,
    },
    /// Print the memory that an open store takes, and its records: another child of `keys`
    #[command(hide = true)]
    OpenAndMeasure { dir: PathBuf },
    /// Open a store and list its orphans: the child of `orphans`
    #[command(hide = true)]
    OpenOrphans { dir: PathBuf },
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::LoadUntilKilled { dir, response } => {
            return kill::load_until_killed(dir, *response);
        }
        Command::OpenAndMeasure { dir } => return keys::open_and_measure(dir),
        Command::OpenOrphans { dir } => return orphans::open_and_list(dir),
        _ => {}
    }
    let dir = WorkDir::create("scale", args.store.as_deref())?;
    if is_in_memory(dir.path())? {
        eprintln!("warning: {} lies in memory: syncs cost nothing there", dir.path().display());
    }
    match &args.command {
        Command::Keys(keys) => write(args, &keys::run(dir.path(), keys)?),
        Command::Turns(turns) => write(args, &turns::run(dir.path(), turns)?),
        Command::Latency(latency) => write(args, &latency::run(dir.path(), latency)?),
        Command::Backup(backup) => write(args, &backup::run(dir.path(), backup)?),
        Command::Open(open) => write(args, &open::run(dir.path(), open)?),
        Command::Orphans(orphans) => write(args, &orphans::run(dir.path(), orphans)?),
        Command::LoadUntilKilled { .. }
        | Command::OpenAndMeasure { .. }
        | Command::OpenOrphans { .. } => Ok(()),
    }
}

fn write(args: &Args, report: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    println!("{text}");
    if let Some(path) = &args.json {
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// Completes `pairs` fresh keys, and says how far it is.
fn fill(side: &Side, pairs: u64) -> Result<()> {
    let start = Instant::now();
    let mut done = 0;
    while done < pairs {
        let step = (pairs - done).min(250_000);
        drive::pairs(side, FILLERS, step)?;
        done += step;
        let rate = done as f64 / start.elapsed().as_secs_f64();
        eprintln!("fill: {done} of {pairs} keys, {rate:.0} keys/s");
    }
    side.settle()
}
