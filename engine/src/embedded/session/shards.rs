//! Who is at which key right now, and what its record was last.
//!
//! Each shard holds, under one lock, the slots of keys that are in flight or being resolved, and
//! the recent records that are not yet folded. Rules that everything else stands on:
//!
//! - A command that may change a record first makes the key's slot *busy*; while it is, every other
//!   such command waits in the slot. So the record that a command was decided on cannot change
//!   before the command is published.
//! - A slot without a live record is a *marker*: someone is looking the key up or making it
//!   durable. Begins wait for it and are never answered from it.
//! - Publishing puts the record into `active` and frees the slot under the same lock: nobody can
//!   miss both.
//! - Replies are never given, and operations never dropped, while a shard is locked: a reply may
//!   drop a claim, which comes back here.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::backend::operation::{Answer, Operation, Queued, Wait};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Mutex, MutexGuard};
use crate::embedded::session::replay_cache::ReplayCache;
use crate::semantics::command::{Command, Reply};
use crate::semantics::key::{BuildHasher, HashMap, KeyHash};
use crate::semantics::record::Record;
use crate::semantics::record::Versioned;
use crate::semantics::time::Time;
use crate::semantics::transition::transition;

/// Whether a change may be queued; reserves what it needs. Called with the shard locked.
pub(crate) trait Gate {
    fn reserve(&self, command: &Command) -> Result<()>;
    /// The end of a claim is never refused.
    fn reserve_waiter(&self, command: &Command) -> Result<()>;
    /// The operation no longer waits in a slot.
    fn release_waiter(&self, op: &Operation);
}

/// A gate that refuses nobody.
#[cfg(test)]
pub(crate) struct Open;

#[cfg(test)]
impl Gate for Open {
    fn reserve(&self, _: &Command) -> Result<()> {
        Ok(())
    }
    fn reserve_waiter(&self, _: &Command) -> Result<()> {
        Ok(())
    }
    fn release_waiter(&self, _: &Operation) {}
}

#[derive(Default)]
struct Slot {
    /// The durable in-flight record; `None` makes the slot a marker.
    live: Option<Arc<Record>>,
    busy: bool,
    /// The command that made the slot busy ends the claim. Its owner has spoken: the one who comes now
    /// waits for the end instead of being told `Locked`.
    ending: bool,
    /// The outcome of the last command is not known, since its group failed.
    unknown: bool,
    waiting: VecDeque<Operation>,
}

impl Slot {
    fn occupy(&mut self, command: &Command) {
        self.busy = true;
        self.ending = command.ends_claim();
    }
}

/// What became of an operation that came to a shard.
pub(crate) enum Admission {
    Answered(Answer),
    /// The operation waits in the slot; the live record there counts as an orphan from then on.
    Parked(Option<Time>),
    /// The slot is a marker now; the record must be looked up outside the lock.
    Resolve(Operation),
    /// The slot is busy now; the command goes to the committer.
    Change(Queued),
}

/// What is to be done after a shard is unlocked.
#[derive(Default)]
#[must_use]
pub(crate) struct FollowUp {
    pub(crate) answers: Vec<Answer>,
    pub(crate) queued: Option<Queued>,
    /// Someone waits for a claim that counts as an orphan from then on.
    pub(crate) reconsider_at: Option<Time>,
}

#[derive(Default)]
pub(crate) struct Shard {
    slots: HashMap<Slot>,
    /// Records changed since the last rotation.
    active: HashMap<Versioned>,
    /// Records that the folder is writing to the store.
    folding: HashMap<Versioned>,
    /// Some of the records that are in the store and not above.
    replays: ReplayCache,
}

impl Shard {
    pub(crate) fn recent(&self, hash: KeyHash) -> Option<&Versioned> {
        self.active.get(&hash).or_else(|| self.folding.get(&hash))
    }

    /// The in-flight record of a key, if it has one.
    pub(crate) fn live(&self, hash: KeyHash) -> Option<&Arc<Record>> {
        self.slots.get(&hash)?.live.as_ref()
    }

    /// Whether the outcome of the key's last command is unknown.
    pub(crate) fn is_unknown(&self, hash: KeyHash) -> bool {
        self.slots.get(&hash).is_some_and(|slot| slot.unknown)
    }

    pub(crate) fn live_records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.slots.values().filter_map(|slot| slot.live.as_ref())
    }

    /// All recent records, the newer ones of a key last.
    pub(crate) fn recents(&self) -> impl Iterator<Item = (&KeyHash, &Versioned)> {
        self.folding.iter().chain(&self.active)
    }

    /// Takes an operation in: answers it from memory, lets it wait, or gives it the slot.
    pub(crate) fn admit(&mut self, op: Operation, now: Time, gate: &dyn Gate) -> Admission {
        let Some(slot) = self.slots.get_mut(&op.hash) else {
            let recent = self.recent(op.hash).map(|versioned| versioned.record.clone());
            let known = recent.or_else(|| self.replays.get(op.hash).map(Some));
            return match known {
                Some(record) => self.decide(op, record, now, gate),
                None => {
                    self.slots.insert(op.hash, Slot { busy: true, ..Slot::default() });
                    Admission::Resolve(op)
                }
            };
        };
        if slot.unknown {
            return Admission::Answered(Answer::new(op, Err(unknown())));
        }
        let Some(record) = slot.live.clone() else { return park(slot, op, gate) };
        let (change, reply) = transition(Some(&record), &op.command, &op.key, now);
        match change {
            None if reply == Reply::Locked && (slot.ending || op.waits()) => park(slot, op, gate),
            None => Admission::Answered(Answer::new(op, Ok((reply, Some(record), now)))),
            Some(_) if slot.busy => park(slot, op, gate),
            Some(_) => match gate.reserve(&op.command) {
                Err(error) => Admission::Answered(Answer::new(op, Err(error))),
                Ok(()) => {
                    slot.occupy(&op.command);
                    Admission::Change(Queued { base: Some(record), op })
                }
            },
        }
    }

    /// Decides an operation on a record without a slot of its own.
    fn decide(
        &mut self,
        op: Operation,
        record: Option<Arc<Record>>,
        now: Time,
        gate: &dyn Gate,
    ) -> Admission {
        let (change, reply) = transition(record.as_deref(), &op.command, &op.key, now);
        if change.is_none() {
            return Admission::Answered(Answer::new(op, Ok((reply, record, now))));
        }
        match gate.reserve(&op.command) {
            Err(error) => Admission::Answered(Answer::new(op, Err(error))),
            Ok(()) => {
                self.slots.entry(op.hash).or_default().occupy(&op.command);
                Admission::Change(Queued { op, base: record })
            }
        }
    }

    /// The end of a lookup that [`admit`](Self::admit) asked for: decides the operation and, when
    /// it changes nothing, those who waited for the marker.
    pub(crate) fn resolved(
        &mut self,
        op: Operation,
        looked_up: Result<Option<Arc<Record>>>,
        now: Time,
        gate: &dyn Gate,
    ) -> FollowUp {
        let hash = op.hash;
        let mut follow_up = FollowUp::default();
        match looked_up {
            Ok(record) => match self.decide(op, record.clone(), now, gate) {
                Admission::Change(queued) => follow_up.queued = Some(queued),
                Admission::Answered(answer) => {
                    if let Some(record) = answer.replayed() {
                        self.replays.offer(hash, record);
                    }
                    follow_up.answers.push(answer);
                    self.settle(hash, record, now, gate, &mut follow_up);
                }
                // `decide` only answers or queues.
                Admission::Parked(_) | Admission::Resolve(_) => {}
            },
            Err(error) => {
                self.refuse_waiting(hash, &error, gate, &mut follow_up);
                follow_up.answers.push(Answer::new(op, Err(error)));
            }
        }
        follow_up
    }

    /// Makes a change known: the record into `active`, the slot free, those who waited answered.
    /// Returns by how many in-flight records the shard grew, with what is to be done unlocked.
    pub(crate) fn publish(
        &mut self,
        hash: KeyHash,
        versioned: Versioned,
        now: Time,
        gate: &dyn Gate,
        replaced: &mut Option<Versioned>,
    ) -> (isize, FollowUp) {
        let record = versioned.record.clone();
        *replaced = self.active.insert(hash, versioned);
        self.replays.forget(hash);
        let is_live = matches!(&record, Some(record) if record.is_in_flight());
        let mut follow_up = FollowUp::default();
        let slot = self.slots.entry(hash);
        let was_live = match &slot {
            Entry::Occupied(slot) => slot.get().live.is_some(),
            Entry::Vacant(_) => false,
        };
        // Nobody waits, as nearly always: what `settle` comes to, in place.
        if let Entry::Occupied(mut slot) = slot
            && slot.get().waiting.is_empty()
        {
            if is_live {
                *slot.get_mut() = Slot { live: record, ..Slot::default() };
            } else {
                slot.remove();
            }
            return (isize::from(is_live) - isize::from(was_live), follow_up);
        }
        self.settle(hash, record, now, gate, &mut follow_up);
        (isize::from(is_live) - isize::from(was_live), follow_up)
    }

    /// Frees the slot after a command that changed nothing, or was refused before it was written.
    pub(crate) fn unchanged(
        &mut self,
        hash: KeyHash,
        record: Option<Arc<Record>>,
        now: Time,
        gate: &dyn Gate,
    ) -> FollowUp {
        let mut follow_up = FollowUp::default();
        self.settle(hash, record, now, gate, &mut follow_up);
        follow_up
    }

    /// The key has the durable record `record` and nobody works on it: frees its slot, or keeps it
    /// for a live record, and decides those who wait, up to the first that needs a change.
    fn settle(
        &mut self,
        hash: KeyHash,
        record: Option<Arc<Record>>,
        now: Time,
        gate: &dyn Gate,
        follow_up: &mut FollowUp,
    ) {
        let mut slot = self.slots.remove(&hash).unwrap_or_default();
        (slot.busy, slot.ending, slot.unknown) = (false, false, false);
        slot.live = record.clone().filter(|record| record.is_in_flight());
        let mut still_waiting = VecDeque::new();
        while let Some(op) = slot.waiting.pop_front() {
            let (change, reply) = transition(record.as_deref(), &op.command, &op.key, now);
            if change.is_none() {
                if reply == Reply::Locked && op.waits() {
                    still_waiting.push_back(op);
                    continue;
                }
                gate.release_waiter(&op);
                follow_up.answers.push(Answer::new(op, Ok((reply, record.clone(), now))));
                continue;
            }
            if slot.busy {
                still_waiting.push_back(op);
                continue;
            }
            gate.release_waiter(&op);
            match gate.reserve(&op.command) {
                Err(error) => follow_up.answers.push(Answer::new(op, Err(error))),
                Ok(()) => {
                    slot.occupy(&op.command);
                    follow_up.queued = Some(Queued { op, base: record.clone() });
                }
            }
        }
        slot.waiting = still_waiting;
        if !slot.waiting.is_empty() {
            follow_up.reconsider_at = slot.live.as_ref().and_then(|live| live.deadline());
        }
        if slot.busy || slot.live.is_some() {
            self.slots.insert(hash, slot);
        }
    }

    /// Looks again at those who wait at a key: a wait may be over, a deadline may have passed.
    pub(crate) fn reconsider(&mut self, hash: KeyHash, now: Time, gate: &dyn Gate) -> FollowUp {
        let mut follow_up = FollowUp::default();
        let Some(slot) = self.slots.get_mut(&hash) else { return follow_up };
        if let Some(record) = slot.live.clone().filter(|_| !slot.busy) {
            self.settle(hash, Some(record), now, gate, &mut follow_up);
            return follow_up;
        }
        // Someone works on the key: only answer those whose time is over and who may be answered
        // from the live record.
        let Some(record) = slot.live.clone() else { return follow_up };
        let mut still_waiting = VecDeque::new();
        for op in slot.waiting.drain(..) {
            let (change, reply) = transition(Some(&record), &op.command, &op.key, now);
            if change.is_some() || (reply == Reply::Locked && (slot.ending || op.waits())) {
                still_waiting.push_back(op);
            } else {
                gate.release_waiter(&op);
                follow_up.answers.push(Answer::new(op, Ok((reply, Some(record.clone()), now))));
            }
        }
        slot.waiting = still_waiting;
        follow_up
    }

    /// Takes a waiting operation out: its caller does not wait any more. `None` when it does not wait
    /// here, since it was answered or is about to be. The slot stays with the one who works on the key, or
    /// for its live record.
    pub(crate) fn withdraw(
        &mut self,
        hash: KeyHash,
        wait: Wait,
        gate: &dyn Gate,
    ) -> Option<Operation> {
        let waiting = &mut self.slots.get_mut(&hash)?.waiting;
        let at = waiting.iter().position(|op| op.wait == Some(wait))?;
        let op = waiting.remove(at)?;
        gate.release_waiter(&op);
        Some(op)
    }

    /// A lookup failed: the marker goes, and those who waited for it learn why.
    fn refuse_waiting(
        &mut self,
        hash: KeyHash,
        error: &Error,
        gate: &dyn Gate,
        follow_up: &mut FollowUp,
    ) {
        follow_up.answers.extend(self.refuse_parked(hash, error, gate));
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        (slot.busy, slot.ending) = (false, false);
        if slot.live.is_none() && !slot.unknown {
            self.slots.remove(&hash);
        }
    }

    /// The engine failed before this key's command was written: nothing happened.
    pub(crate) fn abandon(&mut self, hash: KeyHash, error: &Error, gate: &dyn Gate) -> FollowUp {
        let mut follow_up = FollowUp::default();
        self.refuse_waiting(hash, error, gate, &mut follow_up);
        follow_up
    }

    /// The group with this key's command failed: what became of it is unknown until reopened.
    pub(crate) fn set_unknown(&mut self, hash: KeyHash, gate: &dyn Gate) -> FollowUp {
        let mut follow_up = FollowUp::default();
        self.slots.entry(hash).or_default().unknown = true;
        self.refuse_waiting(hash, &unknown(), gate, &mut follow_up);
        follow_up
    }

    /// Every key that someone works on is in doubt: a thread of the engine panicked.
    pub(crate) fn set_busy_unknown(&mut self, gate: &dyn Gate) -> Vec<Answer> {
        let mut follow_up = FollowUp::default();
        let busy: Vec<_> =
            self.slots.iter().filter(|(_, slot)| slot.busy).map(|(hash, _)| *hash).collect();
        for hash in busy {
            self.slots.entry(hash).or_default().unknown = true;
            self.refuse_waiting(hash, &unknown(), gate, &mut follow_up);
        }
        follow_up.answers
    }

    /// Answers those who wait at a key and leaves its slot to the one who works on it.
    pub(crate) fn refuse_parked(
        &mut self,
        hash: KeyHash,
        error: &Error,
        gate: &dyn Gate,
    ) -> Vec<Answer> {
        let Some(slot) = self.slots.get_mut(&hash) else { return Vec::new() };
        let waiting = std::mem::take(&mut slot.waiting).into_iter();
        waiting
            .map(|op| {
                gate.release_waiter(&op);
                Answer::new(op, Err(error.clone()))
            })
            .collect()
    }

    /// [`refuse_parked`](Self::refuse_parked) at every key.
    pub(crate) fn refuse_all_parked(&mut self, error: &Error, gate: &dyn Gate) -> Vec<Answer> {
        let hashes: Vec<_> = self.slots.keys().copied().collect();
        hashes.into_iter().flat_map(|hash| self.refuse_parked(hash, error, gate)).collect()
    }

    /// Everything that waits in this shard, with the slots freed: the engine is closing.
    pub(crate) fn refuse_all(&mut self, error: &Error, gate: &dyn Gate) -> Vec<Answer> {
        let mut follow_up = FollowUp::default();
        let hashes: Vec<_> = self.slots.keys().copied().collect();
        for hash in hashes {
            self.refuse_waiting(hash, error, gate, &mut follow_up);
        }
        follow_up.answers
    }

    /// Makes the active records the folding ones. The folding ones must have been evicted.
    pub(crate) fn rotate(&mut self) {
        debug_assert!(self.folding.is_empty());
        std::mem::swap(&mut self.active, &mut self.folding);
    }

    pub(crate) fn folding(&self) -> impl Iterator<Item = (KeyHash, Versioned)> {
        self.folding.iter().map(|(hash, versioned)| (*hash, versioned.clone()))
    }

    /// Takes the folded records out, after the fold was committed and its view published.
    ///
    /// The map left in their place is the next active one: as large as this one, so that it does not
    /// grow while callers wait for the committer.
    pub(crate) fn evict(&mut self) -> HashMap<Versioned> {
        let next = HashMap::with_capacity_and_hasher(self.folding.len(), BuildHasher::default());
        std::mem::replace(&mut self.folding, next)
    }

    /// Lets go of the bytes of a checkpoint that was folded: `light` is the live record `folded` without
    /// them. A newer record stays.
    pub(crate) fn lighten(&mut self, hash: KeyHash, folded: &Arc<Record>, light: Arc<Record>) {
        let live = self.slots.get_mut(&hash).and_then(|slot| slot.live.as_mut());
        if let Some(live) = live.filter(|live| Arc::ptr_eq(live, folded)) {
            *live = light;
        }
    }

    /// Puts a record recovered from the journal where a published one would be.
    pub(crate) fn restore(&mut self, hash: KeyHash, versioned: Versioned) {
        self.active.insert(hash, versioned);
    }
}

fn park(slot: &mut Slot, op: Operation, gate: &dyn Gate) -> Admission {
    match gate.reserve_waiter(&op.command) {
        Ok(()) => {
            slot.waiting.push_back(op);
            Admission::Parked(slot.live.as_ref().and_then(|live| live.deadline()))
        }
        Err(error) => Admission::Answered(Answer::new(op, Err(error))),
    }
}

fn unknown() -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the group with the last change of this key failed; reopen the engine to settle it",
    )
}

/// The shards, by the upper bits of the key hash.
pub(crate) struct Shards {
    shards: Box<[Mutex<Shard>]>,
}

const SHARDS: usize = 64;
const SHARD_SHIFT: u32 = 128 - SHARDS.ilog2();

fn shard_of(hash: KeyHash) -> usize {
    (hash.0 >> SHARD_SHIFT) as usize
}

impl Shards {
    /// `replay_bytes` is memory for records that were replayed from the store; one of `keep_one_of`
    /// is kept.
    pub(crate) fn new(replay_bytes: usize, keep_one_of: usize) -> Self {
        let replays = || ReplayCache::new(replay_bytes / SHARDS, keep_one_of);
        let shard = |_| Mutex::new(Shard { replays: replays(), ..Shard::default() });
        Self { shards: (0..SHARDS).map(shard).collect() }
    }

    pub(crate) fn shard(&self, hash: KeyHash) -> MutexGuard<'_, Shard> {
        self.shards[shard_of(hash)].lock()
    }

    /// The recent records behind `after`, newest of each key, at least `most` of them if there are so
    /// many; and the hash up to which they are all. Locks one shard at a time.
    pub(crate) fn recent_behind(
        &self,
        after: Option<KeyHash>,
        most: usize,
    ) -> (BTreeMap<KeyHash, Versioned>, KeyHash) {
        let mut recent = BTreeMap::new();
        let first = after.map_or(0, shard_of);
        for (number, shard) in self.shards.iter().enumerate().skip(first) {
            let shard = shard.lock();
            let behind = shard.recents().filter(|(hash, _)| Some(**hash) > after);
            recent.extend(behind.map(|(hash, versioned)| (*hash, versioned.clone())));
            if recent.len() >= most {
                let last = (number as u128) << SHARD_SHIFT | u128::MAX >> (128 - SHARD_SHIFT);
                return (recent, KeyHash(last));
            }
        }
        (recent, KeyHash(u128::MAX))
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(|shard| shard.lock())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::operation::Request;
    use crate::base::sync::Instant;
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

    /// The record that the queued command makes, published.
    fn publish(shard: &mut Shard, queued: &Queued) -> FollowUp {
        let (change, _) =
            transition(queued.base.as_deref(), &queued.op.command, &queued.op.key, NOW);
        let record = apply(queued.base.as_deref(), &change.unwrap(), TOKEN, NOW).unwrap();
        let versioned = Versioned { sequence: 1, record: record.map(Arc::new) };
        shard.publish(HASH, versioned, NOW, &Open, &mut None).1
    }

    fn claimed(shard: &mut Shard) {
        let Admission::Resolve(op) = shard.admit(begin(), NOW, &Open) else { panic!("resolve") };
        let queued = shard.resolved(op, Ok(None), NOW, &Open).queued.unwrap();
        let follow_up = publish(shard, &queued);
        assert!(follow_up.answers.is_empty() && follow_up.queued.is_none());
    }

    /// A claim that is held too long is orphaned without a word of its owner: who waits for it must be
    /// looked at then.
    #[test]
    fn who_waits_for_a_claim_with_a_deadline_is_looked_at_then() {
        for waits in [false, true] {
            let mut shard = Shard::default();
            let limited = begin_with(Some(Duration::from_millis(50)), None);
            let Admission::Resolve(first) = shard.admit(limited, NOW, &Open) else {
                panic!("resolve")
            };
            let queued = shard.resolved(first, Ok(None), NOW, &Open).queued.unwrap();
            let until = Instant::now() + Duration::from_secs(3600);
            let second = begin_with(None, waits.then_some(Wait { until, number: 1 }));
            assert!(matches!(shard.admit(second, NOW, &Open), Admission::Parked(None)));
            let follow_up = publish(&mut shard, &queued);
            assert_eq!(follow_up.reconsider_at, waits.then_some(Time(NOW.0 + 50)));
        }
    }

    #[test]
    fn while_a_key_is_looked_up_others_wait_for_the_marker() {
        let mut shard = Shard::default();
        let Admission::Resolve(first) = shard.admit(begin(), NOW, &Open) else { panic!("resolve") };
        assert!(matches!(shard.admit(begin(), NOW, &Open), Admission::Parked(_)));
        let queued = shard.resolved(first, Ok(None), NOW, &Open).queued.unwrap();
        // And while it is made durable.
        assert!(matches!(shard.admit(begin(), NOW, &Open), Admission::Parked(_)));
        let follow_up = publish(&mut shard, &queued);
        assert_eq!(follow_up.answers.len(), 2);
        for answer in &follow_up.answers {
            assert!(matches!(answer.parts().1, Ok(Reply::Locked)));
        }
        assert!(follow_up.queued.is_none());
    }

    #[test]
    fn a_wrong_body_that_comes_while_a_completed_key_is_looked_up_is_a_mismatch() {
        let mut shard = Shard::default();
        claimed(&mut shard);
        let complete = op(Command::Complete { token: TOKEN, response: None, ttl: None }, None);
        let Admission::Change(queued) = shard.admit(complete, NOW, &Open) else { panic!("change") };
        drop(publish(&mut shard, &queued));
        let completed = shard.recent(HASH).unwrap().record.clone();
        // Folded and evicted: only the store file knows it.
        shard.rotate();
        drop(shard.evict());
        let Admission::Resolve(first) = shard.admit(begin(), NOW, &Open) else { panic!("resolve") };
        let other = Fingerprint::builder().part("body", "other").finish();
        let fingerprint = KeyedFingerprint::new(other, &Secret([1; Secret::LEN]));
        let ttl = Duration::from_secs(1);
        let wrong = op(Command::Begin { fingerprint, ttl, max_execution: None }, None);
        assert!(matches!(shard.admit(wrong, NOW, &Open), Admission::Parked(_)));
        let follow_up = shard.resolved(first, Ok(completed), NOW, &Open);
        let replies: Vec<_> = follow_up.answers.iter().map(|answer| answer.parts().1).collect();
        assert!(matches!(replies[..], [Ok(Reply::Replay), Ok(Reply::Mismatch(_))]), "{replies:?}");
        assert!(follow_up.queued.is_none());
    }

    #[test]
    fn a_failed_lookup_tells_everybody_and_leaves_no_marker() {
        let mut shard = Shard::default();
        let Admission::Resolve(first) = shard.admit(begin(), NOW, &Open) else { panic!("resolve") };
        assert!(matches!(shard.admit(begin(), NOW, &Open), Admission::Parked(_)));
        let follow_up = shard.resolved(first, Err(Error::corrupted("")), NOW, &Open);
        assert_eq!(follow_up.answers.len(), 2);
        assert!(follow_up.answers.iter().all(|answer| answer.parts().1.is_err()));
        assert!(matches!(shard.admit(begin(), NOW, &Open), Admission::Resolve(_)));
    }

    #[test]
    fn two_changes_of_a_key_are_never_under_way_at_once() {
        let mut shard = Shard::default();
        claimed(&mut shard);
        let Admission::Change(first) = shard.admit(abort(), NOW, &Open) else { panic!("change") };
        assert!(matches!(shard.admit(abort(), NOW, &Open), Admission::Parked(_)));
        // The owner has spoken: a begin waits for the end.
        assert!(matches!(shard.admit(begin(), NOW, &Open), Admission::Parked(_)));
        let follow_up = publish(&mut shard, &first);
        // The second abort is fenced, the begin claims.
        assert_eq!(follow_up.answers.len(), 1);
        assert!(matches!(follow_up.answers[0].parts().1, Ok(Reply::Fenced)));
        assert!(matches!(follow_up.queued.unwrap().op.command, Command::Begin { .. }));
    }

    #[test]
    fn a_key_in_doubt_answers_nobody_until_it_is_settled() {
        let mut shard = Shard::default();
        claimed(&mut shard);
        let Admission::Change(_) = shard.admit(abort(), NOW, &Open) else { panic!("change") };
        assert!(matches!(shard.admit(begin(), NOW, &Open), Admission::Parked(_)));
        let follow_up = shard.set_unknown(HASH, &Open);
        assert_eq!(follow_up.answers.len(), 1);
        assert!(matches!(shard.admit(begin(), NOW, &Open), Admission::Answered(answer)
            if answer.parts().1.is_err_and(|error| error.kind() == ErrorKind::OutcomeUnknown)));
    }

    #[test]
    fn a_command_that_changed_nothing_gives_its_key_free() {
        let mut shard = Shard::default();
        claimed(&mut shard);
        let Admission::Change(queued) = shard.admit(abort(), NOW, &Open) else { panic!("change") };
        assert!(matches!(shard.admit(begin(), NOW, &Open), Admission::Parked(_)));
        let follow_up = shard.unchanged(HASH, queued.base, NOW, &Open);
        let replies: Vec<_> = follow_up.answers.iter().map(|answer| answer.parts().1).collect();
        assert!(matches!(replies[..], [Ok(Reply::Locked)]), "{replies:?}");
        assert!(matches!(shard.admit(abort(), NOW, &Open), Admission::Change(_)));
    }

    #[test]
    fn a_look_at_who_waits_changes_nothing_while_the_owner_ends_its_claim() {
        let mut shard = Shard::default();
        claimed(&mut shard);
        let Admission::Change(_) = shard.admit(abort(), NOW, &Open) else { panic!("change") };
        for waits in [begin(), abort()] {
            assert!(matches!(shard.admit(waits, NOW, &Open), Admission::Parked(_)));
        }
        let follow_up = shard.reconsider(HASH, NOW, &Open);
        assert!(follow_up.answers.is_empty() && follow_up.queued.is_none());
        assert!(matches!(shard.admit(abort(), NOW, &Open), Admission::Parked(_)));
    }

    #[test]
    fn a_command_that_was_never_written_leaves_the_claim() {
        let mut shard = Shard::default();
        claimed(&mut shard);
        let Admission::Change(_) = shard.admit(abort(), NOW, &Open) else { panic!("change") };
        assert!(shard.abandon(HASH, &Error::corrupted(""), &Open).answers.is_empty());
        assert!(matches!(shard.admit(begin(), NOW, &Open), Admission::Answered(answer)
            if matches!(answer.parts().1, Ok(Reply::Locked))));
    }

    #[test]
    fn a_key_whose_first_claim_is_in_doubt_is_not_forgotten() {
        let mut shard = Shard::default();
        let Admission::Resolve(op) = shard.admit(begin(), NOW, &Open) else { panic!("resolve") };
        drop(shard.resolved(op, Ok(None), NOW, &Open));
        drop(shard.set_unknown(HASH, &Open));
        assert!(shard.is_unknown(HASH));
    }

    #[test]
    fn whoever_waits_is_answered_when_a_thread_panics_or_the_engine_closes() {
        let waiting = || {
            let mut shard = Shard::default();
            claimed(&mut shard);
            let Admission::Change(_) = shard.admit(abort(), NOW, &Open) else { panic!("change") };
            assert!(matches!(shard.admit(begin(), NOW, &Open), Admission::Parked(_)));
            shard
        };
        let mut shard = waiting();
        assert_eq!(shard.set_busy_unknown(&Open).len(), 1);
        assert!(shard.is_unknown(HASH));
        assert_eq!(waiting().refuse_all(&Error::corrupted(""), &Open).len(), 1);
    }
}
