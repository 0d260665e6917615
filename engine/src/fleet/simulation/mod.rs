//! Several machines over one store, stepped. Requests and answers are late, lost, repeated and in
//! any order, processes die and stand still, and callers make any calls that callers may make. The
//! linearizability checker puts their answers in order, against the model.

mod callers;
mod network;
mod plans;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oncekey_testing::{Answer, Call, CallId, History};

use super::image::token;
use super::machine::{Action, Event, Machine, Rules};
use super::memory::MemoryStore;
use super::store::{Failure, Group, GroupAnswer, NewInstance, RowState};
use crate::admission::limits::{Bounds, Limits};
use crate::backend::operation::{Operation, Outcome, Request, Wait};
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind};
use crate::base::sync::Instant;
use crate::semantics::command::{Command, Reply};
use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::{Checkpoint, State};
use crate::semantics::samples::{Noise, SECRET, hash};
use crate::semantics::token::Token;

const LEASE_MS: u64 = 2_000;
const KEYS: u8 = 2;

/// How a simulation is made.
#[derive(Clone, Copy, Debug)]
struct Plan {
    machines: usize,
    steps: usize,
    ttl: u64,
    /// In a thousand steps.
    kills: u64,
    pauses: u64,
    /// The store's clock goes ahead or back, by up to ten leases.
    jumps: u64,
    /// In a hundred requests.
    lost: u64,
    /// How long callers are patient, in milliseconds.
    patience: u64,
    /// The rows that a group met are read when its answer is on its way, not in one step with it.
    reads_later: bool,
}

/// The handle of a caller.
#[derive(Clone, Debug)]
enum Handle {
    Claim(u8, Token),
    Orphan(u8, Token),
}

/// A call that was answered.
struct Heard {
    id: CallId,
    key: u8,
    command: Command,
    outcome: Outcome,
}

type Inbox = Arc<Mutex<Vec<Heard>>>;

struct Process {
    machine: Machine,
    /// The number of this life. A question of another life is not answered.
    life: usize,
    paused: bool,
    handles: Vec<Handle>,
    inbox: Inbox,
    /// Calls that were not answered yet.
    open: usize,
}

/// A claim that was granted and not told.
struct Untold {
    /// The life that asked for it.
    life: usize,
    key: u8,
    /// An extra begin in the history, which did not happen if the caller's begin did.
    begin: CallId,
    /// Whether the caller got another answer, because others resolved the claim meanwhile.
    answered: bool,
}

/// A request on its way to the store, or its answer on the way back.
enum Message {
    Request(Action),
    /// A copy whose answer no process waits for.
    Stray(Group),
    Answer(Event),
}

struct World {
    noise: Noise,
    plan: Plan,
    store: MemoryStore,
    base: Instant,
    /// Milliseconds since then, for processes.
    elapsed: u64,
    processes: Vec<Process>,
    messages: Vec<(usize, usize, Message)>,
    history: History<Token>,
    lives: usize,
    calm: bool,
    told: BTreeMap<&'static str, usize>,
    waits: u64,
    /// Claims that were granted and not told yet, by token.
    untold: BTreeMap<Token, Untold>,
    /// Claims of killed lives. The request that gives one back may still be on its way.
    forgotten: BTreeSet<Token>,
}

fn rules(patience: u64, second_group: usize) -> Rules {
    Rules {
        incarnation: 1,
        name: String::new(),
        build: String::new(),
        lease: Duration::from_millis(LEASE_MS),
        overload_after: Duration::from_millis(patience),
        settle_for: Duration::from_millis(6 * patience),
        upkeep_interval: Duration::from_secs(3600),
        replay_bytes: 1 << 20,
        second_group,
        durable_claims: true,
    }
}

fn key(number: u8) -> Key {
    Key::new("", [b'k', number]).unwrap()
}

fn fingerprint(body: u8) -> KeyedFingerprint {
    KeyedFingerprint::new(Fingerprint::builder().part("body", [body]).finish(), &SECRET)
}

impl World {
    fn new(seed: u64, plan: Plan) -> Self {
        let start = 1_000_000;
        let mut world = Self {
            noise: Noise::new(seed),
            plan,
            store: MemoryStore::new(start),
            base: Instant::now(),
            elapsed: 0,
            processes: Vec::new(),
            messages: Vec::new(),
            history: History::new(),
            lives: 0,
            calm: false,
            told: BTreeMap::new(),
            waits: 0,
            untold: BTreeMap::new(),
            forgotten: BTreeSet::new(),
        };
        for _ in 0..plan.machines {
            let process = world.process();
            world.processes.push(process);
        }
        world
    }

    fn below(&mut self, n: u64) -> u64 {
        self.noise.next() % n
    }

    fn now(&self) -> Instant {
        self.base + Duration::from_millis(self.elapsed)
    }

    fn process(&mut self) -> Process {
        self.lives += 1;
        let registered = self.store.register("", LEASE_MS);
        let now = self.now();
        let bounds =
            Bounds { in_flight: 100, queued: 100, waiting: 100, orphans: 100, ..Bounds::NONE };
        let limits = Arc::new(Limits::new(bounds));
        // Few keys: a group for each, or in every second process one that waits for two.
        let rules = rules(self.plan.patience, 1 + self.lives % 2);
        let machine = Machine::new(rules, limits, registered, now, now);
        Process {
            machine,
            life: self.lives,
            paused: false,
            handles: Vec::new(),
            inbox: Inbox::default(),
            open: 0,
        }
    }

    fn handle(&mut self, at: usize, event: Option<Event>) {
        let now = self.now();
        let machine = &mut self.processes[at].machine;
        event.into_iter().for_each(|event| machine.take_in(now, event));
        let actions = machine.act(now);
        let life = self.processes[at].life;
        for action in actions {
            match action {
                Action::Answer(answer) => answer.give(),
                Action::Upkeep(_) => {}
                request => self.messages.push((at, life, Message::Request(request))),
            }
        }
        let heard = std::mem::take(&mut *self.processes[at].inbox.lock().unwrap());
        heard.into_iter().for_each(|heard| self.heard(at, heard));
    }

    fn count(&mut self, name: &'static str) {
        *self.told.entry(name).or_default() += 1;
    }

    fn elapse(&mut self, millis: u64) {
        self.store.now += millis;
        self.elapsed += millis;
        self.history.elapse(millis);
        let now = self.now();
        for at in 0..self.processes.len() {
            let process = &self.processes[at];
            if !process.paused && process.machine.next_tick() <= now {
                self.handle(at, None);
            }
        }
    }

    fn step(&mut self) {
        let at = self.below(self.processes.len() as u64) as usize;
        let chance = self.below(1000);
        let Plan { kills, pauses, jumps, .. } = self.plan;
        if chance < kills {
            self.count("killed");
            // An unanswered call of the killed process may have happened: the history says no more.
            let life = self.processes[at].life;
            let of_it = self.untold.extract_if(.., |_, untold| untold.life == life);
            for (token, untold) in of_it.collect::<Vec<_>>() {
                if !untold.answered {
                    self.history.answer(untold.begin, Answer::Refused);
                }
                self.forgotten.insert(token);
            }
            self.processes[at] = self.process();
        } else if chance < kills + pauses {
            self.processes[at].paused = !self.processes[at].paused;
        } else if chance < kills + pauses + jumps {
            self.count("jumped");
            let by = self.below(10 * LEASE_MS);
            // Time never goes back in the history, so nothing expires where clocks jump.
            match self.below(2) {
                0 => self.store.now += by,
                _ => self.store.now -= by.min(self.store.now / 2),
            }
        } else if chance < 200 && !self.processes[at].paused {
            self.call(at);
        } else if chance < 400 {
            let millis = [1, 50, 200, 700][self.below(4) as usize];
            self.elapse(millis);
        } else {
            self.deliver();
        }
    }

    fn run(mut self) -> BTreeMap<&'static str, usize> {
        for _ in 0..self.plan.steps {
            self.step();
        }
        // Every caller is answered once the network is well.
        self.calm = true;
        self.processes.iter_mut().for_each(|process| process.paused = false);
        for _ in 0..20_000 {
            let mut delivered = 0;
            while !self.messages.is_empty() {
                delivered += 1;
                assert!(delivered < 100_000, "requests go round and round, and no time goes by");
                self.deliver();
            }
            if self.processes.iter().all(|process| process.machine.is_idle()) {
                self.history.check(self.plan.ttl).unwrap();
                return self.told;
            }
            self.elapse(50);
        }
        panic!("a caller waits for ever");
    }
}
