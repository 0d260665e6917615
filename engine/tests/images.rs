//! Crash images: one run of a workload, and the power gone at every so manyth operation of the
//! disk. The engine is stepped, so that it is known what each image interrupts: a group, a fold, a
//! merge, a sweep, a segment that is prepared or recycled. Every image is opened, often while the
//! power goes again, and must hold what was acknowledged.
//!
//! `ONCEKEY_SEEDS=0..10000 cargo test --release -p oncekey --test images -- --nocapture` runs the
//! campaign and says how many images there were.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::*;
use oncekey::stepping::{Doing, Stepper};
use oncekey::{Begin, Claim, Engine, Lookup, Pending};
use oncekey_testing::{Begun, CrashMode, ManualClock, Model, SimDisk};

const KEYS: u8 = 32;
const STEPS: u64 = 160;
const DAY: Duration = Duration::from_secs(86_400);

fn open(disk: &SimDisk, now: u64, stepper: &Stepper) -> oncekey::Result<Engine> {
    let sim = Sim { disk: disk.clone(), clock: ManualClock::new() };
    sim.clock.advance(Duration::from_millis(now));
    start(&sim, stepper)
}

fn start(sim: &Sim, stepper: &Stepper) -> oncekey::Result<Engine> {
    let options = sim.options().overload_after(Duration::ZERO).sweep_interval(DAY);
    // The bound of the options: folds bring many keys, and the journal goes on to new segments.
    stepper.install(options.segment_bytes(80 << 10)).open("/store")
}

/// What was acknowledged while images had one mark, and may have been.
struct Moment {
    before: Model,
    after: Model,
}

/// What an image interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Group,
    Folder(Doing),
}

const DOINGS: [Doing; 6] =
    [Doing::Prepare, Doing::Fold, Doing::Backup, Doing::Load, Doing::Merge, Doing::Sweep];

fn mark(moment: usize, at: At) -> u64 {
    let doing = match at {
        At::Group => 0,
        At::Folder(doing) => 1 + DOINGS.iter().position(|known| *known == doing).unwrap() as u64,
    };
    (moment as u64) << 3 | doing
}

fn unmark(mark: u64) -> (usize, At) {
    let at = match mark & 7 {
        0 => At::Group,
        doing => At::Folder(DOINGS[doing as usize - 1]),
    };
    ((mark >> 3) as usize, at)
}

struct Run {
    random: Random,
    sim: Sim,
    stepper: Stepper,
    engine: Engine,
    model: Model,
    after: Model,
    claims: Vec<(u8, u64, Claim)>,
    moments: Vec<Moment>,
    /// Time stands still mostly, so that the runs of one bucket become many and are merged.
    still: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let (sim, stepper) = (Sim::new(), Stepper::new(seed));
        let mut random = Random::new(seed);
        let engine = start(&sim, &stepper).unwrap();
        // Everywhere, over many seeds; and not so many of a run that runs do not differ.
        let every = 1 + random.below(8);
        sim.disk.start_images(every, random.below(every));
        let model = Model::new(TTL.as_millis() as u64, None);
        let after = model.clone();
        Self {
            random,
            sim,
            stepper,
            engine,
            model,
            after,
            claims: vec![],
            moments: vec![],
            still: !seed.is_multiple_of(4),
        }
    }

    fn round(&mut self) {
        let (moment, disk) = (self.moments.len(), self.sim.disk.clone());
        disk.mark_images(mark(moment, At::Group));
        self.stepper.watch(move |doing| disk.mark_images(mark(moment, At::Folder(doing))));
        match self.random.below(3) {
            0 => self.stepper.commit(),
            _ => _ = self.stepper.fold(),
        }
        let (before, after) = (self.model.clone(), self.after.clone());
        self.moments.push(Moment { before, after });
    }

    /// Lets the engine work until it has answered, and what was asked for is acknowledged.
    fn ask<T, E: From<oncekey::Error>>(&mut self, mut pending: Pending<T, E>) -> Result<T, E> {
        loop {
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(answer) = Pin::new(&mut pending).poll(&mut context) {
                self.model = self.after.clone();
                return answer;
            }
            self.round();
        }
    }

    fn step(&mut self) {
        match self.random.below(15) {
            0..=4 => self.begin(),
            5..=8 => self.end(),
            9..=12 => self.stepper.want_fold(),
            13 => self.stepper.want_sweep(),
            _ => {
                let millis = match self.still {
                    true => [20, 20, 3000][self.random.below(3) as usize],
                    false => [300, 3000, 25_000][self.random.below(3) as usize],
                };
                self.sim.clock.advance(Duration::from_millis(millis));
                self.model.now += millis;
                self.after.now += millis;
            }
        }
        for _ in 0..self.random.below(4) {
            self.round();
        }
    }

    fn begin(&mut self) {
        let key = self.random.below(KEYS.into()) as u8;
        let expected = self.after.begin(key, 0);
        let pending = self.engine.begin(&common::key([key]), body("a"));
        match (self.ask(pending).map_err(|error| error.kind()), expected) {
            (Ok(Begin::Claimed(claim)), Begun::Claimed(token)) => {
                self.claims.push((key, token, claim));
            }
            (Ok(Begin::Replay(_)), Begun::Replay(_)) | (Ok(Begin::Locked(_)), Begun::Locked) => {}
            (Ok(Begin::Orphaned(orphan)), Begun::Orphaned(own)) => {
                let (token, ..) = self.after.take_over(key, own).unwrap();
                let pending = orphan.take_over();
                let claim = self.ask(pending).unwrap();
                self.claims.push((key, token, claim));
            }
            (begin, expected) => panic!("{begin:?}, but the model says {expected:?}"),
        }
    }

    fn end(&mut self) {
        if self.claims.is_empty() {
            return;
        }
        let index = self.random.below(self.claims.len() as u64) as usize;
        let (key, token, claim) = self.claims.swap_remove(index);
        if self.random.below(5) == 0 {
            self.after.abort(key, token).unwrap();
            let pending = claim.abort();
            return self.ask(pending).unwrap();
        }
        let response = self.random.below(256) as u8;
        self.after.complete(key, token, Some(response), None).unwrap();
        let len = 1 + self.random.below(4000) as usize;
        let pending = claim.complete(&vec![response; len]);
        self.ask(pending).unwrap();
    }
}

/// How many images interrupted what; how many were opened while the power went again.
#[derive(Debug, Default)]
struct Count {
    images: u64,
    again: u64,
    interrupted: BTreeMap<At, u64>,
}

fn found(engine: &Engine, key: u8) -> String {
    match engine.get(&common::key([key])).unwrap() {
        Lookup::Absent => "absent".into(),
        Lookup::Orphaned(orphan) => format!("orphan {}", orphan.attempt()),
        Lookup::Completed(recorded) => {
            let response = recorded.response().unwrap();
            assert!(response.iter().all(|byte| *byte == response[0]));
            format!("completed {}", response[0])
        }
        other => panic!("{other:?} after a restart"),
    }
}

fn expected(model: &Model, key: u8) -> String {
    let mut probe = model.clone();
    probe.restart(probe.now);
    match probe.begin(key, 0) {
        Begun::Claimed(_) => "absent".into(),
        Begun::Orphaned(token) => format!("orphan {}", probe.take_over(key, token).unwrap().1 - 1),
        Begun::Replay(response) => format!("completed {}", response.unwrap()),
        other => panic!("the model holds {other:?} after a restart"),
    }
}

fn check(moment: &Moment, at: At, image: &SimDisk, random: &mut Random, count: &mut Count) {
    let now = moment.before.now;
    let mut image = image.crash(CrashMode::PowerLoss { seed: random.below(u64::MAX) });
    for _ in 0..random.below(4).saturating_sub(1) {
        // The power goes again during recovery, and what it was about.
        image.power_off_at(random.below(40));
        let stepper = Stepper::new(0);
        let opened = open(&image, now, &stepper);
        if opened.is_ok() {
            (0..8).for_each(|_| _ = stepper.fold());
        }
        count.again += u64::from(image.is_powered_off());
        count.images += 1;
        let next = image.crash(CrashMode::PowerLoss { seed: random.below(u64::MAX) });
        drop(opened);
        image = next;
    }
    let stepper = Stepper::new(0);
    let engine = open(&image, now, &stepper).unwrap();
    count.images += 1;
    *count.interrupted.entry(at).or_default() += 1;
    let look = || (0..KEYS).map(|key| found(&engine, key)).collect::<Vec<_>>();
    let told = look();
    let right = [&moment.before, &moment.after]
        .map(|model| (0..KEYS).map(|key| expected(model, key)).collect::<Vec<_>>());
    assert!(right.contains(&told), "{at:?}: {told:?}, expected one of {right:?}");
    // Merges and folds that were interrupted go on.
    if random.below(4) == 0 {
        stepper.want_fold();
        stepper.commit();
        while stepper.fold().is_some() {}
        assert!(!stepper.has_failed());
        assert_eq!(look(), told);
    }
}

#[test]
fn every_image_holds_what_was_acknowledged() {
    let mut count = Count::default();
    for seed in seeds(0..11) {
        let _named = Seed(seed);
        let mut run = Run::new(seed);
        (0..STEPS).for_each(|_| run.step());
        for (mark, image) in run.sim.disk.take_images() {
            let (moment, at) = unmark(mark);
            check(&run.moments[moment], at, &image, &mut run.random, &mut count);
        }
    }
    eprintln!("{count:?}");
    for doing in [Doing::Prepare, Doing::Fold, Doing::Merge, Doing::Sweep] {
        let met = count.interrupted.contains_key(&At::Folder(doing));
        assert!(met || count.images < 4000, "{doing:?} was never interrupted: {count:?}");
    }
}
