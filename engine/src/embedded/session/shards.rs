//! The state of each key in memory: its slot, and its record while the store file may not have it.
//!
//! Each shard holds both under one lock. Everything else relies on two rules:
//!
//! - Publishing puts the record into `active` and frees the slot under the same lock, so that a
//!   reader finds the record in one of them.
//! - Replies are never given, and operations never dropped, while a shard is locked: a reply may
//!   drop a claim, and that drop locks a shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admission::limits::Limits;
use crate::admission::slot::{Admission, FollowUp};
use crate::admission::slots::Slots;
use crate::backend::operation::Operation;
use crate::base::error::Result;
use crate::base::sync::{Mutex, MutexGuard};
use crate::embedded::session::replay_cache::ReplayCache;
use crate::semantics::key::{BuildHasher, HashMap, KeyHash};
use crate::semantics::record::{Record, Versioned};
use crate::semantics::time::Time;

#[derive(Default)]
pub(crate) struct Shard {
    pub(crate) slots: Slots,
    /// Records changed since the last rotation.
    active: HashMap<Versioned>,
    /// Records that the fold worker is writing to the store.
    folding: HashMap<Versioned>,
    /// Some of the records that only the store has.
    replays: ReplayCache,
}

impl Shard {
    pub(crate) fn recent(&self, hash: KeyHash) -> Option<&Versioned> {
        self.active.get(&hash).or_else(|| self.folding.get(&hash))
    }

    /// All recent records, the newer ones of a key last.
    pub(crate) fn recents(&self) -> impl Iterator<Item = (&KeyHash, &Versioned)> {
        self.folding.iter().chain(&self.active)
    }

    /// Admits an operation: answers it from memory, lets it wait, or gives it the slot.
    pub(crate) fn admit(&mut self, op: Operation, now: Time, limits: &Limits) -> Admission {
        if let Some(slot) = self.slots.slot(op.hash) {
            return slot.admit(op, now, limits);
        }
        let recent = self.recent(op.hash).map(|versioned| versioned.record.clone());
        match recent.or_else(|| self.replays.get(op.hash).map(Some)) {
            Some(record) => self.slots.decide(op, record, now, limits),
            None => self.slots.mark(op),
        }
    }

    /// Ends a look-up that [`admit`](Self::admit) asked for.
    pub(crate) fn resolved(
        &mut self,
        op: Operation,
        looked_up: Result<Option<Arc<Record>>>,
        now: Time,
        limits: &Limits,
    ) -> FollowUp {
        let hash = op.hash;
        let follow_up = self.slots.resolved(op, looked_up, now, limits);
        if let Some(record) = follow_up.answers.first().and_then(|own| own.replayed()) {
            self.replays.offer(hash, record);
        }
        follow_up
    }

    /// Publishes a change: puts the record into `active`, frees the slot and decides the operations
    /// that waited. Returns by how many in-flight records the shard grew, and the work for the time
    /// after the lock.
    pub(crate) fn publish(
        &mut self,
        hash: KeyHash,
        versioned: Versioned,
        now: Time,
        limits: &Limits,
        replaced: &mut Option<Versioned>,
    ) -> (isize, FollowUp) {
        let record = versioned.record.clone();
        *replaced = self.active.insert(hash, versioned);
        self.replays.forget(hash);
        let mut follow_up = FollowUp::default();
        let grew = self.slots.settle(hash, record, now, limits, &mut follow_up);
        (grew, follow_up)
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
    /// The map left in their place becomes the next active one. It has the same capacity, so that
    /// it does not grow while callers wait for the committer.
    pub(crate) fn evict(&mut self) -> HashMap<Versioned> {
        let next = HashMap::with_capacity_and_hasher(self.folding.len(), BuildHasher::default());
        std::mem::replace(&mut self.folding, next)
    }

    /// Frees the bytes of a folded checkpoint: `light`, which is without them, replaces the live
    /// record `folded`. A newer live record stays.
    pub(crate) fn lighten(&mut self, hash: KeyHash, folded: &Arc<Record>, light: Arc<Record>) {
        let live = self.slots.live_mut(hash);
        if let Some(live) = live.filter(|live| Arc::ptr_eq(live, folded)) {
            *live = light;
        }
    }

    /// Restores a record from the journal as if it had just been published.
    pub(crate) fn restore(&mut self, hash: KeyHash, versioned: Versioned) {
        self.active.insert(hash, versioned);
    }
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

    /// The recent records after `after`, the newest of each key: at least `most` of them if there
    /// are that many. Returns also the hash up to which they are complete. Locks one shard at a
    /// time.
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
    use crate::semantics::command::{Command, Reply};
    use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
    use crate::semantics::key::Key;
    use crate::semantics::secret::Secret;
    use crate::semantics::token::Token;
    use crate::semantics::transition::{apply, transition};

    const HASH: KeyHash = KeyHash(7);
    const NOW: Time = Time(1);
    const TOKEN: Token = Token { incarnation: 1, epoch: 1, sequence: 1 };

    fn begin(body: &str) -> Command {
        let fingerprint = Fingerprint::builder().part("body", body).finish();
        let fingerprint = KeyedFingerprint::new(fingerprint, &Secret([1; Secret::LEN]));
        Command::Begin { fingerprint, ttl: Duration::from_secs(1), max_execution: None }
    }

    fn key() -> Key {
        Key::new("", "k").unwrap()
    }

    fn op(command: Command) -> Operation {
        Operation::untold(Request { key: key(), hash: HASH, command, wait: None })
    }

    fn completed() -> Arc<Record> {
        let complete = Command::Complete { token: TOKEN, response: None, ttl: None };
        let commands = [begin("body"), complete];
        let record = commands.iter().fold(None, |base: Option<Record>, command| {
            let change = transition(base.as_ref(), command, &key(), NOW).0.unwrap();
            apply(base.as_ref(), &change, TOKEN, NOW).unwrap()
        });
        Arc::new(record.unwrap())
    }

    #[test]
    fn a_wrong_body_that_comes_while_a_completed_key_is_looked_up_is_a_mismatch() {
        let (mut shard, limits) = (Shard::default(), Limits::unbounded());
        let completed = completed();
        let versioned = Versioned { sequence: 1, record: Some(completed.clone()) };
        drop(shard.publish(HASH, versioned, NOW, &limits, &mut None));
        // Folded and evicted: only the store file has the record.
        shard.rotate();
        drop(shard.evict());
        let Admission::Resolve(first) = shard.admit(op(begin("body")), NOW, &limits) else {
            panic!("resolve")
        };
        let wrong = op(begin("other"));
        assert!(matches!(shard.admit(wrong, NOW, &limits), Admission::Parked(_)));
        let follow_up = shard.resolved(first, Ok(Some(completed)), NOW, &limits);
        let replies: Vec<_> = follow_up.answers.iter().map(|answer| answer.parts().1).collect();
        assert!(matches!(replies[..], [Ok(Reply::Replay), Ok(Reply::Mismatch(_))]), "{replies:?}");
        assert!(follow_up.queued.is_none());
    }

    #[test]
    fn recent_records_are_complete_up_to_the_end_of_a_shard() {
        let shards = Shards::new(0, 1);
        let hash_in = |shard: u128| KeyHash(shard << SHARD_SHIFT | 5);
        for shard in 0..SHARDS as u128 {
            let versioned = Versioned { sequence: 1, record: None };
            shards.shard(hash_in(shard)).restore(hash_in(shard), versioned);
        }
        let (recent, through) = shards.recent_behind(Some(hash_in(2)), 2);
        assert_eq!(recent.into_keys().collect::<Vec<_>>(), [3, 4].map(hash_in));
        assert_eq!(through, KeyHash((5 << SHARD_SHIFT) - 1));
    }
}
