//! oncekey beside other engines and servers: the same work, the same durability, in one run.

mod disk;
mod engines;
mod fleet;
mod grouped;
mod http;
mod modes;
mod page;
mod plot;
mod results;
mod rival;
mod scale;
mod servers;
mod sides;
mod tables;
mod targets;
mod work;
mod workdir;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use oncekey_benches::Result;
use oncekey_benches::usage::is_in_memory;

use crate::modes::Turns;
use crate::results::{Machine, Results};
use crate::work::Work;

/// Compares oncekey with other engines and servers.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Durable begin + complete pairs, each on a fresh random key
    Pairs {
        /// Sides to compare [default: all]
        #[arg(long, value_delimiter = ',')]
        sides: Vec<String>,
        /// Numbers of callers to measure, one after the other
        #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
        callers: Vec<usize>,
        #[command(flatten)]
        common: Common,
    },
    /// Replays of completed records, uniformly random, once by 1 and once by 2 threads
    Replays {
        /// Sides to compare [default: all that can]
        #[arg(long, value_delimiter = ',')]
        sides: Vec<String>,
        /// Completed records in each store
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
        /// Records of the hot set, which oncekey is asked for too
        #[arg(long, default_value_t = 10_000)]
        hot: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Checks that every key that an embedded side answered is in its store after it was reopened
    Check {
        /// Callers of each side
        #[arg(long, default_value_t = 4)]
        callers: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Several processes on one PostgreSQL: the engine beside a statement for each row, and beside those rows in groups
    Fleet {
        /// Sides to compare [default: all]
        #[arg(long, value_delimiter = ',')]
        sides: Vec<String>,
        /// Numbers of processes to measure, one after the other
        #[arg(long, value_delimiter = ',', default_value = "1,4")]
        processes: Vec<usize>,
        /// Numbers of callers of each process
        #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
        callers: Vec<usize>,
        /// Each commit waits for a standby, on the same disk
        #[arg(long)]
        standby: bool,
        #[command(flatten)]
        common: Common,
    },
    /// The engine on a PostgreSQL with many live keys beside an empty store; heap-only updates; plans
    FleetKeys {
        /// Completed records that expire within a day
        #[arg(long, default_value_t = 10_000_000)]
        keys: u64,
        /// Callers
        #[arg(long, default_value_t = 64)]
        callers: usize,
        #[command(flatten)]
        common: Common,
    },
    /// A process of `fleet`, which starts it
    #[command(hide = true)]
    FleetProcess { side: String, host: String, callers: usize, response: usize },
    /// One handler of axum behind nothing, the layer, and the recipes with Redis and PostgreSQL: requests/s, latency, CPU
    Http {
        /// Sides to compare [default: all]
        #[arg(long, value_delimiter = ',')]
        sides: Vec<String>,
        /// Numbers of connections to measure, one after the other
        #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
        connections: Vec<usize>,
        #[command(flatten)]
        common: Common,
    },
    /// A server of `http`, which starts it
    #[command(hide = true)]
    Serve { side: String, store: String, address: PathBuf, response: usize },
    /// Prints results as tables in Markdown
    Report {
        /// What runs wrote with --json
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Draws results as SVG files
    Plot {
        /// What runs wrote with --json
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where the drawings go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Writes the first part of docs/benchmarks.md anew, with its drawings, from what `http` measured
    Page {
        /// What a whole run of `http` wrote with --json
        file: PathBuf,
        /// The directory with benchmarks.md
        #[arg(long, value_name = "DIR")]
        docs: PathBuf,
    },
    /// Draws latency over time, and throughput and opening time by live keys, as SVG files
    PlotScale {
        /// What `scale latency` and `scale keys` wrote with --json
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where the drawings go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// Seconds for each side in all, over all rounds
    #[arg(long, conflicts_with = "slice")]
    seconds: Option<f64>,
    /// Seconds of one slice
    #[arg(long, default_value_t = 5.0)]
    slice: f64,
    /// Rounds: in each, every side has one slice
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Bytes of each response
    #[arg(long, default_value_t = 1024)]
    response: usize,
    /// Where to put the stores, in a directory that is removed at the end [default: the directory
    /// that the program was built in]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Write the results to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Common {
    fn turns(&self) -> Turns {
        let rounds = self.rounds.max(1);
        let slice = self.seconds.map_or(self.slice, |seconds| seconds / rounds as f64);
        Turns { rounds, slice: Duration::from_secs_f64(slice.max(0.01)) }
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    match run(Cli::parse().mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: Mode) -> Result<()> {
    match mode {
        Mode::Pairs { sides, callers, common } => measure(&common, |dir, work, results, save| {
            let names = or_all(&sides, &sides::all())?;
            for &count in &callers {
                modes::pairs(dir, &names, count, common.turns(), work, results)?;
                save(results)?;
            }
            Ok(())
        }),
        Mode::Replays { sides, records, hot, common } => {
            measure(&common, |dir, work, results, save| {
                for name in or_all(&sides, &sides::READERS)? {
                    modes::replays(dir, &name, records, hot, common.turns(), work, results)?;
                    save(results)?;
                }
                Ok(())
            })
        }
        Mode::Check { callers, common } => {
            let dir = workdir::create(common.store.as_deref())?;
            modes::check(dir.path(), callers, common.turns(), &Work::new(common.response))
        }
        Mode::Fleet { sides, processes, callers, standby, common } => {
            let sides = or_all(&sides, &fleet::SIDES)?;
            let plan = fleet::Plan { processes, callers, sides, standby };
            measure(&common, |dir, _, results, save| {
                fleet::measure(dir, &plan, common.turns(), common.response, results, save)
            })
        }
        Mode::FleetKeys { keys, callers, common } => {
            let dir = workdir::create(common.store.as_deref())?;
            fleet::keys(dir.path(), keys, callers, common.turns(), &Work::new(common.response))
        }
        Mode::FleetProcess { side, host, callers, response } => {
            fleet::process(&side, &host, callers, response)
        }
        Mode::Http { sides, connections, common } => {
            let sides = or_all(&sides, &http::SIDES)?;
            measure(&common, |dir, work, results, save| {
                let (turns, response) = (common.turns(), work.response().len());
                http::measure(dir, &sides, &connections, turns, response, results, save)
            })
        }
        Mode::Serve { side, store, address, response } => {
            http::server::serve(&side, &store, &address, response)
        }
        Mode::Report { files } => {
            print!("{}", tables::markdown(&Results::read(&files)?));
            Ok(())
        }
        Mode::Plot { files, out } => plot::results(&Results::read(&files)?, &out),
        Mode::Page { file, docs } => page::write(&Results::read(&[file])?, &docs),
        Mode::PlotScale { files, out } => scale::plot(&files, &out),
    }
}

/// Saves what was measured so far.
type Save<'a> = &'a dyn Fn(&Results) -> Result<()>;

/// Sets a run up, lets `measurement` fill the results in, and prints them.
fn measure(
    common: &Common,
    measurement: impl FnOnce(&Path, &Work, &mut Results, Save<'_>) -> Result<()>,
) -> Result<()> {
    let dir = workdir::create(common.store.as_deref())?;
    if is_in_memory(dir.path())? {
        eprintln!("warning: {} lies in memory: syncs cost nothing there", dir.path().display());
    }
    let mut results = Results {
        machine: Machine::here(dir.path()),
        versions: results::versions(),
        response: common.response,
        ..Results::default()
    };
    let save = |results: &Results| match &common.json {
        Some(path) => Ok(std::fs::write(path, serde_json::to_vec_pretty(results)?)?),
        None => Ok(()),
    };
    measurement(dir.path(), &Work::new(common.response), &mut results, &save)?;
    print!("{}", tables::markdown(&results));
    Ok(())
}

/// The sides asked for, all of them if none was.
fn or_all(asked: &[String], all: &[&str]) -> Result<Vec<String>> {
    if let Some(unknown) = asked.iter().find(|name| !all.contains(&name.as_str())) {
        return Err(format!("no side here is called {unknown}: {}", all.join(", ")).into());
    }
    let chosen = |name: &&&str| asked.is_empty() || asked.iter().any(|asked| asked == **name);
    Ok(all.iter().filter(chosen).map(|name| (*name).to_owned()).collect())
}
