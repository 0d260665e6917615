//! Crash images: during one run of a workload an image of the disk is taken at every nth operation,
//! as if the power failed there. The engine is stepped, so that the test knows which work each
//! image interrupts: a group, a fold, a merge, a sweep, a segment that is prepared or recycled.
//! Every image is opened, often while the power fails again, and must hold every acknowledged
//! change.
//!
//! `ONCEKEY_SEEDS=0..3300 cargo test --release -p oncekey --test images -- --nocapture` runs the
//! campaign and prints the number of images.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::*;
use oncekey::stepping::{Duty, Stepper};
use oncekey::{Begin, Claim, Engine, ErrorKind, Failed, Lookup, Pending};
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
    options.segment_bytes(80 << 10).stepper(stepper).open("/store")
}

/// The acknowledged changes while images had one mark, and those that may have happened.
struct Moment {
    before: Model,
    after: Model,
}

/// What an image interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Group,
    Folder(Duty),
}

const DUTIES: [Duty; 5] = [Duty::Prepare, Duty::Fold, Duty::Load, Duty::Merge, Duty::Sweep];

/// The state of the run when an image was taken, kept as the mark of the image.
#[derive(Clone, Copy)]
struct Mark {
    moment: usize,
    at: At,
    /// The answer was given, though the caller has not looked yet.
    answered: bool,
}

impl Mark {
    fn pack(self) -> u64 {
        let duty = match self.at {
            At::Group => 0,
            At::Folder(duty) => 1 + DUTIES.iter().position(|known| *known == duty).unwrap(),
        };
        (self.moment as u64) << 4 | (duty as u64) << 1 | u64::from(self.answered)
    }

    fn unpack(mark: u64) -> Self {
        let at = match mark >> 1 & 7 {
            0 => At::Group,
            duty => At::Folder(DUTIES[duty as usize - 1]),
        };
        Self { moment: (mark >> 4) as usize, at, answered: mark & 1 == 1 }
    }
}

/// Marks images anew as soon as the state changes. It is woken when an answer is given.
struct Marker {
    disk: SimDisk,
    mark: Mutex<Mark>,
}

impl Marker {
    fn set(&self, change: impl FnOnce(&mut Mark)) {
        let mut mark = self.mark.lock().unwrap();
        change(&mut mark);
        self.disk.mark_images(mark.pack());
    }
}

impl Wake for Marker {
    fn wake(self: Arc<Self>) {
        self.set(|mark| mark.answered = true);
    }
}

struct Run {
    random: Random,
    sim: Sim,
    stepper: Stepper,
    engine: Engine,
    marker: Arc<Marker>,
    model: Model,
    after: Model,
    claims: Vec<(u8, u64, Claim)>,
    moments: Vec<Moment>,
    /// Time mostly stands still, so that one bucket gets many runs, which are merged.
    still: bool,
    /// Milliseconds since a change was acknowledged. The TTL of an orphan counts from the last time
    /// that the store holds, which only changes bring there in this test.
    idle: u64,
    /// For this number of rounds only the committer works, so that segments fill between the beginning and the end of
    /// a fold.
    alone: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let (sim, stepper) = (Sim::new(), Stepper::new(seed));
        let mut random = Random::new(seed);
        let engine = start(&sim, &stepper).unwrap();
        // Over many seeds every operation is met; one run has few images, so that there are many
        // different runs.
        let every = 1 + random.below(8);
        sim.disk.start_images(every, random.below(every));
        let mark = Mutex::new(Mark { moment: 0, at: At::Group, answered: false });
        let marker = Arc::new(Marker { disk: sim.disk.clone(), mark });
        let watch = marker.clone();
        stepper.watch(move |duty| watch.set(|mark| mark.at = At::Folder(duty)));
        let model = Model::new(TTL.as_millis() as u64, None);
        let after = model.clone();
        Self {
            random,
            sim,
            stepper,
            engine,
            marker,
            model,
            after,
            claims: vec![],
            moments: vec![],
            idle: 0,
            alone: 0,
            still: !seed.is_multiple_of(4),
        }
    }

    fn round(&mut self) {
        let moment = self.moments.len();
        self.marker.set(|mark| (mark.moment, mark.at) = (moment, At::Group));
        let commits = self.alone > 0 || self.random.below(3) == 0;
        self.alone = self.alone.saturating_sub(1);
        match commits {
            true => self.stepper.commit(),
            _ => _ = self.stepper.fold(),
        }
        let (before, after) = (self.model.clone(), self.after.clone());
        self.moments.push(Moment { before, after });
    }

    /// Lets the engine work until it has answered and the change is acknowledged.
    fn ask<T, E: From<oncekey::Error>>(&mut self, mut pending: Pending<T, E>) -> Result<T, E> {
        self.marker.set(|mark| mark.answered = false);
        let waker = Waker::from(self.marker.clone());
        loop {
            let mut context = Context::from_waker(&waker);
            if let Poll::Ready(answer) = Pin::new(&mut pending).poll(&mut context) {
                // An error is a refusal here, since nothing else fails: the change did not happen.
                match &answer {
                    Ok(_) => self.model = self.after.clone(),
                    Err(_) => self.after = self.model.clone(),
                }
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
            13 if self.random.below(3) == 0 => self.alone = 60,
            13 => self.stepper.want_sweep(),
            _ => {
                let millis = match self.still {
                    true => [20, 20, 3000][self.random.below(3) as usize],
                    false => [300, 3000, 25_000][self.random.below(3) as usize],
                };
                if self.idle + millis > TTL.as_millis() as u64 / 2 {
                    return;
                }
                self.idle += millis;
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
            (Err(ErrorKind::Overloaded | ErrorKind::StoreFull), _) => {}
            (Ok(Begin::Claimed(claim)), Begun::Claimed(token)) => {
                self.idle = 0;
                self.claims.push((key, token, claim));
            }
            (Ok(Begin::Replay(_)), Begun::Replay(_)) | (Ok(Begin::Locked(_)), Begun::Locked) => {}
            (Ok(Begin::Orphaned(orphan)), Begun::Orphaned(own)) => {
                let (token, ..) = self.after.take_over(key, own).unwrap();
                let pending = orphan.take_over();
                if let Ok(claim) = self.ask(pending) {
                    self.claims.push((key, token, claim));
                }
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
            let ended = self.ask(pending);
            return self.keep(key, token, ended);
        }
        let response = self.random.below(256) as u8;
        self.after.complete(key, token, Some(response), None).unwrap();
        let len = 1 + self.random.below(4000) as usize;
        let pending = claim.complete(&vec![response; len]);
        let ended = self.ask(pending).map(drop);
        self.keep(key, token, ended);
    }

    /// A claim whose end was refused comes back.
    fn keep(&mut self, key: u8, token: u64, ended: Result<(), Failed<Claim>>) {
        if ended.is_ok() {
            self.idle = 0;
        }
        if let Err(failed) = ended {
            assert_eq!(failed.kind(), ErrorKind::StoreFull);
            self.claims.push((key, token, failed.into_handle().unwrap()));
        }
    }
}

/// The number of images by the work that they interrupted, and of those that were opened while the
/// power failed again.
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

fn check(moment: &Moment, mark: Mark, image: &SimDisk, random: &mut Random, count: &mut Count) {
    let now = moment.before.now;
    let right: &[&Model] = match mark.answered {
        true => &[&moment.after],
        false => &[&moment.before, &moment.after],
    };
    let right: Vec<Vec<_>> = (right.iter())
        .map(|model| (0..KEYS).map(|key| after_restart(model, key)).collect())
        .collect();
    let look = |engine: &Engine| (0..KEYS).map(|key| found(engine, key)).collect::<Vec<_>>();
    let is_right = |told: &Vec<String>| {
        assert!(right.contains(told), "{:?}: {told:?}, expected one of {right:?}", mark.at);
    };
    if random.below(4) == 0 {
        // The image of a kill is opened. Its answers must survive a power loss, too.
        let killed = image.crash(CrashMode::ProcessKill);
        let stepper = Stepper::new(0);
        let engine = open(&killed, now, &stepper).unwrap();
        let told = look(&engine);
        is_right(&told);
        let lost = killed.crash(CrashMode::LoseAllUnsynced);
        drop(engine);
        assert_eq!(look(&open(&lost, now, &stepper).unwrap()), told);
        count.images += 2;
    }
    let mut image = image.crash(CrashMode::PowerLoss { seed: random.below(u64::MAX) });
    for _ in 0..random.below(4).saturating_sub(1) {
        // The power fails again during recovery and the work that recovery resumes.
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
    *count.interrupted.entry(mark.at).or_default() += 1;
    let told = look(&engine);
    is_right(&told);
    // Merges and folds that were interrupted go on.
    if random.below(4) == 0 {
        stepper.want_fold();
        stepper.commit();
        while stepper.fold().is_some() {}
        assert!(!stepper.has_failed());
        assert_eq!(look(&engine), told);
    }
}

#[test]
fn every_image_holds_what_was_acknowledged() {
    let mut count = Count::default();
    for seed in seeds(0..12) {
        let _named = Seed(seed);
        let mut run = Run::new(seed);
        (0..STEPS).for_each(|_| run.step());
        for (mark, image) in run.sim.disk.take_images() {
            let mark = Mark::unpack(mark);
            check(&run.moments[mark.moment], mark, &image, &mut run.random, &mut count);
        }
    }
    eprintln!("{count:?}");
    for duty in [Duty::Prepare, Duty::Fold, Duty::Merge, Duty::Sweep] {
        let met = count.interrupted.contains_key(&At::Folder(duty));
        assert!(met || count.images < 4000, "{duty:?} was never interrupted: {count:?}");
    }
}
