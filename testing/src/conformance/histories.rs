//! Compares the engine with the model over random sequences of all calls of a caller, with
//! restarts, kills, clock jumps, folds and sweeps between them. `PROPTEST_CASES` sets the number of
//! sequences.

use std::time::Duration;

use oncekey::{Begin, Claim, Engine, ErrorKind, Failed, Fingerprint, Key, Lookup, Orphan};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

use super::{Bounds, Rig, cases};
use crate::{Begun, Model, Refused};

cases!($ histories: the_engine_agrees_with_the_model);

/// In the units of time of the rig.
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
    /// The clocks of the machine show another time after the restart.
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

/// The engine and the model side by side, with the handles of a caller.
struct World<R> {
    rig: R,
    engine: Engine,
    bounds: Bounds,
    model: Model,
    claims: Vec<(u8, u64, Claim)>,
    orphans: Vec<(u8, u64, Orphan)>,
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

impl<R: Rig> World<R> {
    fn new(rig: R, max_execution: Option<u64>) -> Self {
        let bounds = Bounds {
            ttl: Self::span(TTL),
            max_execution: max_execution.map(Self::span),
            ..Bounds::default()
        };
        let engine = rig.open_nth(0, &bounds);
        let model = Model::new(TTL, max_execution);
        Self { rig, engine, bounds, model, claims: vec![], orphans: vec![] }
    }

    /// The duration of this many units of the model's time.
    fn span(units: u64) -> Duration {
        R::UNIT * u32::try_from(units).unwrap()
    }

    fn take_claim(&mut self, index: usize) -> Option<(u8, u64, Claim)> {
        let index = self.usable_claim(index)?;
        Some(self.claims.swap_remove(index))
    }

    /// The index of a claim that the backend and the model treat alike. In a fleet, a lapsed claim
    /// whose record has expired may be ended as long as its row exists.
    fn usable_claim(&self, index: usize) -> Option<usize> {
        let index = index.checked_rem(self.claims.len())?;
        let (key, token, _) = &self.claims[index];
        (!R::LAPSES || !self.model.has_expired(*key, *token)).then_some(index)
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
                let ttl_duration = ttl.map(Self::span);
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
                let Some(index) = self.usable_claim(claim) else { return };
                let (key, token, claim) = &self.claims[index];
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
                // The drop does not wait until its change is durable, so the test does.
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
                self.rig.advance(&self.engine, Self::span(millis));
                self.model.now += millis;
            }
            Step::Restart { wall_seconds } => self.restart(wall_seconds),
            Step::Kill => self.kill(),
            Step::Reopen => {
                let end = self.stored_time();
                self.engine.reopen().unwrap();
                match R::LAPSES {
                    true => (0..KEYS).for_each(|key| self.model.lapse(key)),
                    false => self.model.restart(end),
                }
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
        // A fleet lists some of its orphans only in its upkeep.
        self.engine.sweep().unwrap();
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
        // Begins on a copy of the model show the state without changing it.
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

    /// Makes the store hold the present time, which becomes the end of its epoch.
    fn stored_time(&self) -> u64 {
        self.engine.sweep().unwrap();
        self.model.now
    }

    fn forget_handles(&mut self) {
        self.claims.clear();
        self.orphans.clear();
    }

    /// A clean stop. The wall clock may show any time afterwards.
    fn restart(&mut self, wall_seconds: i64) {
        let end = self.stored_time();
        self.engine.close().unwrap();
        self.forget_handles();
        self.rig.step_clock(wall_seconds);
        self.engine = self.rig.open_nth(0, &self.bounds);
        self.started_again(end);
    }

    /// Kills the engine: the machine keeps the writes, and the engine cannot close.
    fn kill(&mut self) {
        let end = self.stored_time();
        self.rig.kill();
        let next = self.rig.open_nth(0, &self.bounds);
        drop(std::mem::replace(&mut self.engine, next));
        self.forget_handles();
        self.started_again(end);
    }

    /// Sets the time of the model: engine time goes on from the later of the store's time and the
    /// wall clock.
    fn started_again(&mut self, end: u64) {
        self.model.restart(end);
        let wall = self.rig.since_start().as_millis() / R::UNIT.as_millis();
        self.model.now = end.max(wall as u64);
    }
}

fn the_engine_agrees_with_the_model<R: Rig>(first: R) {
    let mut config = ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/model.proptest-regressions",
        ))),
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = R::PACE;
    }
    let first = std::cell::Cell::new(Some(first));
    let histories = (any::<bool>(), proptest::collection::vec(step(), 1..60));
    let agreed = TestRunner::new(config).run(&histories, |(limited, steps)| {
        if let Some(rig) = first.take().or_else(R::new) {
            let mut world = World::new(rig, limited.then_some(MAX_EXECUTION));
            steps.into_iter().for_each(|step| world.run(step));
        }
        Ok(())
    });
    if let Err(disagreement) = agreed {
        panic!("{disagreement}");
    }
}
