//! A store in memory that does what a shared one does, at once and one at a time; the simulation makes it
//! late, forgetful and repetitive.

use std::collections::BTreeMap;

use super::store::{
    GENERATION_SHIFT, Group, GroupAnswer, Registered, Renewal, Row, RowState, Rows,
};

/// One instance.
#[derive(Clone, Debug)]
struct Instance {
    name: String,
    lease: u64,
    since: u64,
    lease_until: u64,
    ended_at: Option<u64>,
}

/// The rows of a store, and its time.
#[derive(Clone, Debug)]
pub(crate) struct MemoryStore {
    pub(crate) now: u64,
    pub(crate) generation: u64,
    version: u64,
    rows: BTreeMap<u128, Row>,
    instances: BTreeMap<u64, Instance>,
    /// Rows that somebody holds the lock of.
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

    /// `None`: it came too late.
    pub(crate) fn group(&mut self, group: &Group) -> Option<GroupAnswer> {
        if self.now >= group.valid_until {
            return None;
        }
        let mut answer =
            GroupAnswer { ended: self.has_ended(group.instance), ..Default::default() };
        let mut others = Vec::new();
        for image in &group.images {
            let before = self.rows.get(&image.hash).cloned();
            let fits = match &before {
                None => image.expected == 0,
                Some(row) => {
                    row.version == image.expected
                        && self.locked != Some(image.hash)
                        && (image.grants || row.expires_at.is_none_or(|at| at > self.now))
                }
            };
            if fits && !(image.grants && answer.ended) {
                let version = self.draw();
                let row = image.filled(before.as_ref(), group.instance, version, self.now);
                self.rows.insert(image.hash, row);
                answer.applied.push((image.hash, version));
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
                    row.owner_lapsed = owner.ended_at.is_none() && owner.lease_until < self.now;
                }
            }
        }
        row
    }

    fn has_ended(&self, instance: u64) -> bool {
        self.instances.get(&instance).is_none_or(|instance| instance.ended_at.is_some())
    }

    pub(crate) fn renew(&mut self, id: u64) -> Renewal {
        let now = self.now;
        match self.instances.get_mut(&id) {
            Some(instance) if instance.ended_at.is_none() => {
                if now + instance.lease - instance.lease_until > instance.lease / 2 {
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
        let me =
            self.instances.get(&by).filter(|me| me.ended_at.is_none() && me.lease_until >= now);
        let Some(me) = me.cloned() else { return Vec::new() };
        let mut ended = Vec::new();
        for other in others.iter().filter(|other| **other != by) {
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

    /// The keys of claims that an instance holds.
    pub(crate) fn held_by(&self, owner: u64) -> Vec<u128> {
        let held =
            self.rows.values().filter(|row| row.state == RowState::InFlight && row.owner == owner);
        held.map(|row| row.hash).collect()
    }
}
