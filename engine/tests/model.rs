//! The engine against the model: random sequences of everything that a caller can do, with
//! restarts, kills, clock jumps, folds and sweeps between the steps.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use oncekey::{Begin, Claim, Engine, ErrorKind, Failed, Fingerprint, Key, Lookup, Options, Orphan};
use oncekey_testing::{Begun, CrashMode, ManualClock, Model, Refused, SimDisk};
use proptest::prelude::*;

const TTL: u64 = 10_000;
const MAX_EXECUTION: u64 = 7_000;
const KEYS: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    Begin {
        key: u8,
        body: u8,
    },
    Complete {
        claim: usize,
        response: Option<u8>,
        ttl: Option<u64>,
    },
    Abort {
        claim: usize,
    },
    Checkpoint {
        claim: usize,
        data: u8,
    },
    DropClaim {
        claim: usize,
    },
    TakeOver {
        orphan: usize,
    },
    CompleteOrphan {
        orphan: usize,
        response: u8,
    },
    Release {
        orphan: usize,
    },
    ListOrphans,
    Get {
        key: u8,
    },
    Fold,
    Sweep,
    Advance {
        millis: u64,
    },
    /// The clocks of the machine stand elsewhere after the restart.
    Restart {
        wall_seconds: i64,
    },
    Kill,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0..8usize;
    prop_oneof![
        8 => (0..KEYS, 0..2u8).prop_map(|(key, body)| Step::Begin { key, body }),
        4 => (index.clone(), any::<Option<u8>>(), proptest::option::of(0..2 * TTL))
            .prop_map(|(claim, response, ttl)| Step::Complete { claim, response, ttl }),
        2 => index.clone().prop_map(|claim| Step::Abort { claim }),
        2 => (index.clone(), any::<u8>()).prop_map(|(claim, data)| Step::Checkpoint { claim, data }),
        2 => index.clone().prop_map(|claim| Step::DropClaim { claim }),
        3 => index.clone().prop_map(|orphan| Step::TakeOver { orphan }),
        2 => (index.clone(), any::<u8>())
            .prop_map(|(orphan, response)| Step::CompleteOrphan { orphan, response }),
        2 => index.prop_map(|orphan| Step::Release { orphan }),
        1 => Just(Step::ListOrphans),
        2 => (0..KEYS).prop_map(|key| Step::Get { key }),
        2 => Just(Step::Fold),
        1 => Just(Step::Sweep),
        3 => (1..TTL).prop_map(|millis| Step::Advance { millis }),
        1 => (-7200..7200i64).prop_map(|wall_seconds| Step::Restart { wall_seconds }),
        2 => Just(Step::Kill),
        1 => Just(Step::Reopen),
    ]
}

/// The engine and the model side by side, with the handles that a caller could hold.
struct World {
    engine: Engine,
    disk: SimDisk,
    clock: ManualClock,
    model: Model,
    max_execution: Option<u64>,
    claims: Vec<(u8, u64, Claim)>,
    orphans: Vec<(u8, u64, Orphan)>,
}

fn open(disk: &SimDisk, clock: &ManualClock, max_execution: Option<u64>) -> Engine {
    Options::new()
        .ttl(Duration::from_millis(TTL))
        .max_execution(max_execution.map(Duration::from_millis))
        .max_response(1024)
        .max_checkpoint(1024)
        .segment_bytes(128 << 10)
        .recent_bytes(64 << 10)
        .disk(Arc::new(disk.clone()))
        .clock(Arc::new(clock.clone()))
        .open("/store")
        .unwrap()
}

fn key(key: u8) -> Key {
    Key::new("scope", [b'k', key]).unwrap()
}

fn fingerprint(body: u8) -> Fingerprint {
    Fingerprint::builder().part("body", [body]).finish()
}

fn refused<T, H>(result: Result<T, Failed<H>>) -> Result<T, Refused> {
    result.map_err(|failed| match failed.kind() {
        ErrorKind::Fenced => Refused::Fenced,
        ErrorKind::AlreadyCompleted => Refused::AlreadyCompleted,
        other => panic!("unexpected {other:?}"),
    })
}

impl World {
    fn new(max_execution: Option<u64>) -> Self {
        let (disk, clock) = (SimDisk::new(), ManualClock::new());
        let engine = open(&disk, &clock, max_execution);
        let model = Model::new(TTL, max_execution);
        Self { engine, disk, clock, model, max_execution, claims: vec![], orphans: vec![] }
    }

    fn take_claim(&mut self, index: usize) -> Option<(u8, u64, Claim)> {
        (!self.claims.is_empty()).then(|| self.claims.swap_remove(index % self.claims.len()))
    }

    fn take_orphan(&mut self, index: usize) -> Option<(u8, u64, Orphan)> {
        (!self.orphans.is_empty()).then(|| self.orphans.swap_remove(index % self.orphans.len()))
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Begin { key, body } => self.begin(key, body),
            Step::Complete { claim, response, ttl } => {
                let Some((key, token, claim)) = self.take_claim(claim) else { return };
                let bytes = response.map(|response| [response]);
                let ttl_duration = ttl.map(Duration::from_millis);
                let completed = claim
                    .complete_with(bytes.as_ref().map(|bytes| &bytes[..]), ttl_duration)
                    .wait()
                    .map(|completion| assert_eq!(completion.response_kept(), response.is_some()));
                assert_eq!(refused(completed), self.model.complete(key, token, response, ttl));
            }
            Step::Abort { claim } => {
                let Some((key, token, claim)) = self.take_claim(claim) else { return };
                assert_eq!(refused(claim.abort().wait()), self.model.abort(key, token));
            }
            Step::Checkpoint { claim, data } => {
                if self.claims.is_empty() {
                    return;
                }
                let (key, token, claim) = &self.claims[claim % self.claims.len()];
                let saved = claim.checkpoint(&[data]).wait().map_err(Failed::<()>::from);
                assert_eq!(refused(saved), self.model.checkpoint(*key, *token, data));
            }
            Step::DropClaim { claim } => {
                let Some((key, token, claim)) = self.take_claim(claim) else { return };
                let answered = |engine: &Engine| {
                    let stats = engine.stats();
                    stats.abandoned + stats.fenced
                };
                let before = answered(&self.engine);
                drop(claim);
                // A drop waits for nobody; the test waits for its change to be durable.
                while answered(&self.engine) == before {
                    std::thread::yield_now();
                }
                self.model.owner_gone(key, token);
            }
            Step::TakeOver { orphan } => self.take_over(orphan),
            Step::CompleteOrphan { orphan, response } => {
                let Some((key, token, orphan)) = self.take_orphan(orphan) else { return };
                let completed = orphan.complete(&[response]).wait().map(drop);
                let expected = self.model.complete(key, token, Some(response), None);
                assert_eq!(refused(completed), expected);
            }
            Step::Release { orphan } => {
                let Some((key, token, orphan)) = self.take_orphan(orphan) else { return };
                assert_eq!(refused(orphan.release().wait()), self.model.release(key, token));
            }
            Step::ListOrphans => self.list_orphans(),
            Step::Get { key } => self.get(key),
            Step::Fold => self.engine.fold().unwrap(),
            Step::Sweep => drop(self.engine.sweep().unwrap()),
            Step::Advance { millis } => {
                self.clock.advance(Duration::from_millis(millis));
                self.model.now += millis;
            }
            Step::Restart { wall_seconds } => self.restart(wall_seconds),
            Step::Kill => self.kill(),
            Step::Reopen => {
                let end = self.stored_time();
                self.engine.reopen().unwrap();
                self.model.restart(end);
            }
        }
    }

    fn begin(&mut self, key_byte: u8, body: u8) {
        let begin = self.engine.begin(&key(key_byte), fingerprint(body)).wait().unwrap();
        match (begin, self.model.begin(key_byte, body)) {
            (Begin::Claimed(claim), Begun::Claimed(token)) => {
                assert_eq!(claim.attempt(), 1);
                self.claims.push((key_byte, token, claim));
            }
            (Begin::Replay(recorded), Begun::Replay(response)) => {
                assert_eq!(recorded.response(), response.map(|r| [r]).as_ref().map(|r| &r[..]));
            }
            (Begin::Locked(_), Begun::Locked) => {}
            (Begin::Mismatch(mismatch), Begun::Mismatch) => assert_eq!(mismatch.parts(), ["body"]),
            (Begin::Orphaned(orphan), Begun::Orphaned(token)) => {
                self.orphans.push((key_byte, token, orphan));
            }
            (engine, model) => panic!("engine {engine:?}, model {model:?}"),
        }
    }

    fn take_over(&mut self, orphan: usize) {
        let Some((key, token, orphan)) = self.take_orphan(orphan) else { return };
        match (refused(orphan.take_over().wait()), self.model.take_over(key, token)) {
            (Ok(claim), Ok((token, attempt, checkpoint))) => {
                assert_eq!(claim.attempt(), attempt);
                let expected = checkpoint.map(|data| [data]);
                let found = claim.last_checkpoint().unwrap();
                assert_eq!(found.as_deref(), expected.as_ref().map(|data| &data[..]));
                self.claims.push((key, token, claim));
            }
            (Err(engine), Err(model)) => assert_eq!(engine, model),
            (engine, model) => panic!("engine {engine:?}, model {model:?}"),
        }
    }

    fn list_orphans(&mut self) {
        let listed = self.engine.orphans().unwrap();
        let expected = self.model.orphans();
        let mut keys: Vec<_> = listed.iter().map(|orphan| orphan.key().key()[1]).collect();
        keys.sort_unstable();
        assert_eq!(keys, expected.keys().copied().collect::<Vec<_>>());
        for orphan in listed {
            let key = orphan.key().key()[1];
            self.orphans.push((key, expected[&key], orphan));
        }
    }

    fn get(&mut self, key_byte: u8) {
        let found = self.engine.get(&key(key_byte)).unwrap();
        // A probe on a copy tells the state without changing it.
        let bodies = [0, 1].map(|body| self.model.clone().begin(key_byte, body));
        let matching = |found: &Lookup, begun: &Begun| match (found, begun) {
            (Lookup::Absent, Begun::Claimed(_)) => true,
            (Lookup::InFlight(_), Begun::Locked) => true,
            (Lookup::Orphaned(_), Begun::Orphaned(_)) => true,
            (Lookup::Completed(recorded), Begun::Replay(response)) => {
                recorded.response() == response.map(|r| [r]).as_ref().map(|r| &r[..])
            }
            _ => false,
        };
        assert!(bodies.iter().any(|begun| matching(&found, begun)), "{found:?} {bodies:?}");
    }

    /// Makes the store hold the present time, which is then the end of its epoch.
    fn stored_time(&self) -> u64 {
        self.engine.sweep().unwrap();
        self.model.now
    }

    fn forget_handles(&mut self) {
        self.claims.clear();
        self.orphans.clear();
    }

    /// A clean stop; the wall clock may stand anywhere afterwards.
    fn restart(&mut self, wall_seconds: i64) {
        let end = self.stored_time();
        self.engine.close().unwrap();
        self.forget_handles();
        self.clock.jump_wall(wall_seconds);
        self.engine = open(&self.disk, &self.clock, self.max_execution);
        self.model.restart(end);
        // Engine time goes on from the later of the store's time and the wall clock.
        self.model.now = end.max(self.wall());
    }

    /// The machine keeps what was written; the engine gets no chance to say goodbye.
    fn kill(&mut self) {
        let end = self.stored_time();
        let image = self.disk.crash(CrashMode::ProcessKill);
        let old =
            std::mem::replace(&mut self.engine, open(&image, &self.clock, self.max_execution));
        self.disk = image;
        drop(old);
        self.forget_handles();
        self.model.restart(end);
        self.model.now = end.max(self.wall());
    }

    /// Milliseconds on the wall clock since the test began.
    fn wall(&self) -> u64 {
        use oncekey::Clock;
        let start = ManualClock::new().wall();
        self.clock.wall().duration_since(start).map_or(0, |since| since.as_millis() as u64)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_the_model(
        limited in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(limited.then_some(MAX_EXECUTION));
        for step in steps {
            world.run(step);
        }
    }
}
