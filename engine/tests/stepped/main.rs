//! The whole engine as a function of a seed, without threads. The seed says when the committer and
//! the folder do a round, what callers ask and drop meanwhile, how time passes, where the disk
//! fails, panics or loses power, and when the engine is reopened. The answers must have an order
//! that the model allows, and every caller is answered.
//!
//! `ONCEKEY_SEEDS=0..100000 cargo test --release -p oncekey --test stepped` runs the campaign.
#![allow(missing_docs, clippy::unwrap_used)]

mod ask;
#[path = "../common/mod.rs"]
mod common;
mod restart;
mod space;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use ask::{Asked, Handle};
use common::caller::Token;
use common::*;
use oncekey::stepping::{Duty, Stepper};
use oncekey::{Claim, Clock, Engine, Options, Orphan};
use oncekey_testing::{Answer, CallId, CrashMode, Fault, History, ManualClock, OpKind, Ops};

const STEPS: u64 = 200;
const DAY: Duration = Duration::from_secs(86_400);

/// The number of events of each kind over all seeds. A campaign without one of them shows nothing
/// about it.
#[derive(Debug, Default)]
struct Met {
    calls: usize,
    faults: u64,
    panics: u64,
    failures: u64,
    reopened: u64,
    reopenings_failed: u64,
    power_losses: u64,
    kills: u64,
    closes: u64,
    withdrawn: u64,
    expired: u64,
    wall_back: u64,
    folds: u64,
    /// Folds that found no space.
    put_off: u64,
    swept: u64,
    /// The work during which the power was cut; `None` for the committer.
    cuts: BTreeMap<Option<Duty>, u64>,
    /// The number of rounds of the folder, by their work.
    works: BTreeMap<Duty, u64>,
}

struct World<'a> {
    random: Random,
    sim: Sim,
    stepper: Stepper,
    engine: Engine,
    history: History<Token>,
    asked: Vec<Asked>,
    claims: Vec<(u8, Claim)>,
    orphans: Vec<(u8, Orphan)>,
    /// Begins that were dropped. They are decided once the engine has done all it was asked for.
    withdrawn: Vec<(CallId, CallId)>,
    /// The wall clock and engine time at the beginning, in milliseconds.
    start: u64,
    now: u64,
    /// The times of this epoch that the store may hold as its last, from that of the last answer
    /// that told of a change.
    times: Vec<u64>,
    trace: Option<DefaultHasher>,
    /// Few keys with many conflicts, or many keys that are folded into many runs.
    keys: u64,
    met: &'a mut Met,
}

fn millis(wall: std::time::SystemTime) -> u64 {
    wall.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

impl<'a> World<'a> {
    fn new(seed: u64, traced: bool, met: &'a mut Met) -> Self {
        let sim = Sim::new();
        let stepper = Stepper::new(seed);
        if traced {
            sim.disk.start_trace();
        }
        let start = millis(ManualClock::new().wall());
        let engine = Self::options(&stepper, &sim).open("/store").unwrap();
        let trace = traced.then(DefaultHasher::new);
        Self {
            random: Random::new(seed),
            sim,
            stepper,
            engine,
            history: History::new(),
            asked: Vec::new(),
            claims: Vec::new(),
            orphans: Vec::new(),
            withdrawn: Vec::new(),
            start,
            now: 0,
            times: vec![0],
            trace,
            keys: if seed.is_multiple_of(2) { 4 } else { 40 },
            met,
        }
    }

    /// A committer that waited for the folder would wait for ever.
    fn options(stepper: &Stepper, sim: &Sim) -> Options {
        sim.options().overload_after(Duration::ZERO).sweep_interval(DAY).stepper(stepper)
    }

    fn run(mut self) -> u64 {
        for _ in 0..STEPS {
            self.step();
        }
        self.finish()
    }

    fn step(&mut self) {
        match self.random.below(64) {
            0..=15 => self.begin(),
            16..=20 => self.end_claim(),
            21 => self.checkpoint(),
            22..=24 => self.resolve(),
            25..=27 => self.get(),
            28 => self.withdraw(),
            29 => self.elapse(),
            30 | 31 => self.stepper.want_fold(),
            32 | 34 if self.keys > 4 && self.random.below(2) == 0 => self.stepper.want_fold(),
            32 if self.random.below(2) == 0 => self.stepper.want_sweep(),
            33 if self.random.below(2) == 0 => self.arm(),
            34 if self.sim.disk.is_powered_off() || self.random.below(4) == 0 => self.restart(),
            35..=48 => self.work(true),
            _ => self.work(false),
        }
    }

    /// Takes every answer that is there.
    fn hear(&mut self) {
        let mut index = 0;
        while index < self.asked.len() {
            let Some((answer, handle)) = (self.asked[index].poll)() else {
                index += 1;
                continue;
            };
            let Asked { key, id, .. } = self.asked.remove(index);
            if matches!(answer, Answer::Claimed { .. } | Answer::Done) {
                self.times.retain(|time| *time == self.now);
            }
            if let Some(trace) = &mut self.trace {
                format!("{id:?} {answer:?}").hash(trace);
            }
            self.history.answer(id, answer);
            match handle {
                Handle::Claim(claim) => self.claims.push((key, claim)),
                Handle::Orphan(orphan) => self.orphans.push((key, orphan)),
                Handle::None => {}
            }
        }
    }

    fn elapse(&mut self) {
        let millis = match self.random.below(if self.keys > 4 { 9 } else { 3 }) {
            0 => 1 + self.random.below(1000),
            1 => 1 + self.random.below(20_000),
            2 => TTL.as_millis() as u64,
            _ => 10,
        };
        self.met.expired += u64::from(millis >= TTL.as_millis() as u64);
        let by = Duration::from_millis(millis);
        match self.random.below(2) {
            0 => self.sim.clock.advance(by),
            _ => self.sim.clock.suspend(by),
        }
        self.history.elapse(millis);
        self.now += millis;
        self.times.push(self.now);
    }

    fn arm(&mut self) {
        let nth = self.random.below(20);
        let disk = &self.sim.disk;
        match self.random.below(9) {
            0 => disk.inject(Fault::at_kind(OpKind::Sync, nth / 4).errno(Fault::EIO).drop_dirty()),
            1 => disk.inject(Fault::at_change(nth).errno(Fault::EIO).applied()),
            2 => disk.inject(Fault::at_change(nth).errno(Fault::ENOSPC).partial(4096)),
            3 => disk.inject(Fault::at_kind(OpKind::Read, nth).errno(Fault::EIO)),
            4 | 5 => disk.power_off_at(nth),
            6 => {
                let full = Fault::new(Ops::Changes, nth / 4).errno(Fault::ENOSPC).partial(4096);
                let path = ["records-", "run-"][self.random.below(2) as usize];
                disk.inject(full.on_path(path));
            }
            7 => disk.inject(Fault::new(Ops::Opening, nth / 4).errno(Fault::EMFILE).forever()),
            _ => disk.inject(Fault::at_kind(OpKind::Remove, 0).errno(Fault::EIO).forever()),
        }
    }

    /// A round of the committer or of the folder, under which the disk may panic.
    fn work(&mut self, commit: bool) {
        let panics = self.random.below(250) == 0;
        let cut = !panics && self.random.below(60) == 0;
        let (fired, off) = (self.sim.disk.faults_fired(), self.sim.disk.is_powered_off());
        if cut {
            self.sim.disk.power_off_at(self.random.below(10));
        }
        if panics {
            self.sim.disk.clear_faults();
            self.sim.disk.inject(Fault::at_change(self.random.below(5)).panic());
        }
        let folds = self.engine.stats().folds;
        let done = match commit {
            true => {
                self.stepper.commit();
                None
            }
            false => self.stepper.fold(),
        };
        if let Some(done) = done {
            *self.met.works.entry(done).or_default() += 1;
            let put_off = done == Duty::Fold
                && self.engine.stats().folds == folds
                && !self.stepper.has_failed();
            self.met.put_off += u64::from(put_off);
        }
        if !off && self.sim.disk.is_powered_off() && (commit || done.is_some()) {
            *self.met.cuts.entry(done).or_default() += 1;
        }
        if cut && !self.sim.disk.is_powered_off() {
            self.sim.disk.clear_faults();
        }
        if panics {
            self.met.panics += self.sim.disk.faults_fired() - fired;
            self.sim.disk.clear_faults();
        }
        self.hear();
    }

    /// Lets the engine do all that it was asked for.
    fn settle(&mut self) {
        for _ in 0..12 {
            self.stepper.commit();
            while self.stepper.fold().is_some() {}
        }
        self.hear();
    }

    /// Tells the history which dropped futures are decided, where that is certain.
    fn decide_withdrawn(&mut self) {
        self.settle();
        let certain = !self.stepper.has_failed() && !self.sim.disk.is_powered_off();
        for (begin, withdrawal) in self.withdrawn.drain(..).filter(|_| certain) {
            self.history.answer(begin, Answer::Unheard);
            self.history.answer(withdrawal, Answer::Done);
        }
    }

    /// In the end the disk works, and the engine must work, too.
    fn finish(mut self) -> u64 {
        if self.sim.disk.is_powered_off() {
            let image = self.sim.disk.crash(CrashMode::LoseAllUnsynced);
            self.withdrawn.clear();
            self.sim.clock.reboot();
            self.die(image);
        } else {
            self.reopen();
        }
        self.withdrawn.clear();
        for _ in 0..8 {
            self.begin();
        }
        self.settle();
        self.decide_withdrawn();
        assert!(!self.stepper.has_failed());
        let bound = self.asked.iter().filter(|asked| !asked.begins).count();
        assert_eq!(bound, 0, "a call is answered when nothing else is to be done");
        self.asked.clear();
        self.met.calls += self.history.calls();
        if let Err(violation) = self.history.check(TTL.as_millis() as u64) {
            panic!("{violation:?}");
        }
        self.take_trace();
        self.trace.map_or(0, |trace| trace.finish())
    }
}

#[test]
fn a_stepped_engine_tells_what_the_model_allows() {
    let mut met = Met::default();
    for seed in seeds(0..1500) {
        let _named = Seed(seed);
        World::new(seed, false, &mut met).run();
    }
    eprintln!("{met:?}");
    let Met { faults, panics, failures, reopened, reopenings_failed, .. } = met;
    let Met { power_losses, kills, closes, withdrawn, expired, wall_back, folds, .. } = met;
    let Met { put_off, swept, .. } = met;
    let disturbed = [faults, panics, failures, reopened, reopenings_failed, power_losses, kills];
    for duty in [Duty::Prepare, Duty::Fold, Duty::Sweep] {
        assert!(met.cuts.contains_key(&Some(duty)) || met.calls < 10_000, "{duty:?}: {met:?}");
    }
    let ordinary = [closes, withdrawn, expired, wall_back, folds, put_off, swept];
    let enough = disturbed.iter().chain(&ordinary).all(|times| *times > 0);
    assert!(enough || met.calls < 10_000, "something never happened: {met:?}");
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let mut met = Met::default();
    for seed in seeds(0..40) {
        let _named = Seed(seed);
        let mut run = || World::new(seed, true, &mut met).run();
        assert_eq!(run(), run());
    }
}
