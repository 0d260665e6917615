//! The load program: durable begin + complete pairs of the engine against the raw limit of the
//! disk, in one run, slice by slice.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use oncekey::{Engine, Options};
use oncekey_benches::Result;
use oncekey_benches::drive::{self, Callers, Slice};
use oncekey_benches::kill;
use oncekey_benches::report::{Figures, Report, Run};
use oncekey_benches::side::{Keys, Pairs, Side};
use oncekey_benches::usage::is_in_memory;
use oncekey_benches::workdir::WorkDir;

/// Callers that fill a store before the measurement.
const FILLERS: usize = 512;
/// Times that the store is killed and opened again.
const KILLS: u32 = 3;

/// Measures durable begin + complete pairs per second, every pair on a fresh key, against the raw
/// limit: as many bytes appended by the simplest group commit there can be.
///
/// The sides take turns, slice by slice, so that a busy machine slows both; compare the ratios. The
/// engine's clock stops after everything was folded. CPU time and latencies are those of pairs as
/// the callers see them: one caller is a thread, more are tasks of one thread.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Numbers of callers to measure, one after the other
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    callers: Vec<usize>,
    /// Seconds for each side and number of callers
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds of one slice
    #[arg(long, default_value_t = 5)]
    slice: u64,
    /// Bytes of each response
    #[arg(long, default_value_t = 1024)]
    response: usize,
    /// One thread for each caller instead of tasks
    #[arg(long)]
    threads: bool,
    /// Where to put the stores, in a directory that is removed at the end [default: the directory
    /// that the program was built in]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Live keys to fill a store with first, which is measured as one more side
    #[arg(long, value_name = "KEYS", default_value_t = 0)]
    preload: u64,
    /// Bytes of each response that the preload records
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    preload_response: usize,
    /// Kill a process that loads the (preloaded) store with SIGKILL and measure how long the store
    /// takes to open
    #[arg(long)]
    reopen: bool,
    /// Leave the raw limit out, for a profiler
    #[arg(long)]
    without_raw: bool,
    /// Write the figures to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Load the store in this directory until killed: the child of --reopen
    #[arg(long, value_name = "DIR", hide = true)]
    load_until_killed: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.load_until_killed {
        Some(dir) => kill::load_until_killed(dir, args.response),
        None => run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let dir = WorkDir::create("load", args.store.as_deref())?;
    if is_in_memory(dir.path())? {
        eprintln!("warning: {} lies in memory: syncs cost nothing there", dir.path().display());
    }
    let keys = Keys::new();
    let full_dir = dir.path().join("full");
    let mut report = Report { response: args.response, preload: args.preload, ..Report::default() };
    if args.preload > 0 {
        preload(&full_dir, args, &keys)?;
    }
    for &callers in &args.callers {
        report.runs.push(measure(dir.path(), &full_dir, callers, args, &keys)?);
    }
    if args.reopen {
        report.reopen_ms = reopen(&full_dir, args)?;
    }
    println!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}

/// All sides at one number of callers, in turns.
fn measure(dir: &Path, full: &Path, count: usize, args: &Args, keys: &Keys) -> Result<Run> {
    let new = dir.join("new");
    let raw = dir.join("raw");
    let mut sides = Vec::new();
    if args.preload > 0 {
        sides.push(("full", Side::engine(open(full)?, args.response, keys)));
    }
    sides.push(("engine", Side::engine(open(&new)?, args.response, keys)));
    if !args.without_raw {
        sides.push(("raw", Side::raw(&raw, args.response)?));
    }
    let callers =
        if args.threads || count == 1 { Callers::Threads(count) } else { Callers::Tasks(count) };
    let slices = args.seconds.div_ceil(args.slice.max(1)).max(1);
    let length = Duration::from_secs_f64(args.seconds as f64 / slices as f64);

    for (_, side) in &sides {
        drive::slice(side, callers, Duration::from_millis(500))?;
        side.quiesce()?;
    }
    let mut measured: Vec<Vec<Slice>> = vec![Vec::new(); sides.len()];
    for round in 0..slices {
        for turn in 0..sides.len() {
            // Every other round in reverse, so that no side always follows the same one.
            let index = if round % 2 == 0 { turn } else { sides.len() - 1 - turn };
            let (name, side) = &sides[index];
            let slice = drive::slice(side, callers, length)?;
            side.quiesce()?;
            eprintln!(
                "{count} callers, {name}, slice {} of {slices}: {:.0} pairs/s",
                round + 1,
                slice.rate()
            );
            measured[index].push(slice);
        }
    }
    let figures = sides.iter().zip(&measured).map(|((name, _), slices)| Figures::new(name, slices));
    let run = Run { callers: count, sides: figures.collect::<Result<_>>()? };
    drop(sides);
    std::fs::remove_dir_all(&new)?;
    if !args.without_raw {
        std::fs::remove_file(&raw)?;
    }
    Ok(run)
}

/// With the default options, as a server would.
fn open(dir: &Path) -> Result<Engine> {
    Ok(Options::new().open(dir)?)
}

fn preload(dir: &Path, args: &Args, keys: &Keys) -> Result<()> {
    let side = Side::engine(open(dir)?, args.preload_response, keys);
    let start = Instant::now();
    let mut done = 0;
    while done < args.preload {
        let step = (args.preload - done).min(250_000);
        drive::pairs(&side, FILLERS, step)?;
        done += step;
        let rate = done as f64 / start.elapsed().as_secs_f64();
        eprintln!("preload: {done} of {} keys, {rate:.0} keys/s", args.preload);
    }
    side.settle()?;
    side.quiesce()
}

/// Milliseconds to open the store in `dir` after its process was killed under load.
fn reopen(dir: &Path, args: &Args) -> Result<Vec<f64>> {
    kill::open_times(dir, KILLS, || {
        let mut child = Command::new(std::env::current_exe()?);
        child.arg("--load-until-killed").arg(dir).arg(format!("--response={}", args.response));
        Ok(child)
    })
}
