//! A state that a key may be in, and the states that may follow.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::{Answer, Call, Event, Restart};
use crate::model::{Begun, Model, Refused};

/// One state that a key may be in, and the engine's names for the model's tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Possible<T> {
    pub(super) model: Model,
    pub(super) names: BTreeMap<T, u64>,
}

impl<T: Clone + Ord + Debug> Possible<T> {
    /// The state after a call; `None` when the model would have answered otherwise.
    pub(super) fn after(&self, event: &Event<T>) -> Option<Self> {
        let mut next = self.clone();
        let model = &mut next.model;
        let answer = event.certain().map(|(_, answer)| answer);
        let name = |token: &T| self.names.get(token).copied();
        let result = match &event.call {
            Call::Begin { body } => {
                let begun = model.begin(0, *body);
                let Some(answer) = answer else { return Some(next) };
                return next.begun(begun, answer);
            }
            Call::TakeOver { token } => {
                let taken = model.take_over(0, name(token)?);
                let Some(answer) = answer else { return Some(next) };
                return next.taken(taken, answer);
            }
            Call::Complete { token, response } => {
                model.complete(0, name(token)?, Some(*response), None)
            }
            Call::Abort { token } => model.abort(0, name(token)?),
            Call::Checkpoint { token, data } => model.checkpoint(0, name(token)?, *data),
            Call::Release { token } => model.release(0, name(token)?),
            Call::Drop { token } => {
                model.owner_gone(0, name(token)?);
                Ok(())
            }
            Call::Get => {
                let stored = model.stored(0);
                let Some(answer) = answer else { return Some(next) };
                return next.stored(stored, answer);
            }
            Call::Withdraw => {
                let unheard = model.held(0).filter(|own| !self.names.values().any(|n| n == own));
                unheard.map_or(Ok(()), |own| model.abort(0, own))
            }
            Call::Lapse => {
                model.lapse(0);
                Ok(())
            }
            Call::Elapse { millis } => {
                model.now += millis;
                Ok(())
            }
        };
        answer.is_none_or(|answer| answer.is(&result)).then_some(next)
    }

    /// The state after a begin, when the answer is the model's.
    fn begun(self, begun: Begun, answer: &Answer<T>) -> Option<Self> {
        match (begun, answer) {
            (
                Begun::Claimed(own),
                Answer::Claimed { token, attempt: 1, checkpoint: None | Some(None) },
            ) => self.named(token, own),
            (Begun::Orphaned(own), Answer::Orphaned(token)) => self.named(token, own),
            (Begun::Replay(Some(kept)), Answer::Replay(told)) => (kept == *told).then_some(self),
            (Begun::Locked, Answer::Locked) | (Begun::Mismatch, Answer::Mismatch) => Some(self),
            (_, Answer::Unheard) => Some(self),
            _ => None,
        }
    }

    /// The state after a take-over, when the answer is the model's.
    fn taken(
        self,
        taken: Result<(u64, u32, Option<u8>), Refused>,
        answer: &Answer<T>,
    ) -> Option<Self> {
        match (taken, answer) {
            (Ok((own, number, last)), Answer::Claimed { token, attempt, checkpoint }) => {
                let told = *attempt == number && checkpoint.is_none_or(|read| read == last);
                told.then(|| self.named(token, own)).flatten()
            }
            (Err(refused), answer) => answer.is(&Err(refused)).then_some(self),
            _ => None,
        }
    }

    /// The state after a read of the record, when the answer is the model's.
    fn stored(self, stored: Begun, answer: &Answer<T>) -> Option<Self> {
        match (stored, answer) {
            (Begun::Claimed(_), Answer::Absent) | (Begun::Locked, Answer::Locked) => Some(self),
            (Begun::Orphaned(own), Answer::Orphaned(token)) => self.named(token, own),
            (Begun::Replay(Some(kept)), Answer::Replay(told)) => (kept == *told).then_some(self),
            _ => None,
        }
    }

    /// Notes that the engine calls the model's token `own` by the name `token`; `None` when one of
    /// them is known by another name.
    fn named(mut self, token: &T, own: u64) -> Option<Self> {
        let known = self.names.get(token);
        let fits = match known {
            Some(known) => *known == own,
            None => !self.names.values().any(|other| *other == own),
        };
        self.names.insert(token.clone(), own);
        fits.then_some(self)
    }

    pub(super) fn restarted(&self, restart: &Restart) -> Vec<Self> {
        let at = |end: u64, now: u64| {
            let mut state = self.clone();
            state.model.restart(end);
            state.model.now = now;
            state
        };
        match restart {
            Restart::After(advance) => vec![at(self.model.now, self.model.now + advance)],
            Restart::Dated { ends, now } => ends.iter().map(|end| at(*end, *now)).collect(),
        }
    }
}

impl<T> Answer<T> {
    fn is(&self, result: &Result<(), Refused>) -> bool {
        matches!(
            (self, result),
            (Self::Done, Ok(()))
                | (Self::Fenced, Err(Refused::Fenced))
                | (Self::AlreadyCompleted, Err(Refused::AlreadyCompleted))
        )
    }
}
