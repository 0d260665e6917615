//! End to end: one handler of axum that answers JSON, behind nothing, behind the layer, and behind the recipes that
//! services use without it. Server, store and client are processes of their own on one machine.

mod client;
mod order;
mod recipes;
pub mod server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use oncekey_benches::Result;
use oncekey_benches::drive::histogram;
use oncekey_benches::report::median;
use oncekey_benches::usage::Usage;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use self::client::{Client, Keys, Until};
use crate::modes::Turns;
use crate::results::Results;
use crate::servers::postgres::{Database, Rows};
use crate::servers::redis::Redis;
use crate::servers::{Server, this_user};
use crate::work::{Id, Ids, Work};

/// The sides: the handler alone (and on mimalloc), behind the raw limit, behind the layer on each store, behind
/// the recipes.
pub const SIDES: [&str; 8] = [
    "bare",
    "bare-mimalloc",
    "raw",
    "oncekey",
    "oncekey-mimalloc",
    "oncekey-postgres",
    "redis",
    "postgres",
];

/// How an answer says that it was recorded before.
const REPLAYED: &str = "idempotent-replayed: true";
/// Keys that are asked for again and again.
const HOT: usize = 500;
/// Before anything is measured.
const WARM_UP: Duration = Duration::from_millis(300);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// Requests without a key.
    NoKey,
    /// Each request with a new key.
    New,
    /// Requests that were answered before, with one of 500 keys.
    Replay,
}

impl Load {
    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoKey => "no key",
            Self::New => "new keys",
            Self::Replay => "hot replays",
        }
    }

    /// What a side is measured with. How the recipes pass requests without a key says nothing of them.
    fn of(side: &str) -> &'static [Self] {
        match side {
            "bare" | "bare-mimalloc" => &[Self::NoKey],
            "raw" => &[Self::New],
            "oncekey" | "oncekey-mimalloc" => &[Self::NoKey, Self::New, Self::Replay],
            _ => &[Self::New, Self::Replay],
        }
    }
}

/// One side under one load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Http {
    /// What was measured.
    pub side: String,
    /// What was sent.
    pub load: Load,
    /// Connections, each with one request under way.
    pub connections: usize,
    /// The median over the slices.
    pub requests_per_second: f64,
    /// Of each slice, in order.
    pub slices: Vec<f64>,
    /// Half of all took at most that long.
    pub p50_us: f64,
    /// 99 of 100 took at most that long.
    pub p99_us: f64,
    /// 999 of 1000 took at most that long.
    pub p999_us: f64,
    /// CPU time of the server for a request, the median over the slices. An embedded store is part of it.
    pub server_cpu_us: f64,
    /// Of each slice, in order.
    pub server_cpu_slices: Vec<f64>,
    /// CPU time of Redis or PostgreSQL for a request, the median over the slices.
    pub store_cpu_us: f64,
    /// CPU time of the client for a request, the median over the slices.
    pub client_cpu_us: f64,
}

/// A server with what it stands on. Fields are dropped in this order.
struct Running {
    server: Server,
    address: SocketAddr,
    store: Store,
    hot: Vec<Id>,
}

enum Store {
    /// None, or one within the server.
    Own,
    Redis(Redis),
    Postgres(Database),
}

impl Store {
    fn start(side: &str, dir: &Path, work: &Work) -> Result<Self> {
        Ok(match side {
            "redis" => Self::Redis(Redis::start(dir, work)?),
            "postgres" => {
                let database = Database::start(dir, false)?;
                Rows::create(&database)?;
                Self::Postgres(database)
            }
            "oncekey-postgres" => Self::Postgres(Database::start(dir, false)?),
            _ => Self::Own,
        })
    }

    fn usage(&self) -> Result<Usage> {
        match self {
            Self::Own => Ok(Usage::default()),
            Self::Redis(redis) => redis.usage(),
            Self::Postgres(database) => database.usage(),
        }
    }
}

impl Running {
    fn start(side: &str, dir: &Path, body: &[u8], ids: &Ids) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let store = Store::start(side, &dir.join("store"), &Work::new(body.len()))?;
        let found = match &store {
            Store::Own => dir.join("own").display().to_string(),
            Store::Redis(redis) => redis.socket().display().to_string(),
            Store::Postgres(database) => database.url(),
        };
        let mut program = std::env::current_exe()?;
        if side.ends_with("-mimalloc") {
            program.set_file_name("oncekey-compare-mimalloc");
        }
        let address = dir.join("address");
        let (program, file) = (program.display().to_string(), address.display().to_string());
        let command = [program.as_str(), "serve", side, &found, &file, &body.len().to_string()];
        let log = dir.join("log");
        let mut server = Server::start(&command, this_user(), Signal::TERM, &log)?;
        let address = server
            .wait_until(|| std::fs::read_to_string(&address).ok()?.parse().ok())
            .map_err(|error| {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                format!("{error}: {}", said.trim())
            })?;
        let mut running = Self { server, address, store, hot: Vec::new() };
        if Load::of(side).contains(&Load::Replay) {
            running.hot = (0..HOT).map(|_| ids.fresh()).collect();
            let mut client = Client::connect(address, 16)?;
            client.load(Keys::Once(&running.hot), Until::Sent(HOT), body, false)?;
        }
        let mut client = Client::connect(address, 16)?;
        client.load(Keys::Fresh(ids), Until::Elapsed(WARM_UP), body, false)?;
        Ok(running)
    }

    fn usage(&self) -> Result<[Usage; 3]> {
        Ok([self.server.usage()?, self.store.usage()?, Usage::now()?])
    }

    /// Ends what requests with new keys leave to be done later, as those of the mode `pairs` do.
    fn settle(&self, side: &str) -> Result<()> {
        if let Store::Postgres(database) = &self.store {
            database.run("CHECKPOINT")?;
        }
        if side.starts_with("oncekey") {
            let mut socket = TcpStream::connect(self.address)?;
            socket.write_all(
                b"GET /settle HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            )?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            if !answer.starts_with("HTTP/1.1 200 ") {
                return Err(format!("{side} does not settle: {answer}").into());
            }
        }
        Ok(())
    }
}

/// One side under one load, over its slices.
struct Cell {
    side: usize,
    load: Load,
    rates: Vec<f64>,
    /// Of server, store and client, for a request.
    cpu: [Vec<f64>; 3],
    latencies: Histogram<u64>,
}

impl Cell {
    fn slice(
        &mut self,
        running: &Running,
        name: &str,
        connections: usize,
        length: Duration,
        ids: &Ids,
        body: &[u8],
    ) -> Result<()> {
        let mut client = Client::connect(running.address, connections)?;
        let keys = match self.load {
            Load::NoKey => Keys::Absent,
            Load::New => Keys::Fresh(ids),
            Load::Replay => Keys::Among(&running.hot),
        };
        let before = running.usage()?;
        let replayed = self.load == Load::Replay;
        let answered = client.load(keys, Until::Elapsed(length), body, replayed)?;
        let start = std::time::Instant::now();
        if self.load == Load::New {
            running.settle(name)?;
        }
        let elapsed = answered.elapsed + start.elapsed();
        let number = answered.latencies.len().max(1) as f64;
        for ((sum, before), after) in self.cpu.iter_mut().zip(before).zip(running.usage()?) {
            sum.push(after.since(before).cpu.as_secs_f64() * 1e6 / number);
        }
        self.rates.push(number / elapsed.as_secs_f64());
        self.latencies.add(&answered.latencies)?;
        Ok(())
    }

    fn result(self, side: &str, connections: usize) -> Result<Http> {
        let micros = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let middle = |values: &[f64]| median(values).ok_or("no round");
        Ok(Http {
            side: side.to_owned(),
            load: self.load,
            connections,
            requests_per_second: middle(&self.rates)?,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            server_cpu_us: middle(&self.cpu[0])?,
            store_cpu_us: middle(&self.cpu[1])?,
            client_cpu_us: middle(&self.cpu[2])?,
            slices: self.rates,
            server_cpu_slices: self.cpu.into_iter().next().unwrap_or_default(),
        })
    }
}

/// All sides under all their loads, slice by slice in turns, at one number of connections after the other.
///
/// # Errors
/// A wrong answer; those of any side but a store that does not start: that is said, and it is left out.
pub fn measure(
    dir: &Path,
    sides: &[String],
    connections: &[usize],
    turns: Turns,
    response: usize,
    results: &mut Results,
    save: &dyn Fn(&Results) -> Result<()>,
) -> Result<()> {
    let body = order::answer(response)?;
    for &connections in connections {
        at(dir, sides, connections, turns, &body, results)?;
        save(results)?;
    }
    Ok(())
}

fn at(
    dir: &Path,
    sides: &[String],
    connections: usize,
    turns: Turns,
    body: &[u8],
    results: &mut Results,
) -> Result<()> {
    let ids = Ids::new();
    let place = dir.join("http");
    let mut open = Vec::new();
    for side in sides {
        match Running::start(side, &place.join(side), body, &ids) {
            Ok(running) => open.push((side, running)),
            Err(error) if error.to_string().contains("is not installed") => {
                eprintln!("{side} does not take part: {error}");
                results.missing.push((side.clone(), error.to_string()));
            }
            Err(error) => return Err(format!("{side}: {error}").into()),
        }
    }
    let mut cells = Vec::new();
    for (index, (side, _)) in open.iter().enumerate() {
        for &load in Load::of(side) {
            let (cpu, latencies) = (Default::default(), histogram()?);
            cells.push(Cell { side: index, load, rates: Vec::new(), cpu, latencies });
        }
    }
    for round in 0..turns.rounds {
        for turn in 0..cells.len() {
            // Every other round in reverse, so that no side always follows the same one.
            let index = if round % 2 == 0 { turn } else { cells.len() - 1 - turn };
            let cell = &mut cells[index];
            let (side, running) = &open[cell.side];
            cell.slice(running, side, connections, turns.slice, &ids, body)
                .map_err(|error| format!("{side}, {}: {error}", cell.load.name()))?;
            let rate = cell.rates.last().copied().unwrap_or_default();
            let load = cell.load.name();
            eprintln!("{connections} connections, {side}, {load}: {rate:.0} requests/s");
        }
    }
    for cell in cells {
        let side = open[cell.side].0;
        results.http.push(cell.result(side, connections)?);
    }
    drop(open);
    Ok(std::fs::remove_dir_all(&place)?)
}
