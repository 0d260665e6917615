//! Nothing acknowledged is lost, nothing runs twice: crashes and failing operations at every place,
//! on a simulated disk, checked against the model.
//!
//! `ONCEKEY_SEEDS=5000..6000 cargo test -p oncekey --test crash` runs other seeds than the slice
//! that runs by default; a failure names its seed.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod failing;
mod growth;
mod moments;
mod preparing;

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
    /// The model after the one operation that failed and may have happened.
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

    /// After a crash every key is as acknowledged, except for the one operation in doubt. The model
    /// that was right replaces both.
    fn check(&mut self, engine: &Engine) {
        self.claims.clear();
        let end = self.model.now;
        let mut candidates = vec![self.model.clone()];
        candidates.extend(self.maybe.take());
        candidates.iter_mut().for_each(|model| model.restart(end));
        let found: Vec<_> = (0..KEYS).map(|key| describe(engine, &[key])).collect();
        let expected: Vec<Vec<_>> = candidates
            .iter()
            .map(|model| (0..KEYS).map(|key| after_restart(model, key)).collect())
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
