//! Several processes with callers of their own on one PostgreSQL: the engine beside a statement for each row, and
//! beside those rows written in groups, which is the limit.

mod callers;
mod keys;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use hdrhistogram::Histogram;
use oncekey_benches::Result;
use oncekey_benches::drive::histogram;
use oncekey_benches::report::median;
use serde::{Deserialize, Serialize};

use self::callers::Done;
pub use self::callers::process;
pub use self::keys::keys;
use crate::modes::Turns;
use crate::results::Results;
use crate::servers::postgres::{Database, Rows};

/// The sides of a fleet.
pub const SIDES: [&str; 3] = ["postgres", "postgres-groups", "oncekey-postgres"];

/// One side with its number of processes and of callers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fleet {
    /// What was measured.
    pub side: String,
    /// How many processes.
    pub processes: usize,
    /// Callers of each.
    pub callers: usize,
    /// Whether each commit waits for a standby on the same disk.
    pub standby: bool,
    /// Whether replays were measured, of keys of another process, and not pairs.
    pub replays: bool,
    /// The median over the slices, of all processes together.
    pub per_second: f64,
    /// Of each slice, in order.
    pub slices: Vec<f64>,
    /// Half of all took at most that long.
    pub p50_us: f64,
    /// 99 of 100 took at most that long.
    pub p99_us: f64,
    /// CPU time of all processes of the server, for each.
    pub server_cpu_us: f64,
    /// CPU time of all clients, for each.
    pub client_cpu_us: f64,
}

/// A process with callers.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(side: &str, host: &str, callers: usize, response: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["fleet-process", side, host, &callers.to_string(), &response.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let input = input.ok_or("a process without input")?;
        let output = BufReader::new(output.ok_or("a process without output")?);
        Ok(Self { child, input, output })
    }

    fn ask(&mut self, what: &str) -> Result<()> {
        Ok(writeln!(self.input, "{what}")?)
    }

    fn heard(&mut self) -> Result<Done> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(serde_json::from_str(&line).map_err(|error| format!("a process: {error}: {line}"))?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// All slices of one side.
struct Sum {
    rates: Vec<f64>,
    latencies: Histogram<u64>,
    server: Duration,
    client_us: f64,
}

impl Sum {
    fn new() -> Result<Self> {
        Ok(Self {
            rates: Vec::new(),
            latencies: histogram()?,
            server: Duration::ZERO,
            client_us: 0.0,
        })
    }

    /// One slice: all processes at once.
    fn slice(
        &mut self,
        database: &Database,
        processes: &mut [Process],
        what: &str,
    ) -> Result<Vec<Done>> {
        database.run("CHECKPOINT")?;
        let before = database.usage()?;
        for process in processes.iter_mut() {
            process.ask(what)?;
        }
        let done = processes.iter_mut().map(Process::heard).collect::<Result<Vec<_>>>()?;
        self.server += database.usage()?.since(before).cpu;
        let mut rate = 0.0;
        for done in &done {
            let number: u64 = done.latencies.iter().map(|(_, number)| number).sum();
            rate += number as f64 / done.seconds;
            self.client_us += done.cpu_us;
            for (latency, number) in &done.latencies {
                self.latencies.record_n(*latency, *number)?;
            }
        }
        self.rates.push(rate);
        Ok(done)
    }

    fn result(
        self,
        side: &str,
        processes: usize,
        callers: usize,
        plan: &Plan,
        replays: bool,
    ) -> Result<Fleet> {
        let number = self.latencies.len().max(1) as f64;
        let micros = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Fleet {
            side: side.to_owned(),
            processes,
            callers,
            standby: plan.standby,
            replays,
            per_second: median(&self.rates).ok_or("no round")?,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            server_cpu_us: self.server.as_secs_f64() * 1e6 / number,
            client_cpu_us: self.client_us / number,
            slices: self.rates,
        })
    }
}

/// What is measured.
pub struct Plan {
    /// Numbers of processes.
    pub processes: Vec<usize>,
    /// Numbers of callers of each.
    pub callers: Vec<usize>,
    /// Sides.
    pub sides: Vec<String>,
    /// With a synchronous standby.
    pub standby: bool,
}

/// Pairs of every side, slice by slice in turns, and replays of keys of another process.
///
/// # Errors
/// No server; those of any side.
pub fn measure(
    dir: &Path,
    plan: &Plan,
    turns: Turns,
    response: usize,
    results: &mut Results,
    save: &dyn Fn(&Results) -> Result<()>,
) -> Result<()> {
    for &processes in &plan.processes {
        for &callers in &plan.callers {
            let place = dir.join("fleet");
            let database = Database::start(&place, plan.standby)?;
            Rows::create(&database)?;
            let host = database.host();
            let start = |side: &String| {
                let start = |_| Process::start(side, &host, callers, response);
                (0..processes).map(start).collect::<Result<Vec<_>>>()
            };
            let mut sides = plan.sides.iter().map(start).collect::<Result<Vec<_>>>()?;
            let mut sums = plan.sides.iter().map(|_| Sum::new()).collect::<Result<Vec<_>>>()?;
            for side in &mut sides {
                Sum::new()?.slice(&database, side, "pairs 0.5")?;
            }
            let mut given = (0, 0);
            for round in 0..turns.rounds {
                for turn in 0..sides.len() {
                    let index = if round % 2 == 0 { turn } else { sides.len() - 1 - turn };
                    let what = format!("pairs {}", turns.slice.as_secs_f64());
                    let done = sums[index].slice(&database, &mut sides[index], &what)?;
                    if plan.sides[index] == "oncekey-postgres" {
                        given = done[0].given;
                    }
                    let rate = sums[index].rates.last().copied().unwrap_or_default();
                    let name = &plan.sides[index];
                    eprintln!("{processes} × {callers} callers, {name}: {rate:.0} pairs/s");
                }
            }
            for (side, sum) in plan.sides.iter().zip(sums) {
                results.fleets.push(sum.result(side, processes, callers, plan, false)?);
            }
            // Who asks is one process, whatever the number of those that completed the keys.
            if given.1 > 0 && plan.processes.first() == Some(&processes) {
                let mut reader = [Process::start("oncekey-postgres", &host, callers, response)?];
                let mut sum = Sum::new()?;
                for _ in 0..turns.rounds {
                    let what =
                        format!("replays {} {} {}", turns.slice.as_secs_f64(), given.0, given.1);
                    sum.slice(&database, &mut reader, &what)?;
                }
                results.fleets.push(sum.result("oncekey-postgres", 1, callers, plan, true)?);
            }
            drop((sides, database));
            std::fs::remove_dir_all(&place)?;
            save(results)?;
        }
    }
    Ok(())
}
