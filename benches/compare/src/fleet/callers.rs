//! A process of a fleet, and its callers.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use oncekey_benches::Result;
use oncekey_benches::drive::{self, Callers};
use oncekey_benches::side::Pairs;
use oncekey_benches::usage::Usage;
use serde::{Deserialize, Serialize};

use crate::engines::oncekey::Oncekey;
use crate::grouped::Grouped;
use crate::rival::Rival;
use crate::servers::oncekey_postgres;
use crate::servers::postgres::Rows;
use crate::servers::postgres_groups::Groups;
use crate::work::{Id, Ids, Work, mix};

/// What a process did in a slice: a line of its output.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) seconds: f64,
    pub(super) cpu_us: f64,
    /// Latencies in nanoseconds, and how often each.
    pub(super) latencies: Vec<(u64, u64)>,
    /// Its keys: a sequence, and how many of it.
    pub(super) given: (u64, u64),
}

/// A rival and its keys, as callers drive it.
#[derive(Clone)]
pub(super) struct Callee {
    pub(super) rival: Arc<dyn Rival>,
    pub(super) ids: Arc<Ids>,
}

impl Callee {
    pub(super) fn callers(&self, count: usize) -> Callers {
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

/// What [`measure`](super::measure) starts: callers that do what standard input says, a slice a line.
///
/// # Errors
/// Those of the side.
pub fn process(side: &str, host: &str, callers: usize, response: usize) -> Result<()> {
    let (work, ids) = (Work::new(response), Arc::new(Ids::new()));
    let url = format!("host={host} user=postgres dbname=postgres");
    let mut engine = None;
    let rival: Arc<dyn Rival> = match side {
        "postgres" => Arc::new(Rows::connect(host, &work, callers)?),
        "postgres-groups" => Arc::new(Grouped::new(Groups::connect(host, &work)?)?),
        _ => engine.insert(Arc::new(oncekey_postgres::connect(&url, &work)?)).clone(),
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
