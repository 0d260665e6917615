//! The slots of many keys.
//!
//! Slots are kept under a lock, so nothing here answers or drops an operation: a reply may drop a
//! claim, whose end takes the same lock. Each call returns the work that is left, and the caller
//! does it after the lock.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::admission::limits::Limits;
use crate::admission::slot::{Admission, FollowUp, Slot, reserve, unknown};
use crate::backend::operation::{Answer, Operation, Queued, Wait};
use crate::base::error::{Error, Result};
use crate::semantics::key::{HashMap, KeyHash};
use crate::semantics::record::Record;
use crate::semantics::time::Time;
use crate::semantics::transition::transition;

/// The slots of many keys.
#[derive(Default)]
pub(crate) struct Slots(HashMap<Slot>);

impl Slots {
    pub(crate) fn slot(&mut self, hash: KeyHash) -> Option<&mut Slot> {
        self.0.get_mut(&hash)
    }

    /// The in-flight record of a key, if it has one.
    pub(crate) fn live(&self, hash: KeyHash) -> Option<&Arc<Record>> {
        self.0.get(&hash)?.live.as_ref()
    }

    pub(crate) fn live_mut(&mut self, hash: KeyHash) -> Option<&mut Arc<Record>> {
        self.0.get_mut(&hash)?.live.as_mut()
    }

    /// Whether the outcome of the key's last command is unknown.
    pub(crate) fn is_unknown(&self, hash: KeyHash) -> bool {
        self.0.get(&hash).is_some_and(|slot| slot.unknown)
    }

    pub(crate) fn live_records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.0.values().filter_map(|slot| slot.live.as_ref())
    }

    /// Marks a key that has no slot, for the operation that looks it up.
    pub(crate) fn mark(&mut self, op: Operation) -> Admission {
        self.0.insert(op.hash, Slot { busy: true, ..Slot::default() });
        Admission::Resolve(op)
    }

    /// Decides an operation on a key that has no slot, or only the marker of this operation.
    pub(crate) fn decide(
        &mut self,
        op: Operation,
        record: Option<Arc<Record>>,
        now: Time,
        limits: &Limits,
    ) -> Admission {
        let (change, reply) = transition(record.as_deref(), &op.command, &op.key, now);
        if change.is_none() {
            return Admission::Answered(Answer::new(op, Ok((reply, record, now))));
        }
        match reserve(&op.command, limits) {
            Err(error) => Admission::Answered(Answer::new(op, Err(error))),
            Ok(()) => {
                self.0.entry(op.hash).or_default().occupy(&op.command);
                Admission::Change(Queued { op, base: record })
            }
        }
    }

    /// Ends the look-up of a marked key: decides the operation and, if it changes nothing, the
    /// operations that waited for the marker.
    pub(crate) fn resolved(
        &mut self,
        op: Operation,
        looked_up: Result<Option<Arc<Record>>>,
        now: Time,
        limits: &Limits,
    ) -> FollowUp {
        let hash = op.hash;
        let mut follow_up = FollowUp::default();
        match looked_up {
            Ok(record) => match self.decide(op, record.clone(), now, limits) {
                Admission::Change(queued) => follow_up.queued = Some(queued),
                Admission::Answered(answer) => {
                    follow_up.answers.push(answer);
                    self.settle(hash, record, now, limits, &mut follow_up);
                }
                // `decide` only answers or queues.
                Admission::Parked(_) | Admission::Resolve(_) => {}
            },
            Err(error) => {
                follow_up.answers.push(Answer::new(op, Err(error.clone())));
                self.abandon(hash, &error, limits, &mut follow_up);
            }
        }
        follow_up
    }

    /// Decides the operations that wait at a key, when the key has the durable record `record` and
    /// no command works on it. Frees the slot unless a command or a live record needs it. Returns
    /// by how many in-flight records the slots grew.
    pub(crate) fn settle(
        &mut self,
        hash: KeyHash,
        record: Option<Arc<Record>>,
        now: Time,
        limits: &Limits,
        follow_up: &mut FollowUp,
    ) -> isize {
        let entry = self.0.entry(hash);
        let was_live = matches!(&entry, Entry::Occupied(slot) if slot.get().live.is_some());
        let is_live = matches!(&record, Some(record) if record.is_in_flight());
        match entry {
            // The usual case, in which no operation waits: the result of `Slot::settle`, in place.
            Entry::Occupied(mut slot) if slot.get().waiting.is_empty() => {
                if is_live {
                    *slot.get_mut() = Slot { live: record, ..Slot::default() };
                } else {
                    slot.remove();
                }
            }
            Entry::Occupied(mut slot) => {
                slot.get_mut().settle(record, now, limits, follow_up);
                if !slot.get().busy && !is_live {
                    slot.remove();
                }
            }
            Entry::Vacant(slot) if is_live => {
                slot.insert(Slot { live: record, ..Slot::default() });
            }
            Entry::Vacant(_) => {}
        }
        isize::from(is_live) - isize::from(was_live)
    }

    /// Looks again at the operations that wait at a key: a wait may be over, or a deadline passed.
    pub(crate) fn reconsider(&mut self, hash: KeyHash, now: Time, limits: &Limits) -> FollowUp {
        let mut follow_up = FollowUp::default();
        let Some(slot) = self.0.get_mut(&hash) else { return follow_up };
        if slot.unknown {
            return follow_up;
        }
        if slot.busy {
            slot.answer_overdue(now, limits, &mut follow_up);
        } else if let Some(record) = slot.live.clone() {
            slot.settle(Some(record), now, limits, &mut follow_up);
        }
        follow_up
    }

    /// Takes out a waiting operation whose caller stopped waiting. The slot stays for the command
    /// that works on the key, or for its live record.
    pub(crate) fn withdraw(
        &mut self,
        hash: KeyHash,
        wait: Wait,
        limits: &Limits,
    ) -> Option<Operation> {
        self.0.get_mut(&hash)?.waiting.withdraw(wait, limits)
    }

    /// The command of the slot was not executed, or its look-up failed: removes the marker and
    /// refuses the operations that waited for it.
    pub(crate) fn abandon(
        &mut self,
        hash: KeyHash,
        error: &Error,
        limits: &Limits,
        follow_up: &mut FollowUp,
    ) {
        let Some(slot) = self.0.get_mut(&hash) else { return };
        slot.refuse(error, limits, follow_up);
        (slot.busy, slot.ending) = (false, false);
        if slot.live.is_none() && !slot.unknown {
            self.0.remove(&hash);
        }
    }

    /// The group with this key's command failed: the outcome is unknown until the engine is reopened.
    pub(crate) fn set_unknown(&mut self, hash: KeyHash, limits: &Limits) -> FollowUp {
        let mut follow_up = FollowUp::default();
        self.0.entry(hash).or_default().unknown = true;
        self.abandon(hash, &unknown(), limits, &mut follow_up);
        follow_up
    }

    /// A thread of the engine panicked: the outcome is unknown for every key that a command works
    /// on.
    pub(crate) fn set_busy_unknown(&mut self, limits: &Limits) -> FollowUp {
        let mut follow_up = FollowUp::default();
        for slot in self.0.values_mut().filter(|slot| slot.busy) {
            slot.unknown = true;
            slot.refuse(&unknown(), limits, &mut follow_up);
            (slot.busy, slot.ending) = (false, false);
        }
        follow_up
    }

    /// Refuses the operations that wait at a key. The command that works on the key keeps the slot.
    pub(crate) fn refuse_waiting(
        &mut self,
        hash: KeyHash,
        error: &Error,
        limits: &Limits,
    ) -> FollowUp {
        let mut follow_up = FollowUp::default();
        if let Some(slot) = self.0.get_mut(&hash) {
            slot.refuse(error, limits, &mut follow_up);
        }
        follow_up
    }

    /// [`refuse_waiting`](Self::refuse_waiting) at every key.
    pub(crate) fn refuse_all_waiting(&mut self, error: &Error, limits: &Limits) -> FollowUp {
        let mut follow_up = FollowUp::default();
        self.0.values_mut().for_each(|slot| slot.refuse(error, limits, &mut follow_up));
        follow_up
    }

    /// The engine closes: refuses all waiting operations, and frees every slot that has neither a
    /// live record nor an unknown outcome.
    pub(crate) fn refuse_all(&mut self, error: &Error, limits: &Limits) -> FollowUp {
        let follow_up = self.refuse_all_waiting(error, limits);
        self.0.retain(|_, slot| {
            (slot.busy, slot.ending) = (false, false);
            slot.live.is_some() || slot.unknown
        });
        follow_up
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::operation::Request;
    use crate::base::error::ErrorKind;
    use crate::base::sync::Instant;
    use crate::semantics::command::{Command, Reply};
    use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
    use crate::semantics::key::Key;
    use crate::semantics::secret::Secret;
    use crate::semantics::token::Token;
    use crate::semantics::transition::apply;

    const HASH: KeyHash = KeyHash(7);
    const NOW: Time = Time(1);
    const TOKEN: Token = Token { incarnation: 1, epoch: 1, sequence: 1 };

    fn op(command: Command, wait: Option<Wait>) -> Operation {
        Operation::untold(Request { key: Key::new("", "k").unwrap(), hash: HASH, command, wait })
    }

    fn begin() -> Operation {
        begin_with(None, None)
    }

    fn begin_with(max_execution: Option<Duration>, wait: Option<Wait>) -> Operation {
        let fingerprint =
            KeyedFingerprint::new(Fingerprint::builder().finish(), &Secret([1; Secret::LEN]));
        op(Command::Begin { fingerprint, ttl: Duration::from_secs(1), max_execution }, wait)
    }

    fn abort() -> Operation {
        op(Command::Abort { token: TOKEN }, None)
    }

    /// The slots, with one key in use.
    struct Place {
        slots: Slots,
        limits: Limits,
    }

    impl Place {
        fn new() -> Self {
            Self { slots: Slots::default(), limits: Limits::unbounded() }
        }

        fn admit(&mut self, op: Operation) -> Admission {
            match self.slots.slot(HASH) {
                Some(slot) => slot.admit(op, NOW, &self.limits),
                None => self.slots.mark(op),
            }
        }

        fn resolved(&mut self, op: Operation, found: Result<Option<Arc<Record>>>) -> FollowUp {
            self.slots.resolved(op, found, NOW, &self.limits)
        }

        fn settle(&mut self, record: Option<Arc<Record>>) -> FollowUp {
            let mut follow_up = FollowUp::default();
            self.slots.settle(HASH, record, NOW, &self.limits, &mut follow_up);
            follow_up
        }

        /// The record that the queued command makes is durable.
        fn publish(&mut self, queued: &Queued) -> FollowUp {
            let (change, _) =
                transition(queued.base.as_deref(), &queued.op.command, &queued.op.key, NOW);
            let record = apply(queued.base.as_deref(), &change.unwrap(), TOKEN, NOW).unwrap();
            self.settle(record.map(Arc::new))
        }
    }

    fn claimed(place: &mut Place) {
        let Admission::Resolve(op) = place.admit(begin()) else { panic!("resolve") };
        let queued = place.resolved(op, Ok(None)).queued.unwrap();
        let follow_up = place.publish(&queued);
        assert!(follow_up.answers.is_empty() && follow_up.queued.is_none());
    }

    /// A claim past its deadline becomes an orphan without a command. The operations that wait for
    /// it must be looked at then.
    #[test]
    fn who_waits_for_a_claim_with_a_deadline_is_looked_at_then() {
        for waits in [false, true] {
            let mut place = Place::new();
            let limited = begin_with(Some(Duration::from_millis(50)), None);
            let Admission::Resolve(first) = place.admit(limited) else { panic!("resolve") };
            let queued = place.resolved(first, Ok(None)).queued.unwrap();
            let until = Instant::now() + Duration::from_secs(3600);
            let second = begin_with(None, waits.then_some(Wait { until, number: 1 }));
            assert!(matches!(place.admit(second), Admission::Parked(None)));
            let follow_up = place.publish(&queued);
            assert_eq!(follow_up.reconsider_at, waits.then_some(Time(NOW.0 + 50)));
        }
    }

    #[test]
    fn while_a_key_is_looked_up_others_wait_for_the_marker() {
        let mut place = Place::new();
        let Admission::Resolve(first) = place.admit(begin()) else { panic!("resolve") };
        assert!(matches!(place.admit(begin()), Admission::Parked(_)));
        let queued = place.resolved(first, Ok(None)).queued.unwrap();
        // They also wait while the claim is made durable.
        assert!(matches!(place.admit(begin()), Admission::Parked(_)));
        let follow_up = place.publish(&queued);
        assert_eq!(follow_up.answers.len(), 2);
        for answer in &follow_up.answers {
            assert!(matches!(answer.parts().1, Ok(Reply::Locked)));
        }
        assert!(follow_up.queued.is_none());
    }

    #[test]
    fn a_failed_lookup_tells_everybody_and_leaves_no_marker() {
        let mut place = Place::new();
        let Admission::Resolve(first) = place.admit(begin()) else { panic!("resolve") };
        assert!(matches!(place.admit(begin()), Admission::Parked(_)));
        let follow_up = place.resolved(first, Err(Error::corrupted("")));
        assert_eq!(follow_up.answers.len(), 2);
        assert!(follow_up.answers.iter().all(|answer| answer.parts().1.is_err()));
        assert!(matches!(place.admit(begin()), Admission::Resolve(_)));
    }

    #[test]
    fn two_changes_of_a_key_are_never_under_way_at_once() {
        let mut place = Place::new();
        claimed(&mut place);
        let Admission::Change(first) = place.admit(abort()) else { panic!("change") };
        assert!(matches!(place.admit(abort()), Admission::Parked(_)));
        // The owner ends its claim: a begin waits for the end.
        assert!(matches!(place.admit(begin()), Admission::Parked(_)));
        let follow_up = place.publish(&first);
        // The second abort is fenced, the begin claims.
        assert_eq!(follow_up.answers.len(), 1);
        assert!(matches!(follow_up.answers[0].parts().1, Ok(Reply::Fenced)));
        assert!(matches!(follow_up.queued.unwrap().op.command, Command::Begin { .. }));
    }

    #[test]
    fn a_key_in_doubt_answers_nobody_until_it_is_settled() {
        let mut place = Place::new();
        claimed(&mut place);
        let Admission::Change(_) = place.admit(abort()) else { panic!("change") };
        assert!(matches!(place.admit(begin()), Admission::Parked(_)));
        let follow_up = place.slots.set_unknown(HASH, &place.limits);
        assert_eq!(follow_up.answers.len(), 1);
        assert!(matches!(place.admit(begin()), Admission::Answered(answer)
            if answer.parts().1.is_err_and(|error| error.kind() == ErrorKind::OutcomeUnknown)));
    }

    #[test]
    fn a_command_that_changed_nothing_gives_its_key_free() {
        let mut place = Place::new();
        claimed(&mut place);
        let Admission::Change(queued) = place.admit(abort()) else { panic!("change") };
        assert!(matches!(place.admit(begin()), Admission::Parked(_)));
        let follow_up = place.settle(queued.base);
        let replies: Vec<_> = follow_up.answers.iter().map(|answer| answer.parts().1).collect();
        assert!(matches!(replies[..], [Ok(Reply::Locked)]), "{replies:?}");
        assert!(matches!(place.admit(abort()), Admission::Change(_)));
    }

    #[test]
    fn a_look_at_who_waits_changes_nothing_while_the_owner_ends_its_claim() {
        let mut place = Place::new();
        claimed(&mut place);
        let Admission::Change(_) = place.admit(abort()) else { panic!("change") };
        for waits in [begin(), abort()] {
            assert!(matches!(place.admit(waits), Admission::Parked(_)));
        }
        let follow_up = place.slots.reconsider(HASH, NOW, &place.limits);
        assert!(follow_up.answers.is_empty() && follow_up.queued.is_none());
        assert!(matches!(place.admit(abort()), Admission::Parked(_)));
    }

    #[test]
    fn a_command_that_was_never_written_leaves_the_claim() {
        let mut place = Place::new();
        claimed(&mut place);
        let Admission::Change(_) = place.admit(abort()) else { panic!("change") };
        let mut follow_up = FollowUp::default();
        place.slots.abandon(HASH, &Error::corrupted(""), &place.limits, &mut follow_up);
        assert!(follow_up.answers.is_empty());
        assert!(matches!(place.admit(begin()), Admission::Answered(answer)
            if matches!(answer.parts().1, Ok(Reply::Locked))));
    }

    #[test]
    fn a_key_whose_first_claim_is_in_doubt_is_not_forgotten() {
        let mut place = Place::new();
        let Admission::Resolve(op) = place.admit(begin()) else { panic!("resolve") };
        drop(place.resolved(op, Ok(None)));
        drop(place.slots.set_unknown(HASH, &place.limits));
        assert!(place.slots.is_unknown(HASH));
    }

    #[test]
    fn whoever_waits_is_answered_when_a_thread_panics_or_the_engine_closes() {
        let waiting = || {
            let mut place = Place::new();
            claimed(&mut place);
            let Admission::Change(_) = place.admit(abort()) else { panic!("change") };
            assert!(matches!(place.admit(begin()), Admission::Parked(_)));
            place
        };
        let mut place = waiting();
        assert_eq!(place.slots.set_busy_unknown(&place.limits).answers.len(), 1);
        assert!(place.slots.is_unknown(HASH));
        assert_eq!(place.limits.waiting(), 0);
        let mut place = waiting();
        let refused = place.slots.refuse_all(&Error::corrupted(""), &place.limits);
        assert_eq!((refused.answers.len(), place.limits.waiting()), (1, 0));
        assert!(place.slots.live(HASH).is_some(), "the claim is still held");
    }

    #[test]
    fn a_live_record_gets_a_slot_and_is_counted_once() {
        let mut place = Place::new();
        claimed(&mut place);
        let live = place.slots.live(HASH).cloned();
        let mut slots = Slots::default();
        let mut settle =
            |record| slots.settle(HASH, record, NOW, &place.limits, &mut FollowUp::default());
        assert_eq!([settle(live.clone()), settle(live), settle(None), settle(None)], [1, 0, -1, 0]);
    }

    /// The end of a wait is reported once, so that nothing watches the wait any more.
    #[test]
    fn who_leaves_the_line_is_counted_and_named_once() {
        let wait = Wait { until: Instant::now() + Duration::from_secs(3600), number: 1 };
        let waiting = || {
            let mut place = Place::new();
            claimed(&mut place);
            let waits = begin_with(None, Some(wait));
            assert!(matches!(place.admit(waits), Admission::Parked(_)));
            assert_eq!(place.limits.waiting(), 1);
            place
        };
        let mut place = waiting();
        assert!(place.slots.withdraw(HASH, wait, &place.limits).is_some());
        assert!(place.slots.withdraw(HASH, wait, &place.limits).is_none());
        assert_eq!(place.limits.waiting(), 0);

        let mut place = waiting();
        let refused = place.slots.refuse_waiting(HASH, &Error::corrupted(""), &place.limits);
        assert_eq!((refused.ended, place.limits.waiting()), (vec![wait], 0));

        // Promoted: its begin is queued, and waits no more.
        let mut place = waiting();
        let Admission::Change(queued) = place.admit(abort()) else { panic!("change") };
        let follow_up = place.publish(&queued);
        assert_eq!((follow_up.ended, place.limits.waiting()), (vec![wait], 0));
        assert!(follow_up.queued.is_some_and(|queued| queued.op.wait == Some(wait)));
    }

    /// A claim is held, its end is in doubt, and the deadline of the claim comes.
    #[test]
    fn a_look_at_a_key_in_doubt_settles_nothing() {
        let mut place = Place::new();
        claimed(&mut place);
        let Admission::Change(_) = place.admit(abort()) else { panic!("change") };
        drop(place.slots.set_unknown(HASH, &place.limits));
        drop(place.slots.reconsider(HASH, NOW, &place.limits));
        assert!(place.slots.is_unknown(HASH));
    }
}
