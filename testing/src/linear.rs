//! Linearizability: whether the answers to concurrent callers can be put into one order that the
//! [`Model`] would have given.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993), with
//! Lowe's memory of the orders tried. Each key is searched alone, since no call concerns two keys.
//! Restarts are barriers: a call is before or after one. A call whose outcome is unknown may have
//! happened between its start and the next restart, or not at all. From each barrier on, the
//! search goes on with every state that is still possible.

mod possible;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};

use parking_lot::Mutex;

use self::possible::Possible;
use crate::model::Model;

/// A call on a key. `T` is a token as the engine gives it. Bodies, responses and checkpoints are
/// single bytes, as in the [`Model`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Call<T> {
    Begin {
        body: u8,
    },
    Complete {
        token: T,
        response: u8,
    },
    Abort {
        token: T,
    },
    Checkpoint {
        token: T,
        data: u8,
    },
    /// The claim was dropped: no caller learns whether and when this took effect.
    Drop {
        token: T,
    },
    TakeOver {
        token: T,
    },
    Release {
        token: T,
    },
    /// Reads the record without a change.
    Get,
    /// The `Pending` of a begin was dropped: a claim that no caller received is aborted.
    Withdraw,
    /// The instance that holds the claim was declared dead.
    Lapse,
    /// Time passes for every key.
    Elapse {
        millis: u64,
    },
}

/// The answer that the caller got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// A claim, from a begin or a take-over.
    Claimed {
        /// The token of the new claim.
        token: T,
        /// The number of the attempt.
        attempt: u32,
        /// The last checkpoint; the outer `None` when the caller could not read it.
        checkpoint: Option<Option<u8>>,
    },
    /// Completed before, with this response.
    Replay(u8),
    /// In flight.
    Locked,
    /// The key belongs to another request.
    Mismatch,
    /// An orphan, with its token.
    Orphaned(T),
    /// The change happened.
    Done,
    /// The token is not the newest.
    Fenced,
    /// The record was completed before.
    AlreadyCompleted,
    /// The call was refused: it must not have taken effect.
    Refused,
    /// The call may or may not have taken effect.
    Unknown,
    /// Nothing is stored.
    Absent,
    /// The begin was decided, but no caller received its answer.
    Unheard,
}

/// Names a call until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub usize);

#[derive(Clone, Debug)]
struct Event<T> {
    key: u8,
    phase: usize,
    called: u64,
    /// `None` until the answer comes; it never comes when the caller dies.
    answered: Option<(u64, Answer<T>)>,
    call: Call<T>,
}

/// The calls and their answers, in the order in which callers saw them. All callers share it.
#[derive(Debug)]
pub struct History<T> {
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    clock: u64,
    events: Vec<Event<T>>,
    restarts: Vec<Restart>,
}

#[derive(Debug)]
enum Restart {
    /// The epoch ended at the current time, and this many milliseconds passed afterwards.
    After(u64),
    /// The epoch ended at one of `ends`, and the next one began at `now`.
    Dated { ends: Vec<u64>, now: u64 },
}

/// A key for which no order of the calls explains the answers.
#[derive(Clone)]
pub struct Violation(String);

impl Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T: Clone + Ord + Debug> History<T> {
    /// A history without calls.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let inner = Inner { clock: 0, events: Vec::new(), restarts: Vec::new() };
        Self { inner: Mutex::new(inner) }
    }

    /// Records a call. The caller uses this before it calls the engine.
    pub fn call(&self, key: u8, call: Call<T>) -> CallId {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        let event =
            Event { key, phase: inner.restarts.len(), called: inner.clock, answered: None, call };
        inner.events.push(event);
        CallId(inner.events.len() - 1)
    }

    /// Records an answer. The caller uses this after the engine has answered.
    pub fn answer(&self, CallId(id): CallId, answer: Answer<T>) {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        inner.events[id].answered = Some((inner.clock, answer));
    }

    /// Records a restart of the engine, after which `advance` milliseconds passed. No call may be
    /// under way.
    pub fn restart(&self, advance: u64) {
        self.inner.lock().restarts.push(Restart::After(advance));
    }

    /// Records that time passed. Calls may be under way.
    pub fn elapse(&self, millis: u64) {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        let (at, phase) = (inner.clock, inner.restarts.len());
        let answered = Some((at, Answer::Done));
        let call = Call::Elapse { millis };
        inner.events.push(Event { key: 0, phase, called: at, answered, call });
    }

    /// Records a restart of the engine. The last time that it stored is one of `ends`; afterwards
    /// the time was `now`. Both are milliseconds from the beginning. No call may be under way.
    pub fn restart_dated(&self, ends: Vec<u64>, now: u64) {
        self.inner.lock().restarts.push(Restart::Dated { ends, now });
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.inner.lock().events.len()
    }

    /// Checks that every key's calls can be put in order, from an empty store with this TTL.
    ///
    /// # Errors
    /// For the first key whose calls cannot be put in order.
    pub fn check(&self, ttl: u64) -> Result<(), Violation> {
        let inner = self.inner.lock();
        let of_keys = inner.events.iter().filter(|event| !event.is_for_all());
        let keys: BTreeSet<_> = of_keys.map(|event| event.key).collect();
        keys.into_iter().try_for_each(|key| inner.check_key(key, ttl))
    }
}

impl<T: Clone + Ord + Debug> Inner<T> {
    fn check_key(&self, key: u8, ttl: u64) -> Result<(), Violation> {
        let empty = Possible { model: Model::new(ttl, None), names: BTreeMap::new() };
        let mut states = BTreeSet::from([empty]);
        for phase in 0..=self.restarts.len() {
            let events: Vec<_> = (self.events.iter())
                .filter(|event| event.phase == phase && (event.is_for_all() || event.key == key))
                .filter(|event| !matches!(event.answered, Some((_, Answer::Refused))))
                .collect();
            let one_is_enough = phase == self.restarts.len();
            let (tried, ends) = (BTreeSet::new(), BTreeSet::new());
            let mut search = Search { events: &events, one_is_enough, tried, ends };
            states.iter().for_each(|state| search.run(Done::new(events.len()), state));
            if search.ends.is_empty() {
                return Err(violation(key, phase, &states, &events));
            }
            states = search.ends;
            if let Some(restart) = self.restarts.get(phase) {
                states = states.iter().flat_map(|state| state.restarted(restart)).collect();
            }
        }
        Ok(())
    }
}

fn violation<T: Debug>(
    key: u8,
    phase: usize,
    states: &BTreeSet<Possible<T>>,
    events: &[&Event<T>],
) -> Violation {
    let mut text = format!("key {key} in phase {phase}: no order explains\n");
    for Event { called, answered, call, .. } in events {
        text += &format!("  {called}: {call:?} -> {answered:?}\n");
    }
    Violation(text + &format!("from any of {states:#?}"))
}

/// Which calls have their place in the order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Done(Vec<u64>);

impl Done {
    fn new(calls: usize) -> Self {
        Self(vec![0; calls.div_ceil(64)])
    }
    fn has(&self, call: usize) -> bool {
        self.0[call / 64] & 1 << (call % 64) != 0
    }
    fn put(&mut self, call: usize) {
        self.0[call / 64] |= 1 << (call % 64);
    }
}

struct Search<'a, T> {
    events: &'a [&'a Event<T>],
    /// Whether one order that explains everything ends the search: no phase follows this one.
    one_is_enough: bool,
    /// The sets of calls that were put in order, each with the state that they led to.
    tried: BTreeSet<(Done, Possible<T>)>,
    ends: BTreeSet<Possible<T>>,
}

impl<T: Clone + Ord + Debug> Search<'_, T> {
    fn run(&mut self, mut done: Done, state: &Possible<T>) {
        if self.one_is_enough && !self.ends.is_empty() {
            return;
        }
        for (index, event) in self.events.iter().enumerate() {
            if !done.has(index) && event.is_spent(state) {
                done.put(index);
            }
        }
        if !self.tried.insert((done.clone(), state.clone())) {
            return;
        }
        let left: Vec<_> = (0..self.events.len()).filter(|index| !done.has(*index)).collect();
        // No call can come after a call that was answered before it began.
        let answered = left.iter().filter_map(|index| self.events[*index].certain());
        let first_answer = answered.map(|(at, _)| at).min();
        if first_answer.is_none() {
            self.ends.insert(state.clone());
        }
        // Of two doubtful calls that ask the same, only the earlier one need be tried here.
        let mut asked: Vec<&Call<T>> = Vec::new();
        for index in left {
            let event = self.events[index];
            let doubtful = event.certain().is_none();
            if first_answer.is_some_and(|first| event.called > first)
                || (doubtful && asked.contains(&&event.call))
            {
                continue;
            }
            if doubtful {
                asked.push(&event.call);
            }
            // A doubtful call without effect need not be tried.
            if let Some(next) = state.after(event).filter(|next| !doubtful || next != state) {
                let mut done = done.clone();
                done.put(index);
                self.run(done, &next);
            }
        }
    }
}

impl<T: Clone + Ord + Debug> Event<T> {
    fn is_for_all(&self) -> bool {
        matches!(self.call, Call::Elapse { .. })
    }

    /// The answer and its time, when the answer says whether the call took effect.
    fn certain(&self) -> Option<(u64, &Answer<T>)> {
        let (at, answer) = self.answered.as_ref()?;
        (*answer != Answer::Unknown).then_some((*at, answer))
    }

    /// Whether a call without a certain answer would change nothing, now and at any later time. A
    /// token that the owner has lost does not become the owner's again, but a checkpoint that is
    /// stored already may be replaced and then be stored once more.
    fn is_spent(&self, state: &Possible<T>) -> bool {
        if self.certain().is_some() {
            return false;
        }
        match &self.call {
            Call::Checkpoint { token, data } => {
                let name = state.names.get(token).copied();
                name.is_some_and(|name| state.model.clone().checkpoint(0, name, *data).is_err())
            }
            Call::Drop { .. } | Call::Complete { .. } | Call::Abort { .. } => {
                state.after(self).as_ref() == Some(state)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Call<u8> = Call::Begin { body: 0 };

    fn claimed(token: u8) -> Answer<u8> {
        Answer::Claimed { token, attempt: 1, checkpoint: Some(None) }
    }

    /// A call or its answer. The number names the call.
    type Step = (usize, Result<Call<u8>, Answer<u8>>);

    /// Calls and answers in order.
    fn history(steps: &[Step]) -> History<u8> {
        let history = History::new();
        let mut ids = BTreeMap::new();
        for (number, step) in steps {
            match step {
                Ok(call) => drop(ids.insert(*number, history.call(0, call.clone()))),
                Err(answer) => history.answer(ids[number], answer.clone()),
            }
        }
        history
    }

    fn right(steps: &[Step]) -> bool {
        history(steps).check(1000).is_ok()
    }

    #[test]
    fn overlapping_calls_may_take_any_order_and_others_may_not() {
        let complete = Call::Complete { token: 1, response: 7 };
        // The second begin starts before the first is answered, and finds the key locked.
        assert!(right(&[
            (1, Ok(BEGIN)),
            (2, Ok(BEGIN)),
            (2, Err(Answer::Locked)),
            (1, Err(claimed(1)))
        ]));
        // The second begin is answered before the first starts.
        assert!(!right(&[
            (2, Ok(BEGIN)),
            (2, Err(Answer::Locked)),
            (1, Ok(BEGIN)),
            (1, Err(claimed(1)))
        ]));
        for (overlapping, told, expected) in [
            (true, Answer::Locked, true),
            (true, Answer::Replay(7), true),
            (true, Answer::Replay(8), false),
            (true, claimed(2), false),
            (false, Answer::Locked, false),
            (false, Answer::Replay(7), true),
        ] {
            let mut steps = vec![(1, Ok(BEGIN)), (1, Err(claimed(1))), (2, Ok(complete.clone()))];
            let retry = [(3, Ok(BEGIN)), (3, Err(told))];
            let done = [(2, Err(Answer::Done))];
            match overlapping {
                true => steps.extend(retry.into_iter().chain(done)),
                false => steps.extend(done.into_iter().chain(retry)),
            }
            assert_eq!(right(&steps), expected, "{steps:?}");
        }
    }

    #[test]
    fn a_doubtful_checkpoint_may_bring_an_earlier_one_back() {
        let checkpoint = |data| Call::Checkpoint { token: 1, data };
        for (last, expected) in [(7, true), (8, true), (9, false)] {
            let history = history(&[
                (1, Ok(BEGIN)),
                (1, Err(claimed(1))),
                (2, Ok(checkpoint(7))),
                (2, Err(Answer::Done)),
                (3, Ok(checkpoint(8))),
                (3, Err(Answer::Done)),
                (4, Ok(checkpoint(7))),
                (4, Err(Answer::Unknown)),
            ]);
            history.restart(0);
            let taken = history.call(0, Call::TakeOver { token: 1 });
            let checkpoint = Some(Some(last));
            history.answer(taken, Answer::Claimed { token: 2, attempt: 2, checkpoint });
            assert_eq!(history.check(1000).is_ok(), expected, "{last}");
        }
    }

    #[test]
    fn two_claims_of_one_life_and_two_names_of_one_claim_are_found() {
        assert!(!right(&[
            (1, Ok(BEGIN)),
            (1, Err(claimed(1))),
            (2, Ok(BEGIN)),
            (2, Err(claimed(2)))
        ]));
        let abort = Call::Abort { token: 1 };
        let aborted = [
            (1, Ok(BEGIN)),
            (1, Err(claimed(1))),
            (2, Ok(abort)),
            (2, Err(Answer::Done)),
            (3, Ok(BEGIN)),
        ];
        assert!(right(&[&aborted[..], &[(3, Err(claimed(2)))]].concat()));
        assert!(
            !right(&[&aborted[..], &[(3, Err(claimed(1)))]].concat()),
            "a token is never reused"
        );
    }

    #[test]
    fn an_unknown_outcome_may_have_happened_but_not_after_the_restart() {
        let complete = Call::Complete { token: 1, response: 7 };
        for (told, expected) in [
            (Answer::Replay(7), true),
            (Answer::Orphaned(1), true),
            (Answer::Orphaned(9), false),
            (claimed(2), false),
        ] {
            let history = history(&[
                (1, Ok(BEGIN)),
                (1, Err(claimed(1))),
                (2, Ok(complete.clone())),
                (2, Err(Answer::Unknown)),
            ]);
            history.restart(0);
            let retry = history.call(0, BEGIN);
            history.answer(retry, told.clone());
            assert_eq!(history.check(1000).is_ok(), expected, "{told:?}");
            if told == Answer::Orphaned(1) {
                // The call had no effect before the restart, so it has none later either.
                let retry = history.call(0, BEGIN);
                history.answer(retry, Answer::Replay(7));
                assert!(history.check(1000).is_err());
            }
        }
        // The claim was never answered: it may have been granted, and its token has no name yet.
        for told in [claimed(1), Answer::Orphaned(1)] {
            let history = history(&[(1, Ok(BEGIN))]);
            history.restart(0);
            let retry = history.call(0, BEGIN);
            history.answer(retry, told);
            history.check(1000).unwrap();
        }
    }

    #[test]
    fn what_was_acknowledged_survives_a_restart_until_it_expires() {
        let complete = Call::Complete { token: 1, response: 7 };
        for (advance, told, expected) in [
            (999, Answer::Replay(7), true),
            (999, claimed(2), false),
            (1000, claimed(2), true),
            (1000, Answer::Replay(7), false),
        ] {
            let history = history(&[
                (1, Ok(BEGIN)),
                (1, Err(claimed(1))),
                (2, Ok(complete.clone())),
                (2, Err(Answer::Done)),
            ]);
            history.restart(advance);
            let retry = history.call(0, BEGIN);
            history.answer(retry, told);
            assert_eq!(history.check(1000).is_ok(), expected);
        }
    }
}
