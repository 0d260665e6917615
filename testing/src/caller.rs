//! A caller that makes random calls of every kind, and reports each call and its answer.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use oncekey::{Begin, Claim, Engine, ErrorKind, Orphan};

use crate::calls::body;
use crate::linear::{Answer, Call, CallId, History};
use crate::random::Random;

/// A token as a caller can send it to another process.
pub type Token = [u8; 24];

/// Receives the calls of a caller and their answers.
pub trait Sink {
    /// Called before the engine is called.
    fn call(&self, key: u8, call: Call<Token>) -> CallId;
    /// Called after the engine has answered.
    fn answer(&self, id: CallId, answer: Answer<Token>);
}

impl Sink for History<Token> {
    fn call(&self, key: u8, call: Call<Token>) -> CallId {
        self.call(key, call)
    }
    fn answer(&self, id: CallId, answer: Answer<Token>) {
        self.answer(id, answer);
    }
}

/// A caller on one thread.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Caller<'a, S> {
    pub engine: &'a Engine,
    pub sink: &'a S,
    pub random: Random,
    pub keys: u8,
    pub claims: Vec<(u8, Claim)>,
}

/// The answer that a begin or a take-over gives with this claim.
pub fn claimed(claim: &Claim) -> Answer<Token> {
    Answer::Claimed {
        token: claim.token().to_bytes(),
        attempt: claim.attempt(),
        // When the engine has lost the claim meanwhile, the checkpoint cannot be read any more.
        checkpoint: claim.last_checkpoint().ok().map(|saved| saved.map(|data| data[0])),
    }
}

/// The answer that stands for this error.
pub fn failed(kind: ErrorKind) -> Answer<Token> {
    match kind {
        ErrorKind::Fenced => Answer::Fenced,
        ErrorKind::AlreadyCompleted => Answer::AlreadyCompleted,
        ErrorKind::OutcomeUnknown => Answer::Unknown,
        ErrorKind::Unavailable
        | ErrorKind::Closed
        | ErrorKind::Overloaded
        | ErrorKind::StoreFull
        | ErrorKind::Io => Answer::Refused,
        other => panic!("{other:?}"),
    }
}

impl<S: Sink> Caller<'_, S> {
    /// Takes random steps and returns the claims that are still held.
    pub fn run(mut self, steps: u64) -> Vec<(u8, Claim)> {
        (0..steps).for_each(|_| self.step());
        self.claims
    }

    /// Takes one random step.
    pub fn step(&mut self) {
        match self.random.below(10) {
            0..=4 => self.begin(),
            5 if !self.claims.is_empty() => self.checkpoint(),
            6..=8 if !self.claims.is_empty() => self.end(),
            9 if self.random.below(4) == 0 => drop(self.engine.fold()),
            _ => self.begin(),
        }
    }

    fn begin(&mut self) {
        let key = self.random.below(self.keys.into()) as u8;
        let other = self.random.below(8) == 0;
        let id = self.sink.call(key, Call::Begin { body: u8::from(other) });
        let body = body(if other { "b" } else { "a" });
        let begun = match self.random.below(3) {
            0 => {
                self.engine.begin_waiting(&crate::calls::key([key]), body, Duration::from_millis(2))
            }
            _ => self.engine.begin(&crate::calls::key([key]), body),
        };
        let begun = begun.wait();
        let answer = match &begun {
            Ok(Begin::Claimed(claim)) => claimed(claim),
            Ok(Begin::Replay(recorded)) => Answer::Replay(recorded.response().unwrap()[0]),
            Ok(Begin::Locked(_)) => Answer::Locked,
            Ok(Begin::Mismatch(_)) => Answer::Mismatch,
            Ok(Begin::Orphaned(orphan)) => Answer::Orphaned(orphan.token().to_bytes()),
            Err(error) => failed(error.kind()),
        };
        self.sink.answer(id, answer);
        match begun {
            Ok(Begin::Claimed(claim)) => self.claims.push((key, claim)),
            Ok(Begin::Orphaned(orphan)) => self.resolve(key, orphan),
            _ => {}
        }
    }

    fn resolve(&mut self, key: u8, orphan: Orphan) {
        let token = orphan.token().to_bytes();
        match self.random.below(4) {
            0 => {
                let id = self.sink.call(key, Call::TakeOver { token });
                match orphan.take_over().wait() {
                    Ok(claim) => {
                        self.sink.answer(id, claimed(&claim));
                        self.claims.push((key, claim));
                    }
                    Err(error) => self.sink.answer(id, failed(error.kind())),
                }
            }
            1 => {
                let response = self.random.below(256) as u8;
                let id = self.sink.call(key, Call::Complete { token, response });
                self.told(id, orphan.complete(&[response]).wait().map(drop).map_err(|f| f.kind()));
            }
            2 => {
                let id = self.sink.call(key, Call::Release { token });
                self.told(id, orphan.release().wait().map_err(|f| f.kind()));
            }
            _ => {}
        }
    }

    fn told(&self, id: CallId, result: Result<(), ErrorKind>) {
        self.sink.answer(id, result.map_or_else(failed, |()| Answer::Done));
    }

    fn checkpoint(&mut self) {
        let index = self.random.below(self.claims.len() as u64) as usize;
        let (key, claim) = &self.claims[index];
        let (token, data) = (claim.token().to_bytes(), self.random.below(256) as u8);
        let id = self.sink.call(*key, Call::Checkpoint { token, data });
        self.told(id, claim.checkpoint(&[data]).wait().map_err(|error| error.kind()));
    }

    fn end(&mut self) {
        let index = self.random.below(self.claims.len() as u64) as usize;
        let (key, claim) = self.claims.swap_remove(index);
        let token = claim.token().to_bytes();
        let failed = match self.random.below(6) {
            0 => {
                let id = self.sink.call(key, Call::Abort { token });
                let result = claim.abort().wait();
                self.told(id, result.as_ref().copied().map_err(|failed| failed.kind()));
                result.err()
            }
            1 => {
                // No caller hears of this end.
                self.sink.call(key, Call::Drop { token });
                drop(claim);
                None
            }
            _ => {
                let response = self.random.below(256) as u8;
                let id = self.sink.call(key, Call::Complete { token, response });
                let result = claim.complete(&[response]).wait();
                self.told(id, result.as_ref().map(drop).map_err(|failed| failed.kind()));
                result.err()
            }
        };
        if let Some(claim) = failed.and_then(|failed| failed.into_handle()) {
            self.claims.push((key, claim));
        }
    }
}
