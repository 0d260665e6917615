//! What a run measured and on what, as JSON.

use std::process::Command;

use oncekey_benches::Result;
use oncekey_benches::report::Figures;
use serde::{Deserialize, Serialize};

/// Everything that one run of the program measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Where it ran.
    pub machine: Machine,
    /// What was compared, each with its version.
    pub versions: Vec<(String, String)>,
    /// Bytes of each response.
    pub response: usize,
    /// Begin + complete pairs: one for each side and number of callers.
    #[serde(default)]
    pub pairs: Vec<Pairs>,
    /// Replays: one for each side, number of records and number of threads.
    #[serde(default)]
    pub replays: Vec<Replays>,
    /// Pairs of several processes on one server.
    #[serde(default)]
    pub fleets: Vec<crate::fleet::Fleet>,
    /// Requests over HTTP: one for each side, load and number of connections.
    #[serde(default)]
    pub http: Vec<crate::http::Http>,
    /// Sides that could not take part, and why.
    #[serde(default)]
    pub missing: Vec<(String, String)>,
}

/// The machine of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Processors that the program may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Version of the kernel.
    pub kernel: String,
    /// Filesystem of the stores.
    pub filesystem: String,
    /// When the run started, by the clock of the machine.
    pub started: String,
}

/// One side at one number of callers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pairs {
    /// What was measured.
    pub side: String,
    /// How many callers.
    pub callers: usize,
    /// The median over the slices.
    pub pairs_per_second: f64,
    /// Pairs per second of each slice, in order.
    pub slices: Vec<f64>,
    /// Half of all pairs took at most that long.
    pub p50_us: f64,
    /// 99 of 100 pairs took at most that long.
    pub p99_us: f64,
    /// 999 of 1000 pairs took at most that long.
    pub p999_us: f64,
    /// CPU time of the program, callers included, and of a server's processes.
    pub cpu_us_per_pair: f64,
    /// Bytes that reached the disk, by whomever.
    pub written_per_pair: f64,
}

impl Pairs {
    /// From the sums over the slices.
    pub fn new(side: &str, callers: usize, figures: Figures) -> Self {
        Self {
            side: side.to_owned(),
            callers,
            pairs_per_second: figures.pairs_per_second,
            slices: figures.slices,
            p50_us: figures.p50_us,
            p99_us: figures.p99_us,
            p999_us: figures.p999_us,
            cpu_us_per_pair: figures.cpu_us_per_pair,
            written_per_pair: figures.written_per_pair,
        }
    }
}

/// One side at one number of records and threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replays {
    /// What was measured.
    pub side: String,
    /// Completed records in the store.
    pub records: u64,
    /// Of these, how many were asked for.
    pub asked: u64,
    /// Threads that replayed.
    pub threads: usize,
    /// The median over the rounds.
    pub replays_per_second: f64,
    /// Replays per second of CPU time.
    pub replays_per_cpu_second: f64,
    /// Replays per second of each round.
    pub rounds: Vec<f64>,
    /// Seconds to store the records.
    pub load_seconds: f64,
}

impl Machine {
    /// This one; `store` is where the stores lie.
    pub fn here(store: &std::path::Path) -> Self {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let info = rustix::system::sysinfo();
        let uname = rustix::system::uname();
        Self {
            cpu: cpu.map_or_else(|| "unknown".to_owned(), |(_, model)| model.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: info.totalram as u64 * u64::from(info.mem_unit),
            kernel: uname.release().to_string_lossy().into_owned(),
            filesystem: said(
                Command::new("findmnt")
                    .args(["--noheadings", "--output=FSTYPE", "--target"])
                    .arg(store),
            ),
            started: said(Command::new("date").args(["--utc", "+%Y-%m-%d %H:%M UTC"])),
        }
    }
}

/// What a program printed, or that it did not.
fn said(command: &mut Command) -> String {
    match command.output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

/// Everything compared, with its version: crates as they are locked, servers as they say.
pub fn versions() -> Vec<(String, String)> {
    let lock = include_str!("../Cargo.lock");
    let crates = [
        "oncekey",
        "axum",
        "redis",
        "tokio-postgres",
        "fjall",
        "rocksdb",
        "librocksdb-sys",
        "rusqlite",
        "heed",
        "redb",
    ];
    let mut versions: Vec<_> = crates
        .iter()
        .filter_map(|name| {
            let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
            Some(((*name).to_owned(), rest.split_once('"')?.0.to_owned()))
        })
        .collect();
    #[cfg(feature = "engines")]
    versions.push(("SQLite".to_owned(), rusqlite::version().to_owned()));
    // "Redis server v=7.0.15 sha=..."
    let redis = said(Command::new("redis-server").arg("--version"));
    let version = redis.split_once("v=").and_then(|(_, rest)| rest.split_once(' '));
    let version = version.map_or("unknown", |(version, _)| version);
    versions.push(("Redis".to_owned(), version.to_owned()));
    if let Ok(programs) = crate::servers::postgres::programs() {
        let postgres = said(Command::new(programs.join("postgres")).arg("--version"));
        let version = postgres.trim_start_matches("postgres (PostgreSQL) ");
        versions.push(("PostgreSQL".to_owned(), version.to_owned()));
    }
    versions
}

impl Results {
    /// Reads files that were written by runs, and puts what they measured together.
    ///
    /// # Errors
    /// Not such files; files of different machines or versions.
    pub fn read(files: &[std::path::PathBuf]) -> Result<Self> {
        let mut sum: Option<Self> = None;
        for file in files {
            let more: Self = serde_json::from_slice(&std::fs::read(file)?)?;
            match &mut sum {
                None => sum = Some(more),
                Some(sum)
                    if sum.machine.cpu != more.machine.cpu || sum.versions != more.versions =>
                {
                    return Err("results of different machines or versions".into());
                }
                Some(sum) => {
                    sum.pairs.extend(more.pairs);
                    sum.replays.extend(more.replays);
                    sum.fleets.extend(more.fleets);
                    sum.http.extend(more.http);
                    sum.missing.extend(more.missing);
                }
            }
        }
        sum.ok_or_else(|| "no results".into())
    }
}
