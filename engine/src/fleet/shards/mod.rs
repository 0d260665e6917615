//! A model of a fleet over several stores. A list tells the home of each key. Lists change while
//! processes with older lists run, and no key is granted twice. docs/decisions.md has the argument.
//!
//! A process here does one step at one store at a time, in any order. Every rule of the argument is
//! a step.

mod runs;

use crate::base::bytes::SharedBytes;
use crate::fleet::memory::MemoryStore;
use crate::fleet::store::{GENERATION_SHIFT, Group, Row, RowImage, RowState};
use crate::semantics::samples::Noise;

const KEYS: usize = 3;
const HOMES: usize = 4;
const TTL: u64 = 2_000;

/// The home of each key.
type List = [usize; KEYS];

/// The next step of a begin.
#[derive(Clone, Debug)]
enum Stage {
    /// Looks at the homes of older lists, at this one next.
    Fence(usize),
    /// All older homes are fenced, with versions up to this.
    Claim(u64),
}

#[derive(Clone, Debug)]
struct Op {
    key: usize,
    stage: Stage,
    /// The greatest version that was met.
    floor: u64,
}

/// A process with one list. It knows the older lists that are not settled.
#[derive(Clone, Debug)]
struct Process {
    list: usize,
    from: usize,
    /// The instance of the process at each home.
    instances: Vec<u64>,
    ops: Vec<Op>,
    /// Claims: key, home, version.
    held: Vec<(usize, usize, u64)>,
}

struct World {
    noise: Noise,
    homes: Vec<MemoryStore>,
    /// The oldest list that a home still registers.
    oldest: Vec<usize>,
    lists: Vec<List>,
    /// Every key lies at its home by this list or by a newer one.
    settled: usize,
    processes: Vec<Process>,
    /// Instances of processes that are gone, with their list, until they are declared ended.
    dead: Vec<(usize, usize, u64)>,
    tokens: [u64; KEYS],
    groups: u64,
    granted: u64,
    prolonged: u64,
    /// A rule to leave out, so that the model must notice.
    broken: Option<Broken>,
}

/// Rules, each of which is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// A claim fences no older home.
    NoFences,
    /// A change counts as over while instances with an older list live.
    LivingInstances,
    /// A change counts as over one TTL later, whatever the older homes hold.
    OneTtl,
    /// A claim takes the version that its home draws.
    NoFloor,
    /// The versions of the homes are not raised at the end of a change.
    NoRaise,
}

/// The list of a fence. A fence is a free row that names its list and never expires.
fn fence_of(row: &Row) -> Option<usize> {
    (row.state == RowState::Free && row.attempt > 1_000).then(|| row.attempt as usize - 1_001)
}

fn is_live(row: &Row, now: u64) -> bool {
    row.state != RowState::Free && row.expires_at.is_none_or(|at| at > now)
}

fn image(key: usize, writer: u64, op: u64, before: Option<&Row>, state: RowState) -> RowImage {
    RowImage {
        hash: key as u128 + 1,
        expected: before.map_or(0, |row| row.version),
        writer,
        op,
        state,
        attempt: before.map_or(1, |row| row.attempt.min(1_000)),
        grants: false,
        resolves: false,
        ttl: TTL,
        deadline_in: None,
        since: None,
        expires_in: match state {
            RowState::InFlight => None,
            RowState::Free => Some(u64::MAX / 8),
            _ => Some(TTL),
        },
        identity: SharedBytes::copy_of(&[key as u8]),
        fingerprint: None,
        checkpoint: None,
        body: None,
    }
}

impl World {
    fn new(seed: u64, broken: Option<Broken>) -> Self {
        let mut world = Self {
            noise: Noise::new(seed),
            homes: (0..HOMES).map(|_| MemoryStore::new(1_000_000)).collect(),
            oldest: vec![0; HOMES],
            lists: vec![[0; KEYS]],
            settled: 0,
            processes: Vec::new(),
            dead: Vec::new(),
            tokens: [0; KEYS],
            groups: 0,
            granted: 0,
            prolonged: 0,
            broken,
        };
        // The versions of the homes are independent of each other.
        for home in 0..HOMES {
            let ahead = world.below(1_000);
            let version = world.homes[home].generation << GENERATION_SHIFT;
            world.homes[home].raise_above(version + ahead);
        }
        (0..3).for_each(|_| world.open());
        world
    }

    fn below(&mut self, n: usize) -> u64 {
        self.noise.next() % n as u64
    }

    /// A process with the newest list, or with an older one that is still admitted everywhere.
    fn open(&mut self) {
        let newest = self.lists.len() - 1;
        let list = newest - self.below(2).min((newest - self.settled) as u64) as usize;
        if self.oldest.iter().any(|oldest| *oldest > list) {
            return;
        }
        let instances = self.homes.iter_mut().map(|home| home.register("", 1 << 40).instance);
        let instances = instances.collect();
        let from = self.settled;
        self.processes.push(Process { list, from, instances, ops: Vec::new(), held: Vec::new() });
    }

    fn row(&self, home: usize, key: usize) -> Option<Row> {
        self.homes[home].read(&[key as u128 + 1]).rows.pop()
    }

    /// Carries a change out at a home. Returns its version.
    fn change(&mut self, at: usize, home: usize, image: RowImage) -> Option<u64> {
        self.groups += 1;
        let instance = self.processes[at].instances[home];
        let group = Group {
            lane: 0,
            instance,
            number: self.groups,
            valid_until: u64::MAX,
            durable: true,
            images: vec![image],
        };
        let answer = self.homes[home].group(&group)?;
        answer.applied.first().map(|applied| applied.version)
    }

    /// The homes of the older lists, oldest first, without that of the process's own list.
    fn older(&self, at: usize, key: usize) -> Vec<usize> {
        let process = &self.processes[at];
        let own = self.lists[process.list][key];
        let mut homes = Vec::new();
        for list in &self.lists[process.from..process.list] {
            if list[key] != own && !homes.contains(&list[key]) {
                homes.push(list[key]);
            }
        }
        homes
    }

    /// Does one step of a begin. Returns `false` when the begin is answered.
    fn advance(&mut self, at: usize, op: &mut Op) -> bool {
        let (key, list) = (op.key, self.processes[at].list);
        let older = self.older(at, key);
        match op.stage {
            Stage::Fence(next) if next < older.len() && self.broken != Some(Broken::NoFences) => {
                let home = older[next];
                let row = self.row(home, key);
                let now = self.homes[home].now;
                let version = match &row {
                    // That row decides: the operation goes on there.
                    Some(row) if is_live(row, now) => return self.resolve(at, home, row),
                    Some(row) if fence_of(row).is_some() => Some(row.version),
                    _ => {
                        let mut fence = image(key, 1, self.groups, row.as_ref(), RowState::Free);
                        fence.attempt = 1_001 + list as u32;
                        // Only a claim may swap an expired row. A fence counts as one in this
                        // respect.
                        fence.grants = true;
                        self.change(at, home, fence)
                    }
                };
                // A fence that met another row is tried again.
                if let Some(version) = version {
                    op.floor = op.floor.max(version);
                    op.stage = Stage::Fence(next + 1);
                }
                true
            }
            Stage::Fence(_) => {
                op.stage = Stage::Claim(op.floor);
                true
            }
            Stage::Claim(floor) => self.claim(at, key, floor),
        }
    }

    fn claim(&mut self, at: usize, key: usize, floor: u64) -> bool {
        let list = self.processes[at].list;
        let home = self.lists[list][key];
        let row = self.row(home, key);
        match &row {
            Some(row) if is_live(row, self.homes[home].now) => return self.resolve(at, home, row),
            // The key has moved on: this process needs the newer list.
            Some(row) if fence_of(row).is_some_and(|of| of > list) => return false,
            _ => {}
        }
        if self.broken != Some(Broken::NoFloor) {
            self.homes[home].raise_above(floor);
        }
        let mut claim = image(key, 1, self.groups, row.as_ref(), RowState::InFlight);
        (claim.grants, claim.attempt) = (true, 1);
        let Some(version) = self.change(at, home, claim) else { return row.is_none() };
        assert!(version > self.tokens[key], "a later claim has the smaller token");
        self.tokens[key] = version;
        self.granted += 1;
        self.processes[at].held.push((key, home, version));
        false
    }

    /// Meets a live row: an orphan is taken over, wherever it lies.
    fn resolve(&mut self, at: usize, home: usize, row: &Row) -> bool {
        let orphaned = row.state == RowState::Orphan || row.owner_ended.is_some();
        if row.state == RowState::Completed || !orphaned {
            return false;
        }
        let key = row.hash as usize - 1;
        let mut over = image(key, 1, self.groups, Some(row), RowState::InFlight);
        (over.grants, over.attempt) = (true, row.attempt + 1);
        if let Some(version) = self.change(at, home, over) {
            assert!(version > self.tokens[key], "a later claim has the smaller token");
            self.tokens[key] = version;
            self.prolonged += 1;
            self.processes[at].held.push((key, home, version));
        }
        false
    }

    /// Ends a claim by its version.
    fn end(&mut self, at: usize) {
        let count = self.processes[at].held.len();
        if count == 0 {
            return;
        }
        let which = self.below(count) as usize;
        let (key, home, version) = self.processes[at].held.swap_remove(which);
        let Some(row) = self.row(home, key).filter(|row| row.version == version) else { return };
        let state = [RowState::Completed, RowState::Completed, RowState::Free, RowState::Orphan];
        let state = state[self.below(4) as usize];
        let end = image(key, 1, self.groups, Some(&row), state);
        self.change(at, home, end);
    }

    /// Does one step towards settling the oldest change.
    fn settle(&mut self) {
        let next = self.settled + 1;
        if next >= self.lists.len() {
            return;
        }
        // One home after the other stops admitting processes with an older list.
        if let Some(home) = (0..HOMES).find(|home| self.oldest[*home] < next) {
            self.oldest[home] = next;
            return;
        }
        let older = self.processes.iter().map(|process| process.list);
        let older = older.chain(self.dead.iter().map(|(list, ..)| *list));
        if older.into_iter().any(|list| list < next) && self.broken != Some(Broken::LivingInstances)
        {
            return;
        }
        let misplaced = (0..HOMES).any(|home| {
            (0..KEYS).any(|key| {
                let row = self.row(home, key);
                self.lists[next][key] != home
                    && row.is_some_and(|row| is_live(&row, self.homes[home].now))
            })
        });
        if misplaced && self.broken != Some(Broken::OneTtl) {
            return;
        }
        // Later processes do not ask the older homes, so no fence tells them the versions there.
        let greatest = self.homes.iter().map(MemoryStore::version).max().unwrap_or(0);
        for home in &mut self.homes {
            if self.broken != Some(Broken::NoRaise) {
                home.raise_above(greatest);
            }
            home.forget(|row, _| fence_of(row).is_some_and(|of| of <= next));
        }
        self.settled = next;
    }

    fn step(&mut self) {
        match self.below(100) {
            // Another change begins when the one before it is settled.
            0..2 if self.settled == self.lists.len() - 1 => {
                let list = [(); KEYS].map(|()| self.below(HOMES) as usize);
                self.lists.push(list);
            }
            2..6 => self.settle(),
            6..9 => self.open(),
            9..13 if self.processes.len() > 1 => {
                let which = self.below(self.processes.len()) as usize;
                let gone = self.processes.swap_remove(which);
                for (home, instance) in gone.instances.iter().enumerate() {
                    self.dead.push((gone.list, home, *instance));
                }
            }
            13..20 if !self.dead.is_empty() => {
                let which = self.below(self.dead.len()) as usize;
                let (_, home, instance) = self.dead.swap_remove(which);
                self.homes[home].close(instance);
            }
            20..26 => {
                for home in 0..HOMES {
                    let by = self.below(TTL as usize / 2);
                    self.homes[home].now += by;
                    self.homes[home].forget(|row, now| row.expires_at.is_some_and(|at| at < now));
                }
            }
            chance if !self.processes.is_empty() => {
                let at = self.below(self.processes.len()) as usize;
                match chance {
                    26..40 => self.end(at),
                    40..60 => {
                        let key = self.below(KEYS) as usize;
                        self.processes[at].ops.push(Op { key, stage: Stage::Fence(0), floor: 0 });
                    }
                    _ if !self.processes[at].ops.is_empty() => {
                        let which = self.below(self.processes[at].ops.len()) as usize;
                        let mut op = self.processes[at].ops.swap_remove(which);
                        if self.advance(at, &mut op) {
                            self.processes[at].ops.push(op);
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        for key in 0..KEYS {
            let live = (0..HOMES).filter(|home| {
                self.row(*home, key).is_some_and(|row| is_live(&row, self.homes[*home].now))
            });
            assert!(live.count() <= 1, "a key lives at two homes");
        }
    }
}
