//! Several processes with callers of their own on one PostgreSQL: the engine beside a statement for each row.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use oncekey_benches::Result;
use oncekey_benches::drive::{self, Callers, histogram};
use oncekey_benches::report::median;
use oncekey_benches::side::Pairs;
use oncekey_benches::usage::Usage;
use serde::{Deserialize, Serialize};

use crate::engines::oncekey::Oncekey;
use crate::modes::Turns;
use crate::results::Results;
use crate::rival::Rival;
use crate::servers::oncekey_postgres;
use crate::servers::postgres::{Database, Rows};
use crate::targets;
use crate::work::{Id, Ids, Work, mix};

/// The sides of a fleet.
pub const SIDES: [&str; 2] = ["postgres", "oncekey-postgres"];

/// One side with so many processes and callers.
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

/// What a process did in a slice: a line of its output.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    seconds: f64,
    cpu_us: f64,
    /// Latencies in nanoseconds, and how often each.
    latencies: Vec<(u64, u64)>,
    /// Its keys: a sequence, and how many of it.
    given: (u64, u64),
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

/// Throughput of a store with so many live keys beside that of an empty one, the share of heap-only updates,
/// and the plans.
///
/// # Errors
/// No server; a plan that scans.
pub fn keys(dir: &Path, keys: u64, callers: usize, turns: Turns, work: &Work) -> Result<()> {
    let database = Database::start(&dir.join("keys"), false)?;
    let open = |schema: &str| -> Result<_> {
        let options = oncekey_postgres::options(&database.url()).schema(schema);
        Ok(Callee {
            rival: Arc::new(Oncekey::over(options.open()?, work)),
            ids: Arc::new(Ids::new()),
        })
    };
    let (full, empty) = (open("oncekey")?, open("empty")?);
    fill(&database, keys)?;
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..turns.rounds {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let side = [&full, &empty][which];
            database.run("CHECKPOINT")?;
            rates[which].push(drive::slice(side, side.callers(callers), turns.slice)?.rate());
        }
    }
    let [full_slices, empty_slices] = rates;
    let [with, without] =
        [&full_slices, &empty_slices].map(|slices| median(slices).unwrap_or_default());
    println!("{keys} keys: {with:.0} pairs/s; empty: {without:.0}\n");
    std::thread::sleep(Duration::from_secs(2));
    let hot = "SELECT n_tup_hot_upd::float8 / greatest(n_tup_upd, 1) FROM pg_stat_user_tables WHERE schemaname = 'oncekey' AND relname = 'key'";
    print!(
        "{}",
        targets::table(&targets::keys(&full_slices, &empty_slices, database.run(hot)?.parse()?))
    );
    println!("sizes: {}", database.run("SELECT pg_size_pretty(pg_table_size('oncekey.key')) || ' key, ' || pg_size_pretty(pg_indexes_size('oncekey.key')) || ' its index'")?);
    plans(&database)
}

/// Completed records whose expiry is spread over a day.
fn fill(database: &Database, keys: u64) -> Result<()> {
    const CHUNK: u64 = 250_000;
    let mut left = keys;
    while left > 0 {
        let chunk = left.min(CHUNK);
        database.run(&format!(
            "WITH s AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now, bucket_ms, leaves FROM oncekey.store),
             n AS (SELECT nextval('oncekey.version') AS v, s.*, s.now + (random() * 86400000)::bigint AS until FROM s, generate_series(1, {chunk})),
             k AS (INSERT INTO oncekey.key (hash, version, token, owner, writer, op, started_at, ttl_ms, since, expires_at, attempt, state, leaf, identity, fingerprint)
                   SELECT gen_random_uuid(), v, v, 1, 1, v, now, 86400000, now, until, 1, 3,
                     CASE WHEN until / bucket_ms - now / bucket_ms BETWEEN 0 AND leaves - 3 THEN (until / bucket_ms % leaves)::smallint ELSE leaves END,
                     convert_to(lpad(v::text, 48, 'k'), 'UTF8'), convert_to(repeat('f', 100), 'UTF8')
                   FROM n RETURNING leaf, version, expires_at, hash)
             INSERT INTO oncekey.response (leaf, version, expires_at, hash, body)
             SELECT leaf, version, expires_at, hash, convert_to(repeat('r', 100), 'UTF8') FROM k"
        ))?;
        left -= chunk;
        eprintln!("{left} keys are left to fill in");
    }
    database.run("VACUUM ANALYZE oncekey.key")?;
    Ok(())
}

fn plans(database: &Database) -> Result<()> {
    let settings = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; SET plan_cache_mode = force_generic_plan";
    for (name, text, types) in ::oncekey_postgres::gated_statements("oncekey") {
        let nulls = vec!["NULL"; types.len()].join(", ");
        let types = types.join(", ");
        let plan = database.run(&format!(
            "{settings}; PREPARE \"{name}\" ({types}) AS {text}; EXPLAIN EXECUTE \"{name}\" ({nulls})"
        ))?;
        for bad in ["Seq Scan", "Hash Join", "Merge Join"] {
            if plan.contains(bad) {
                return Err(format!("{name}: {bad}\n{plan}").into());
            }
        }
        println!("{name}: no scan, no hash");
    }
    Ok(())
}

/// A rival and its keys, as callers drive it.
#[derive(Clone)]
struct Callee {
    rival: Arc<dyn Rival>,
    ids: Arc<Ids>,
}

impl Callee {
    fn callers(&self, count: usize) -> Callers {
        if count == 1 { Callers::Threads(1) } else { Callers::Tasks(count) }
    }
}

impl Pairs for Callee {
    async fn pair(&self) -> Result<()> {
        self.rival.pair(self.ids.fresh()).await
    }

    fn pair_blocking(&self) -> Result<()> {
        self.rival.pair_blocking(self.ids.fresh())
    }

    fn settle(&self) -> Result<()> {
        self.rival.settle()
    }
}

/// Replays of the keys of another process.
#[derive(Clone)]
struct Replayer {
    engine: Arc<Oncekey>,
    sequence: u64,
    given: u64,
}

thread_local! {
    static RANDOM: Cell<u64> = const { Cell::new(1) };
}

impl Pairs for Replayer {
    async fn pair(&self) -> Result<()> {
        let random = mix(RANDOM.get());
        RANDOM.set(random);
        self.engine.replay(Id::new(self.sequence, random % self.given)).await
    }

    fn pair_blocking(&self) -> Result<()> {
        futures_executor::block_on(self.pair())
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }
}

/// What [`measure`] starts: callers that do what standard input says, a slice a line.
///
/// # Errors
/// Those of the side.
pub fn process(side: &str, host: &str, callers: usize, response: usize) -> Result<()> {
    let (work, ids) = (Work::new(response), Arc::new(Ids::new()));
    let url = format!("host={host} user=postgres dbname=postgres");
    let engine = match side {
        "postgres" => None,
        _ => Some(Arc::new(oncekey_postgres::connect(&url, &work)?)),
    };
    let rival: Arc<dyn Rival> = match &engine {
        None => Arc::new(Rows::connect(host, &work, callers)?),
        Some(engine) => engine.clone(),
    };
    let callee = Callee { rival, ids };
    for line in std::io::stdin().lines() {
        let line = line?;
        let mut words = line.split(' ');
        let what = words.next().unwrap_or_default();
        let seconds: f64 = words.next().ok_or("no seconds")?.parse()?;
        let length = Duration::from_secs_f64(seconds);
        let usage = Usage::now()?;
        let slice = match (what, &engine) {
            ("replays", Some(engine)) => {
                let mut number = || words.next().unwrap_or_default().parse::<u64>();
                let (sequence, given) = (number()?, number()?);
                let replayer = Replayer { engine: engine.clone(), sequence, given };
                drive::slice(&replayer, callee.callers(callers), length)?
            }
            _ => drive::slice(&callee, callee.callers(callers), length)?,
        };
        let done = Done {
            seconds: slice.elapsed.as_secs_f64(),
            cpu_us: Usage::now()?.since(usage).cpu.as_secs_f64() * 1e6,
            latencies: slice
                .latencies
                .iter_recorded()
                .map(|it| (it.value_iterated_to(), it.count_at_value()))
                .collect(),
            given: callee.ids.given(),
        };
        println!("{}", serde_json::to_string(&done)?);
    }
    Ok(())
}
