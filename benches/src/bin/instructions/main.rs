//! A gate that noise cannot fool: how many instructions the hot paths take under callgrind,
//! compared with what is committed in `benches/instructions.txt`.
//!
//! A path runs in a child process. The calling thread is counted while it is in the operations. The
//! engine's threads are counted in a second run, and in a third one without the operations; the
//! difference is what these cost, whatever threads and functions the engine has.

mod baseline;
mod callgrind;
mod layer;
mod paths;
mod stores;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use oncekey_benches::Result;
use oncekey_benches::workdir::WorkDir;

use crate::baseline::{Baseline, Count};
use crate::callgrind::{Counted, Thread};
use crate::paths::{PATHS, Path};
use crate::stores::Stores;

/// Counts the instructions of the hot paths under callgrind and compares them with the committed
/// baseline. Needs valgrind; does not mind a busy machine.
///
/// Exits with 1 when a path takes more than the tolerance above its baseline. When one takes less,
/// the table says so: lower the baseline with --bless, so that the gain is kept.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Write what is counted as the new baseline
    #[arg(long)]
    bless: bool,
    /// How far a count may be off, in percent
    #[arg(long, default_value_t = 5.0)]
    tolerance: f64,
    /// Count only the paths whose name holds this; not with --bless
    #[arg(long, value_name = "TEXT", conflicts_with = "bless")]
    only: Option<String>,
    /// The file with the baseline
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt"))]
    baseline: PathBuf,
    /// Where to put the stores, in a directory that is removed at the end [default: the directory
    /// that the program was built in]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Keep what callgrind wrote of each path in this directory, for callgrind_annotate
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Run one path on the store in --store: what callgrind is run on
    #[arg(long, value_name = "PATH", hide = true)]
    run: Option<String>,
    /// With --run: leave the operations out
    #[arg(long, hide = true)]
    without_operations: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match (&args.run, &args.store) {
        (Some(name), Some(store)) => {
            paths::run(name, store, !args.without_operations).map(|()| true)
        }
        _ => check(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How often a path that is dearer is counted again, on other stores: how a store lies on disk depends a
/// little on how its threads took turns. The least counts.
const AGAIN: usize = 2;

/// Counts and compares; whether nothing got dearer.
fn check(args: &Args) -> Result<bool> {
    let only = args.only.as_deref().unwrap_or("");
    let mut counts = count(args, |path| path.contains(only))?;
    if args.bless {
        Baseline::of(counts).write(&args.baseline)?;
        println!("written to {}", args.baseline.display());
        return Ok(true);
    }
    let baseline = Baseline::read(&args.baseline)?;
    let compare = |counts: &[Count]| baseline.compare(counts, args.tolerance, args.only.is_none());
    let mut comparison = compare(&counts);
    for _ in 0..AGAIN {
        let dearer: Vec<_> = comparison.dearer().map(str::to_owned).collect();
        if dearer.is_empty() {
            break;
        }
        for again in count(args, |path| dearer.iter().any(|name| name.starts_with(path)))? {
            if let Some(count) = counts.iter_mut().find(|count| count.name == again.name) {
                count.instructions = count.instructions.min(again.instructions);
            }
        }
        comparison = compare(&counts);
    }
    print!("{comparison}");
    Ok(comparison.passes())
}

fn count(args: &Args, wanted: impl Fn(&str) -> bool) -> Result<Vec<Count>> {
    let dir = WorkDir::create("instructions", args.store.as_deref())?;
    let stores = Stores::create(dir.path())?;
    let mut counts = Vec::new();
    for path in PATHS.iter().filter(|path| wanted(path.name)) {
        counts.extend(count_path(path, &stores, args)?);
    }
    Ok(counts)
}

fn count_path(path: &Path, stores: &Stores<'_>, args: &Args) -> Result<Vec<Count>> {
    let measure = |counted| -> Result<u64> {
        let store = stores.copy(path.store)?;
        let total = callgrind::run(path.name, &store, counted, args.keep.as_deref());
        std::fs::remove_dir_all(&store)?;
        total
    };
    let counts = path.threads.iter().map(|thread| {
        let spent = match thread {
            Thread::Caller => measure(Counted::Operations)?,
            Thread::Engine => {
                measure(Counted::Everything)?.saturating_sub(measure(Counted::Preparation)?)
            }
        };
        let name = format!("{}, {thread}", path.name);
        Ok(Count { name, instructions: spent / path.operations })
    });
    let counts: Vec<_> = counts.collect::<Result<_>>()?;
    for count in &counts {
        eprintln!("{:>8}  {}", count.instructions, count.name);
    }
    Ok(counts)
}
