//! Engines that run operations, and remember what they were told.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use oncekey::{Begin, Engine, ErrorKind, Fingerprint, Key};
use oncekey_postgres::Options;

use crate::Result;

const ENGINES: usize = 3;
/// Of each engine: so many that two groups are under way at once.
const CALLERS: usize = 40;

/// Keys are asked for while they are at most this many behind the newest.
const WINDOW: u64 = 40;

/// What was told.
#[derive(Default)]
struct Told {
    /// First attempts that were granted, by key.
    claimed: HashMap<u64, String>,
    /// Keys whose response was acknowledged or replayed since it was last asked for.
    acknowledged: Vec<u64>,
    violations: Vec<String>,
    unknown: u64,
}

struct State {
    run: u64,
    newest: AtomicU64,
    stopped: AtomicBool,
    told: Mutex<Told>,
    /// Every key whose response was told, for later runs.
    record: Mutex<File>,
}

pub(crate) struct Load {
    state: Arc<State>,
    pub(crate) engines: Vec<Engine>,
    callers: Vec<std::thread::JoinHandle<()>>,
}

pub(crate) fn open(url: &str) -> Result<Engine> {
    let start = Instant::now();
    let ttl = Duration::from_secs(30 * 24 * 3600);
    let options = Options::new(url).create(true).replication_required(true).ttl(ttl);
    loop {
        match options.open() {
            Ok(engine) => return Ok(engine),
            Err(error) if start.elapsed() > Duration::from_secs(60) => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn key(name: &str) -> Result<Key> {
    Ok(Key::new("", name)?)
}

fn fingerprint() -> Fingerprint {
    Fingerprint::builder().part("body", "body").finish()
}

impl Load {
    /// Keys of a run are named by its number.
    pub(crate) fn start(url: &str, run: u64, record: &Path) -> Result<Self> {
        let engines = (0..ENGINES).map(|_| open(url)).collect::<Result<Vec<_>>>()?;
        let record = File::options().create(true).append(true).open(record)?;
        let state = Arc::new(State {
            run,
            newest: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            told: Mutex::default(),
            record: Mutex::new(record),
        });
        let mut callers = Vec::new();
        for (at, engine) in engines.iter().enumerate() {
            for caller in 0..CALLERS {
                let (state, engine) = (state.clone(), engine.clone());
                let seed = u128::from(run) << 64 | (at * CALLERS + caller) as u128;
                callers.push(std::thread::spawn(move || state.call(&engine, seed)));
            }
        }
        Ok(Self { state, engines, callers })
    }

    /// What was acknowledged since the last call, by name.
    pub(crate) fn acknowledged(&self) -> Vec<String> {
        let numbers = std::mem::take(&mut self.state.told().acknowledged);
        numbers.into_iter().map(|number| self.state.name(number)).collect()
    }

    /// Violations, pairs that were granted, and answers that left an outcome unknown.
    pub(crate) fn told(&self) -> (Vec<String>, usize, u64) {
        let told = self.state.told();
        (told.violations.clone(), told.claimed.len(), told.unknown)
    }

    pub(crate) fn stop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            if caller.join().is_err() {
                self.state.told().violations.push("a caller panicked".to_owned());
            }
        }
    }
}

impl State {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }

    fn call(&self, engine: &Engine, seed: u128) {
        let mut noise = oorandom::Rand64::new(seed);
        while !self.stopped.load(Ordering::Relaxed) {
            let number = match noise.rand_range(0..3) {
                0 => {
                    self.newest.load(Ordering::Relaxed).saturating_sub(noise.rand_range(0..WINDOW))
                }
                _ => self.newest.fetch_add(1, Ordering::Relaxed),
            };
            if let Err(error) = self.operate(engine, number, noise.rand_range(0..20)) {
                let mut told = self.told();
                match error.kind() {
                    ErrorKind::Unavailable
                    | ErrorKind::OutcomeUnknown
                    | ErrorKind::Overloaded
                    | ErrorKind::Fenced
                    | ErrorKind::AlreadyCompleted => told.unknown += 1,
                    _ => told.violations.push(format!("{}: {error}", self.name(number))),
                }
            }
            std::thread::sleep(Duration::from_millis(noise.rand_range(20..80)));
        }
    }

    /// One request for a key, whatever it meets.
    fn operate(&self, engine: &Engine, number: u64, millis: u64) -> oncekey::Result<()> {
        let name = self.name(number);
        let key = Key::new("", &name)?;
        let claim = match engine.begin(&key, fingerprint()).wait()? {
            Begin::Claimed(claim) => {
                let token = claim.token().to_string();
                let mut told = self.told();
                if let Some(before) = told.claimed.insert(number, token.clone()) {
                    told.violations.push(format!("{name} was granted twice: {before}, {token}"));
                }
                claim
            }
            Begin::Orphaned(orphan) => {
                orphan.take_over().wait().map_err(|failed| failed.error().clone())?
            }
            Begin::Replay(recorded) => {
                if recorded.response() != Some(name.as_bytes()) {
                    self.told().violations.push(format!("{name}: another response"));
                }
                self.acknowledge(number, &name);
                return Ok(());
            }
            _ => return Ok(()),
        };
        std::thread::sleep(Duration::from_millis(millis));
        claim.complete(name.as_bytes()).wait().map_err(|failed| failed.error().clone())?;
        self.acknowledge(number, &name);
        Ok(())
    }

    fn acknowledge(&self, number: u64, name: &str) {
        self.told().acknowledged.push(number);
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(record, "{name}") {
            self.told().violations.push(format!("the record: {error}"));
        }
    }
}

/// Whether each of these keys answers with its response.
pub(crate) fn all_there(engine: &Engine, names: &[String]) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for name in names {
        let start = Instant::now();
        loop {
            match engine.begin(&key(name)?, fingerprint()).wait() {
                Ok(Begin::Replay(recorded)) if recorded.response() == Some(name.as_bytes()) => {}
                Err(error)
                    if error.kind() == ErrorKind::Unavailable
                        && start.elapsed() < Duration::from_secs(60) =>
                {
                    continue;
                }
                other => missing.push(format!("{name}: {other:?}")),
            }
            break;
        }
    }
    Ok(missing)
}
