//! Nothing acknowledged is lost, nothing runs twice: crashes and failing operations at every place,
//! on a simulated disk, checked against the model.
//!
//! `ONCEKEY_SEEDS=5000..6000 cargo test -p oncekey --test crash` runs other seeds than the slice
//! that runs by default; a failure names its seed.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use oncekey::{Begin, Claim, Engine, ErrorKind, Lookup, Orphan};
use oncekey_testing::{Begun, CrashMode, Fault, HeldDisk, Model, OpKind, SimDisk};

const KEYS: u8 = 6;

/// A caller that does one thing at a time and knows what was acknowledged.
struct Caller {
    random: Random,
    /// What was acknowledged.
    model: Model,
    /// The same with the one operation that failed, which may have happened.
    maybe: Option<Model>,
    claims: Vec<(u8, u64, Claim)>,
    responses: u8,
}

impl Caller {
    fn new(seed: u64) -> Self {
        let random = Random::new(seed);
        let model = Model::new(TTL.as_millis() as u64, None);
        Self { random, model, maybe: None, claims: Vec::new(), responses: 0 }
    }

    /// Up to `steps` random steps; `false` when the engine failed.
    fn run(&mut self, engine: &Engine, steps: u64) -> bool {
        (0..steps).all(|_| self.step(engine))
    }

    fn step(&mut self, engine: &Engine) -> bool {
        let choice = self.random.below(20);
        match choice {
            0..=8 => self.begin(engine),
            9..=15 if !self.claims.is_empty() => self.end_claim(),
            16 => engine.fold().is_ok(),
            17 => engine.sweep().is_ok(),
            _ => true,
        }
    }

    fn begin(&mut self, engine: &Engine) -> bool {
        let key = self.random.below(u64::from(KEYS)) as u8;
        let mut after = self.model.clone();
        let expected = after.begin(key, 0);
        match engine.begin(&common::key([key]), body("a")).wait() {
            Ok(begin) => {
                self.model = after;
                self.begun(key, begin, expected)
            }
            Err(_) => self.in_doubt(after),
        }
    }

    fn begun(&mut self, key: u8, begin: Begin, expected: Begun) -> bool {
        match (begin, expected) {
            (Begin::Claimed(claim), Begun::Claimed(token)) => {
                self.claims.push((key, token, claim));
                true
            }
            (Begin::Replay(recorded), Begun::Replay(response)) => {
                assert_eq!(recorded.response().map(|bytes| bytes[0]), response);
                true
            }
            (Begin::Locked(_), Begun::Locked) => true,
            (Begin::Orphaned(orphan), Begun::Orphaned(token)) => self.resolve(key, token, orphan),
            (begin, expected) => panic!("key {key}: {begin:?}, but the model says {expected:?}"),
        }
    }

    fn resolve(&mut self, key: u8, token: u64, orphan: Orphan) -> bool {
        let mut after = self.model.clone();
        match self.random.below(3) {
            0 => {
                let (token, ..) = after.take_over(key, token).unwrap();
                match orphan.take_over().wait() {
                    Ok(claim) => self.claims.push((key, token, claim)),
                    Err(_) => return self.in_doubt(after),
                }
            }
            1 => {
                after.release(key, token).unwrap();
                if orphan.release().wait().is_err() {
                    return self.in_doubt(after);
                }
            }
            _ => return true,
        }
        self.model = after;
        true
    }

    fn end_claim(&mut self) -> bool {
        let index = self.random.below(self.claims.len() as u64) as usize;
        let (key, token, claim) = self.claims.swap_remove(index);
        let mut after = self.model.clone();
        let ended = match self.random.below(4) {
            0 => {
                after.abort(key, token).unwrap();
                claim.abort().wait().map_err(|failed| failed.kind())
            }
            _ => {
                self.responses = self.responses.wrapping_add(1);
                after.complete(key, token, Some(self.responses), None).unwrap();
                // Large enough that recent memory fills and folds of its own accord.
                let response = vec![self.responses; 3000];
                claim.complete(&response).wait().map(drop).map_err(|failed| failed.kind())
            }
        };
        match ended {
            Ok(()) => {
                self.model = after;
                true
            }
            Err(kind) => {
                assert!(
                    !matches!(kind, ErrorKind::Fenced | ErrorKind::AlreadyCompleted),
                    "the owner of key {key} was refused: {kind:?}"
                );
                self.in_doubt(after)
            }
        }
    }

    fn in_doubt(&mut self, after: Model) -> bool {
        self.maybe = Some(after);
        false
    }

    /// After a crash: every key is as acknowledged, but for the one operation in doubt. From then
    /// on the model that was right is the model.
    fn check(&mut self, engine: &Engine) {
        self.claims.clear();
        let end = self.model.now;
        let mut candidates = vec![self.model.clone()];
        candidates.extend(self.maybe.take());
        candidates.iter_mut().for_each(|model| model.restart(end));
        let found: Vec<_> = (0..KEYS).map(|key| describe(engine, &[key])).collect();
        let expected: Vec<Vec<_>> = candidates
            .iter()
            .map(|model| (0..KEYS).map(|key| expect(model, key)).collect())
            .collect();
        let right = expected.iter().position(|expected| *expected == found);
        let Some(right) = right else { panic!("found {found:?}, expected one of {expected:?}") };
        self.model = candidates.swap_remove(right);
    }
}

fn describe(engine: &Engine, name: &[u8]) -> String {
    match engine.get(&key(name)).unwrap() {
        Lookup::Absent => "absent".into(),
        Lookup::Orphaned(orphan) => format!("orphan {}", orphan.attempt()),
        Lookup::Completed(recorded) => {
            let response = recorded.response().unwrap();
            assert!(response.len() == 3000 && response.iter().all(|byte| *byte == response[0]));
            format!("completed {}", response[0])
        }
        other => panic!("{other:?} after a restart"),
    }
}

fn expect(model: &Model, key: u8) -> String {
    let mut probe = model.clone();
    match probe.begin(key, 0) {
        Begun::Claimed(_) => "absent".into(),
        Begun::Orphaned(token) => format!("orphan {}", probe.take_over(key, token).unwrap().1 - 1),
        Begun::Replay(response) => format!("completed {}", response.unwrap()),
        other => panic!("the model holds {other:?} after a restart"),
    }
}

/// Opens an image, losing power again and again while it recovers.
fn open_through_crashes(sim: Sim, random: &mut Random) -> (Sim, Engine) {
    let mut sim = sim;
    for _ in 0..random.below(3) {
        sim.disk.power_off_at(random.below(60));
        let opened = sim.options().open("/store");
        let image = sim.disk.crash(CrashMode::PowerLoss { seed: random.below(u64::MAX) });
        drop(opened);
        sim = sim.on(image);
    }
    let engine = sim.open();
    (sim, engine)
}

#[test]
fn power_loss_at_any_moment_loses_nothing_acknowledged() {
    for seed in seeds(0..400) {
        let _named = Seed(seed);
        let mut caller = Caller::new(seed);
        let mut sim = Sim::new();
        let mut engine = sim.open();
        for _life in 0..4 {
            caller.run(&engine, 15);
            sim.disk.power_off_at(caller.random.below(120));
            caller.run(&engine, 40);
            let image =
                sim.disk.crash(CrashMode::PowerLoss { seed: caller.random.below(u64::MAX) });
            caller.claims.clear();
            drop(engine);
            (sim, engine) = open_through_crashes(sim.on(image), &mut caller.random);
            caller.check(&engine);
            sim.clock.advance(Duration::from_secs(7));
            caller.model.now += 7_000;
        }
    }
}

#[test]
fn a_kill_at_any_moment_loses_nothing_acknowledged() {
    for seed in seeds(0..150) {
        let _named = Seed(seed);
        let mut caller = Caller::new(seed ^ 0x6b69_6c6c);
        let mut sim = Sim::new();
        let mut engine = sim.open();
        for _life in 0..3 {
            sim.disk.power_off_at(100 + caller.random.below(200));
            caller.run(&engine, 60);
            let image = sim.disk.crash(CrashMode::ProcessKill);
            caller.claims.clear();
            drop(engine);
            sim = sim.on(image);
            engine = sim.open();
            caller.check(&engine);
            // What the page cache showed to the reopened engine is on disk before it answers.
            let image = sim.disk.crash(CrashMode::LoseAllUnsynced);
            drop(engine);
            sim = sim.on(image);
            engine = sim.open();
            caller.check(&engine);
        }
    }
}

/// What a killed process prepared may be seen and not be durable: segments prepared behind it must
/// not make a hole of it after a power loss.
#[test]
fn a_segment_that_a_killed_process_prepared_is_not_missed_after_a_power_loss() {
    for n in 0..160 {
        let sim = Sim::new();
        sim.disk.power_off_at(n);
        let opened = sim.options().open("/store");
        if let Ok(engine) = &opened {
            // Segments are prepared before anything is folded.
            drop(engine.fold());
        }
        let image = sim.disk.crash(CrashMode::ProcessKill);
        drop(opened);
        let sim = sim.on(image);
        let engine = sim.open();
        engine.fold().unwrap();
        complete(&engine, "k", b"answer");
        let image = sim.disk.crash(CrashMode::LoseAllUnsynced);
        drop(engine);
        assert_eq!(replay(&sim.on(image).open(), "k").response(), Some(&b"answer"[..]));
    }
}

/// Many changes of one group, the power gone during its sync: all of them or none, and what was
/// acknowledged before them in any case.
#[test]
fn a_group_is_there_whole_or_not_at_all() {
    const CALLERS: usize = 24;
    let mut outcomes = BTreeSet::new();
    for round in 0..4_u64 {
        let sim = Sim::new();
        let held = HeldDisk::new(sim.disk.clone(), "journal");
        let engine = sim.options().disk(Arc::new(held.clone())).open("/store").unwrap();
        // Segments are prepared before anything is folded: from here on all syncs are of groups.
        engine.fold().unwrap();
        held.hold();
        let first = engine.begin(&key("first"), body("a"));
        held.wait_for_sync();
        // Queued while the first sync runs: the next group, of one or of several blocks.
        let label = "x".repeat(1 + 60 * round as usize);
        let name = |caller: usize| key(format!("{label} {caller}"));
        let group: Vec<_> =
            (0..CALLERS).map(|caller| engine.begin(&name(caller), body("a"))).collect();
        sim.disk.inject(Fault::at_kind(OpKind::Sync, 1).on_path("journal-0000").power_off());
        held.release();
        assert!(matches!(first.wait().unwrap(), Begin::Claimed(_)));
        for pending in group {
            assert_eq!(pending.wait().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        }
        for seed in 0..40 {
            let _named = Seed(seed);
            let image = sim.disk.crash(CrashMode::PowerLoss { seed: seed << 2 | round });
            let engine = sim.on(image).open();
            let known = |name: &oncekey::Key| !matches!(engine.get(name).unwrap(), Lookup::Absent);
            assert!(known(&key("first")));
            let there = (0..CALLERS).filter(|caller| known(&name(*caller))).count();
            assert!(there == 0 || there == CALLERS, "{there} of {CALLERS}, round {round}");
            outcomes.insert((round, there));
        }
    }
    assert_eq!(outcomes.len(), 8, "both ends of every group were met: {outcomes:?}");
}

/// Tokens are never used twice, with any losses in between: every token that a caller saw, in order.
#[test]
fn tokens_grow_over_crashes() {
    for seed in seeds(0..60) {
        let _named = Seed(seed);
        let mut random = Random::new(seed ^ 0x746f_6b65);
        let mut sim = Sim::new();
        let mut last = None;
        for _life in 0..6 {
            sim.disk.power_off_at(random.below(150));
            let opened = sim.options().open("/store");
            if let Ok(engine) = &opened {
                for number in 0..random.below(40) as u32 {
                    let name =
                        key([&random.below(256).to_le_bytes()[..], &number.to_le_bytes()].concat());
                    let begun = engine.begin(&name, body("a")).wait();
                    if let Ok(Begin::Claimed(claim)) = begun {
                        assert!(last < Some(claim.token()), "{last:?} before {}", claim.token());
                        last = Some(claim.token());
                        if random.below(4) == 0 {
                            drop(engine.fold());
                        }
                        drop(claim.abort().wait());
                    }
                }
            }
            let image = sim.disk.crash(CrashMode::PowerLoss { seed: random.below(u64::MAX) });
            drop(opened);
            sim = sim.on(image);
        }
    }
}

/// One failing operation, then everything works again: the engine refuses writes until it is
/// reopened, and then holds everything that it acknowledged.
#[test]
fn each_operation_of_a_script_failing_once() {
    type MakeFault = fn(u64) -> Fault;
    let faults: [(&str, MakeFault); 4] = [
        ("EIO", |n| Fault::at(n).errno(Fault::EIO)),
        ("EIO, but it happened", |n| Fault::at(n).errno(Fault::EIO).applied()),
        ("a sync that drops its pages", |n| Fault::at(n).errno(Fault::EIO).drop_dirty()),
        ("a write cut short", |n| Fault::at(n).errno(Fault::ENOSPC).partial(4096)),
    ];
    for (name, fault) in faults {
        let total = {
            let sim = Sim::new();
            let engine = sim.open();
            let before = sim.disk.operations();
            Caller::new(7).run(&engine, 60);
            sim.disk.operations() - before
        };
        for n in (0..total).step_by(3) {
            let sim = Sim::new();
            let engine = sim.open();
            let mut caller = Caller::new(7);
            sim.disk.inject(fault(n));
            let unharmed = caller.run(&engine, 60);
            sim.disk.clear_faults();
            if !unharmed {
                assert_refusing(&engine, name, n);
            }
            // A page cache that shows what a failed sync dropped must not deceive the reopening.
            engine.reopen().unwrap_or_else(|error| panic!("{name} at {n}: {error:?}"));
            caller.check(&engine);
            let image = sim.disk.crash(CrashMode::LoseAllUnsynced);
            drop(engine);
            let engine = sim.on(image).open();
            caller.check(&engine);
        }
    }
}

/// A failure latches: writes are refused, reads go on or fail, and nothing is "absent" by mistake.
fn assert_refusing(engine: &Engine, name: &str, n: u64) {
    let refused = engine.begin(&key("never used"), body("a")).wait();
    if let Err(error) = refused {
        assert!(
            matches!(
                error.kind(),
                ErrorKind::Unavailable
                    | ErrorKind::StoreFull
                    | ErrorKind::OutcomeUnknown
                    // No segment could be prepared.
                    | ErrorKind::Io
            ),
            "{name} at {n}: {error:?}"
        );
    }
}

#[test]
fn creation_is_atomic() {
    let total = {
        let disk = SimDisk::new();
        Sim::new().on(disk.clone()).open();
        disk.operations()
    };
    for n in 0..total {
        for seed in 0..4 {
            let sim = Sim::new();
            sim.disk.power_off_at(n);
            // Operations of the folder are counted too: the power may go only after the opening.
            let opened = sim.options().open("/store");
            let acknowledged = opened
                .as_ref()
                .is_ok_and(|engine| engine.begin(&key("early"), body("a")).wait().is_ok());
            let image = sim.disk.crash(CrashMode::PowerLoss { seed });
            let engine = sim.on(image).open();
            if acknowledged {
                assert_ne!(describe(&engine, b"early"), "absent");
            }
            complete(&engine, "k", b"works");
        }
    }
}

/// Zeros, sync, header, sync: a segment that has its header has its whole length.
#[test]
fn segments_are_prepared_so_that_a_crash_leaves_them_whole_or_unused() {
    let opened = {
        let sim = Sim::new();
        let engine = sim.open();
        let operations = sim.disk.operations();
        drop(engine);
        operations
    };
    for n in 0..30 {
        for seed in 0..40 {
            let sim = Sim::new();
            sim.disk.power_off_at(opened.saturating_sub(10) + n);
            let engine = sim.options().open("/store");
            if let Ok(engine) = &engine {
                // Enough groups to use the operations up, if the folder does not.
                let begin = |n: i32| engine.begin(&key(n.to_le_bytes()), body("a")).wait();
                (0..50).all(|n| begin(n).is_ok());
            }
            let image = sim.disk.crash(CrashMode::PowerLoss { seed });
            drop(engine);
            sim.on(image).open();
        }
    }
}
