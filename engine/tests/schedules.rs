//! The whole engine, committer and folder included, under schedules that shuttle chooses. The seed
//! decides the work of the threads, their interleaving, and where the disk fails.
//!
//! `RUSTFLAGS="--cfg oncekey_shuttle" ONCEKEY_SEEDS=0..100000 cargo test -p oncekey --test schedules`
//! runs the campaign. Shuttle itself notices when all threads sleep.
#![cfg(oncekey_shuttle)]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::caller::Caller;
use common::*;
use oncekey::{Begin, Claim, Engine, Error, ErrorKind, Pending};
use oncekey_testing::{CrashMode, Fault, History, OpKind};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, thread};

const THREADS: u64 = 3;

/// Runs `scenario` once for each seed under a random scheduler, and twice under one that preempts
/// rarely: the first run tells it how long a run is.
fn explore(default: std::ops::Range<u64>, scenario: fn(u64)) {
    for seed in seeds(default) {
        let _named = Seed(seed);
        run(RandomScheduler::new_from_seed(seed, 1), seed, scenario);
        run(PctScheduler::new_from_seed(seed, 3, 2), seed, scenario);
    }
}

fn run(scheduler: impl Scheduler + 'static, seed: u64, scenario: fn(u64)) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(move || scenario(seed));
}

#[test]
fn what_threads_are_told_has_an_order_that_the_model_allows() {
    explore(0..500, |seed| {
        let mut random = Random::new(seed);
        let (mut sim, history) = (Sim::new(), History::new());
        let mut engine = sim.open();
        let mut claims: Vec<Vec<_>> = (0..THREADS).map(|_| Vec::new()).collect();
        for _phase in 0..2 {
            if random.below(3) == 0 {
                let nth = random.below(12);
                sim.disk.inject(Fault::at_kind(OpKind::Sync, nth).errno(Fault::EIO).drop_dirty());
            }
            let callers: Vec<_> = claims
                .drain(..)
                .map(|claims| {
                    let random = Random::new(random.below(u64::MAX));
                    Caller { engine: &engine, sink: &history, random, keys: 2, claims }
                })
                .collect();
            claims = thread::scope(|scope| {
                let threads: Vec<_> =
                    callers.into_iter().map(|caller| scope.spawn(|| caller.run(4))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            sim.disk.clear_faults();
            if random.below(2) == 0 {
                engine.reopen().unwrap();
            } else {
                let seed = random.below(u64::MAX);
                let image = sim.disk.crash(CrashMode::PowerLoss { seed });
                claims.iter_mut().for_each(Vec::clear);
                sim = sim.on(image);
                engine = sim.open();
            }
            history.restart(0);
        }
        // A claim that is dropped now would write a change that the history does not know.
        if let Err(violation) = history.check(TTL.as_millis() as u64) {
            panic!("{violation:?}");
        }
    });
}

/// The responses of completions that were acknowledged, and the tokens of all claims.
#[derive(Default)]
struct Known {
    completed: HashMap<u8, u8>,
    claims: Vec<oncekey::Token>,
}

/// Begins, waits or gives up waiting, and ends its claims in every way.
struct Impatient {
    engine: Engine,
    random: Random,
    known: Arc<Mutex<Known>>,
}

fn refused(error: &Error) {
    let kind = error.kind();
    assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::Closed), "{error:?}");
}

impl Impatient {
    fn run(mut self) {
        for _ in 0..4 {
            self.step();
        }
    }

    fn step(&mut self) {
        let asked = match self.random.below(18) {
            0..3 => self.engine.fold(),
            3 => self.engine.sweep().map(drop),
            4 => self.engine.backup_to(format!("/copy-{}", self.random.below(u64::MAX))),
            _ => Ok(()),
        };
        if let Err(error) = asked {
            refused(&error);
        }
        let name = self.random.below(2) as u8;
        let completed = self.known.lock().unwrap().completed.get(&name).copied();
        let (key, body) = (key([name]), body("a"));
        let pending = match self.random.below(3) {
            0 => self.engine.begin_waiting(&key, body, Duration::from_millis(2)),
            _ => self.engine.begin(&key, body),
        };
        let Some(begun) = self.patience(pending) else { return };
        match (begun, completed) {
            (Err(error), _) => refused(&error),
            (Ok(Begin::Replay(recorded)), Some(response)) => {
                assert_eq!(recorded.response(), Some(&[response][..]));
            }
            (Ok(begin), Some(_)) => panic!("completed, but {begin:?}"),
            (Ok(Begin::Claimed(claim)), None) => self.end(name, claim),
            (Ok(Begin::Orphaned(orphan)), None) => {
                if let Ok(claim) = orphan.take_over().wait() {
                    self.end(name, claim);
                }
            }
            (Ok(_), None) => {}
        }
    }

    fn patience(&mut self, pending: Pending<Begin>) -> Option<Result<Begin, Error>> {
        match self.random.below(5) {
            0 => None,
            1 => pending.wait_timeout(Duration::ZERO).ok(),
            2 => Some(shuttle::future::block_on(pending)),
            _ => Some(pending.wait()),
        }
    }

    fn end(&mut self, name: u8, claim: Claim) {
        let mut known = self.known.lock().unwrap();
        assert!(!known.claims.contains(&claim.token()), "a token is issued once");
        known.claims.push(claim.token());
        drop(known);
        match self.random.below(4) {
            0 => drop(claim),
            1 => drop(claim.abort()),
            _ => {
                let response = self.random.below(256) as u8;
                if claim.complete(&[response]).wait().is_ok() {
                    let earlier = self.known.lock().unwrap().completed.insert(name, response);
                    assert_eq!(earlier, None, "completed once");
                }
            }
        }
    }
}

#[test]
fn whoever_races_a_reopening_or_the_end_is_answered_and_nothing_is_forgotten() {
    explore(0..500, |seed| {
        let mut random = Random::new(seed);
        let (sim, known) = (Sim::new(), Arc::<Mutex<Known>>::default());
        let engine = sim.open();
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let random = Random::new(random.below(u64::MAX));
                let caller = Impatient { engine: engine.clone(), random, known: known.clone() };
                thread::spawn(|| caller.run())
            })
            .collect();
        match random.below(4) {
            0 => engine.reopen().unwrap(),
            1 => drop(engine.fold()),
            2 => drop(engine.close()),
            _ => {}
        }
        if random.below(2) == 0 {
            drop(engine.close());
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(engine);
        let engine = sim.open();
        for (name, response) in known.lock().unwrap().completed.clone() {
            match engine.begin(&key([name]), body("a")).wait().unwrap() {
                Begin::Replay(recorded) => assert_eq!(recorded.response(), Some(&[response][..])),
                other => panic!("completed, but {other:?}"),
            }
        }
    });
}
