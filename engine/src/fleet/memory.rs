//! A store in memory, for tests. It answers like a shared one, at once and one call at a time. The
//! simulation makes its answers late, lost and repeated.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::store::{
    Applied, Done, Expiring, Failure, GENERATION_SHIFT, Group, GroupAnswer, NewInstance, Opened,
    Registered, Renewal, Row, RowState, Rows, Store, Upkeep, error,
};
use crate::base::error::{ErrorKind, Result};
use crate::base::sync::Mutex;
use crate::semantics::time::millis;

/// One instance.
#[derive(Clone, Debug)]
struct Instance {
    name: String,
    lease: u64,
    since: u64,
    lease_until: u64,
    ended_at: Option<u64>,
}

impl Instance {
    /// The time since its last renewal.
    fn renewed_ago(&self, now: u64) -> u64 {
        now.saturating_sub(self.lease_until - self.lease)
    }
}

/// The rows of a store, and its time.
#[derive(Clone, Debug)]
pub(crate) struct MemoryStore {
    pub(crate) now: u64,
    pub(crate) generation: u64,
    version: u64,
    rows: BTreeMap<u128, Row>,
    instances: BTreeMap<u64, Instance>,
    /// The row whose lock is held.
    pub(crate) locked: Option<u128>,
}

impl MemoryStore {
    pub(crate) fn new(now: u64) -> Self {
        let generation = 1;
        Self {
            now,
            generation,
            version: generation << GENERATION_SHIFT,
            rows: BTreeMap::new(),
            instances: BTreeMap::new(),
            locked: None,
        }
    }

    fn draw(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub(crate) fn register(&mut self, name: &str, lease: u64) -> Registered {
        let now = self.now;
        for instance in self.instances.values_mut() {
            if !name.is_empty() && instance.name == name && instance.ended_at.is_none() {
                instance.ended_at = Some(now);
            }
        }
        let id = self.draw();
        let instance = Instance {
            name: name.to_owned(),
            lease,
            since: now,
            lease_until: now + lease,
            ended_at: None,
        };
        self.instances.insert(id, instance);
        Registered { instance: id, lease_until: now + lease, now }
    }

    /// `None`: the group came too late.
    pub(crate) fn group(&mut self, group: &Group) -> Option<GroupAnswer> {
        if self.now >= group.valid_until {
            return None;
        }
        let ended = self.has_ended(group.instance);
        let mut answer = GroupAnswer { ended, ..Default::default() };
        let mut others = Vec::new();
        for image in &group.images {
            let before = self.rows.get(&image.hash).map(|row| self.seen(row));
            let fits = match &before {
                None => image.expected == 0,
                Some(row) => {
                    row.version == image.expected
                        && self.locked != Some(image.hash)
                        && (image.grants || !row.has_expired(self.now))
                }
            };
            if fits && !(image.grants && answer.ended) {
                let version = self.draw();
                let row = image.filled(before.as_ref(), group.instance, version, self.now);
                self.rows.insert(image.hash, row);
                answer.applied.push(Applied { hash: image.hash, version, at: self.now });
            } else {
                others.push(image.hash);
            }
        }
        answer.found = self.read(&others);
        Some(answer)
    }

    pub(crate) fn read(&self, hashes: &[u128]) -> Rows {
        let rows = hashes.iter().filter_map(|hash| self.rows.get(hash)).map(|row| self.seen(row));
        Rows { rows: rows.collect(), now: self.now, generation: self.generation }
    }

    fn seen(&self, row: &Row) -> Row {
        let mut row = row.clone();
        if row.state == RowState::InFlight {
            match self.instances.get(&row.owner) {
                None => row.owner_ended = Some(self.now),
                Some(owner) => {
                    row.owner_ended =
                        owner.ended_at.map(|ended| ended.max(row.started_at).min(self.now));
                    // A lease that ends more than one lease from now: the clock went back.
                    let lives = self.now..=self.now + owner.lease;
                    row.owner_lapsed =
                        owner.ended_at.is_none() && !lives.contains(&owner.lease_until);
                }
            }
        }
        row
    }

    pub(crate) fn has_ended(&self, instance: u64) -> bool {
        self.instances.get(&instance).is_none_or(|instance| instance.ended_at.is_some())
    }

    pub(crate) fn renew(&mut self, id: u64) -> Renewal {
        let now = self.now;
        match self.instances.get_mut(&id) {
            Some(instance) if instance.ended_at.is_none() => {
                if instance.renewed_ago(now) > instance.lease / 2 || instance.since > now {
                    instance.since = now;
                }
                instance.lease_until = now + instance.lease;
                Renewal::Renewed { lease_until: instance.lease_until, now }
            }
            _ => Renewal::Ended { now },
        }
    }

    pub(crate) fn end(&mut self, by: u64, others: &[u64]) -> Vec<u64> {
        let now = self.now;
        // ORDER: a longer gap up to now is one that `renew` would see: the clock went ahead, or the asker stood
        // still. The owner may live, and not know that its lease is over.
        let has_gap = |me: &Instance| me.renewed_ago(now) > me.lease / 2;
        let me = self.instances.get(&by).filter(|me| me.ended_at.is_none() && !has_gap(me));
        let Some(me) = me.cloned() else { return Vec::new() };
        let mut ended = Vec::new();
        for other in others.iter().filter(|other| **other != by) {
            if let Some(instance) = self.instances.get_mut(other) {
                // If the clock went back, the lease ends one lease from now at the latest.
                instance.lease_until = instance.lease_until.min(now + instance.lease);
            }
            if let Some(instance) = self.instances.get_mut(other)
                && instance.ended_at.is_none()
                && instance.lease_until < now
                && me.since + me.lease.max(instance.lease) <= now
            {
                instance.ended_at = Some(now);
                ended.push(*other);
            }
        }
        ended
    }

    /// Ends all instances whose lease is over, if `by` may declare that. Returns how many.
    fn end_lapsed(&mut self, by: u64) -> u64 {
        let others: Vec<_> = self.instances.keys().copied().collect();
        self.end(by, &others).len() as u64
    }

    /// Ends an instance of its own accord.
    pub(crate) fn close(&mut self, id: u64) {
        let now = self.now;
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.ended_at.get_or_insert(now);
        }
    }

    /// Rows that count as orphans.
    fn orphans(&self) -> impl Iterator<Item = Row> {
        self.rows.values().map(|row| self.seen(row)).filter(|row| match row.state {
            RowState::Orphan => true,
            RowState::InFlight => {
                row.owner_ended.is_some() || row.deadline.is_some_and(|at| at <= self.now)
            }
            _ => false,
        })
    }

    /// Removes rows in any state.
    #[cfg(test)]
    pub(crate) fn forget(&mut self, which: impl Fn(&Row, u64) -> bool) {
        let now = self.now;
        self.rows.retain(|_, row| !which(row, now));
    }

    #[cfg(test)]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// From now on every version is greater than this one.
    #[cfg(test)]
    pub(crate) fn raise_above(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    /// The keys of claims that an instance holds.
    #[cfg(test)]
    pub(crate) fn held_by(&self, owner: u64) -> Vec<u128> {
        let held =
            self.rows.values().filter(|row| row.state == RowState::InFlight && row.owner == owner);
        held.map(|row| row.hash).collect()
    }
}

/// A store in memory that engines share. Its time stands still until it is moved.
#[derive(Clone, Debug)]
pub struct SharedMemory(Arc<Mutex<MemoryStore>>);

impl SharedMemory {
    /// An empty store.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        /// 2026-01-01T00:00:00Z.
        const START: u64 = 1_767_225_600_000;
        Self(Arc::new(Mutex::new(MemoryStore::new(START))))
    }

    /// Moves the time of the store ahead.
    pub fn advance(&self, by: Duration) {
        self.0.lock().now += millis(by);
    }
}

impl Store for SharedMemory {
    fn open(&self, new: &NewInstance) -> Result<Opened> {
        let registered = self.0.lock().register(&new.name, millis(new.lease));
        Ok(Opened { registered, secret: [7; 64], incarnation: 1 })
    }

    fn register(&self, new: NewInstance, done: Done<Registered>) {
        let registered = self.0.lock().register(&new.name, millis(new.lease));
        done(Ok(registered));
    }

    fn group(&self, group: Group, done: Done<GroupAnswer>) {
        let answer = self.0.lock().group(&group);
        let late = || error(ErrorKind::Unavailable, "the group came too late", None);
        done(answer.ok_or_else(|| Failure::NotCarriedOut(late())));
    }

    fn read(&self, _: u64, hashes: Vec<u128>, done: Done<Rows>) {
        let rows = self.0.lock().read(&hashes);
        done(Ok(rows));
    }

    fn renew(&self, instance: u64, done: Done<Renewal>) {
        let renewal = {
            let mut store = self.0.lock();
            let renewal = store.renew(instance);
            store.end_lapsed(instance);
            renewal
        };
        done(Ok(renewal));
    }

    fn end(&self, by: u64, others: Vec<u64>, done: Done<Vec<u64>>) {
        let ended = self.0.lock().end(by, &others);
        done(Ok(ended));
    }

    fn list(&self, by: u64, _: bool, done: Done<()>) {
        self.0.lock().end_lapsed(by);
        done(Ok(()));
    }

    fn orphans(&self, _: u64, after: Option<u128>, most: usize, done: Done<Rows>) {
        let rows = {
            let store = self.0.lock();
            let behind = store.orphans().filter(|row| after.is_none_or(|after| row.hash > after));
            let rows = behind.take(most).collect();
            Rows { rows, now: store.now, generation: store.generation }
        };
        done(Ok(rows));
    }

    fn scan(&self, _: u64, from: u128, most: usize, done: Done<Rows>) {
        let rows = {
            let store = self.0.lock();
            let rows = store.rows.range(from..).take(most).map(|(_, row)| store.seen(row));
            Rows { rows: rows.collect(), now: store.now, generation: store.generation }
        };
        done(Ok(rows));
    }

    fn expiring(&self, done: Done<Vec<Expiring>>) {
        const BUCKET: u64 = 60_000;
        let mut buckets = BTreeMap::<u64, (u64, u64)>::new();
        {
            let store = self.0.lock();
            let live = |row: &&Row| row.expires_at.is_some_and(|at| at > store.now);
            for row in store.rows.values().filter(live) {
                let end = (row.expires_at.unwrap_or_default() / BUCKET + 1) * BUCKET;
                let (records, bytes) = buckets.entry(end).or_default();
                *records += 1;
                *bytes += row.body.as_ref().map_or(0, |body| body.len() as u64);
            }
        }
        let expiring = |(end, (records, bytes))| Expiring { end, records, bytes };
        done(Ok(buckets.into_iter().map(expiring).collect()));
    }

    fn upkeep(&self, by: u64, _: Duration, done: Done<Upkeep>) {
        let upkeep = {
            let mut store = self.0.lock();
            let ended = store.end_lapsed(by);
            let orphans = store.orphans().count() as u64;
            Upkeep { elected: true, ended, removed: 0, orphans, bytes: 0 }
        };
        done(Ok(upkeep));
    }

    fn close(&self, instance: u64) -> Result<()> {
        self.0.lock().close(instance);
        Ok(())
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
