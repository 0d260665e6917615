//! The machine: everything that a process of a fleet decides, without threads, clocks or connections.
//!
//! [`Machine::take_in`] takes an event and the time. [`Machine::act`] returns actions: questions
//! for the store, and answers for callers. One event answers each question. All changes that are
//! asked for while groups are under way become the next group.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::clock::StoreClock;
use super::replays::Replays;
use super::slot::{Slot, Stage, Work};
use super::store::{Failure, Group, GroupAnswer, LANES, NewInstance, Registered, Renewal, Rows};
use crate::admission::limits::Limits;
use crate::backend::operation::{Answer, Operation, Outcome, Wait};
use crate::base::error::{Error, ErrorKind};
use crate::base::sync::Instant;
use crate::semantics::command::{Command, Reply};
use crate::semantics::key::{HashMap, KeyHash};

/// How a machine behaves.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) incarnation: u64,
    pub(crate) name: String,
    pub(crate) build: String,
    pub(crate) lease: Duration,
    pub(crate) overload_after: Duration,
    pub(crate) settle_for: Duration,
    pub(crate) upkeep_interval: Duration,
    pub(crate) replay_bytes: usize,
    /// How many changes wait before a group is sent beside another one. A group has fixed costs, so
    /// that for fewer changes it is cheaper to wait.
    pub(crate) second_group: usize,
    /// Whether a claim waits until it is durable.
    pub(crate) durable_claims: bool,
}

impl Rules {
    /// How long the caller of a command waits for the store.
    pub(super) fn patience(&self, command: &Command) -> Duration {
        if command.starts_execution() { self.overload_after } else { self.settle_for }
    }
}

/// An event that the machine takes in.
pub(crate) enum Event {
    Submit(Operation),
    Withdraw(KeyHash, Wait),
    /// The group on this lane.
    GroupDone(usize, Result<GroupAnswer, Failure>),
    ReadDone(Result<Rows, Failure>),
    Renewed(Result<Renewal, Failure>),
    Registered(Result<Registered, Failure>),
    Ended,
    Kept,
    /// This process ended its own instance. Another one begins.
    Reopened,
    /// The machine refuses operations from now on.
    Stop,
}

/// An action for the driver.
pub(crate) enum Action {
    Group(Group),
    Read(u64, Vec<u128>),
    Renew(u64),
    Register(NewInstance),
    End(u64, Vec<u64>),
    Upkeep(u64),
    Answer(Answer),
}

/// When to look at a slot again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The wait of this number ends.
    Wait(u64),
    /// The waiters look at the owner.
    Look,
    /// The work has taken too long.
    Patience,
}

/// The instance of this process, until the process hears of its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current {
    pub(crate) id: u64,
    pub(crate) lease_until: u64,
    /// When the renewal that gave this lease was sent.
    pub(crate) renewed: Instant,
}

/// A group that is under way.
pub(super) struct UnderWay {
    pub(super) members: Vec<KeyHash>,
    pub(super) instance: u64,
    pub(super) sent: Instant,
}

/// A wait for the callers who were just answered: what they ask next goes as one group.
#[derive(Clone, Copy)]
pub(super) struct Gathering {
    /// How many were answered.
    pub(super) callers: usize,
    pub(super) until: Instant,
}

/// See the module.
pub(crate) struct Machine {
    pub(super) rules: Rules,
    pub(super) limits: Arc<Limits>,
    pub(super) current: Option<Current>,
    pub(super) clock: StoreClock,
    pub(super) slots: HashMap<Slot>,
    pub(super) replays: Replays,
    pub(super) generation: u64,
    pub(super) actions: Vec<Action>,
    /// Slots whose change is to be sent.
    pub(super) changes: VecDeque<KeyHash>,
    /// Slots whose row is to be read.
    pub(super) reads: BTreeSet<KeyHash>,
    /// Owners to declare ended, with the slots that wait for it.
    pub(super) lapsed: BTreeMap<u64, BTreeSet<KeyHash>>,
    pub(super) gathering: Option<Gathering>,
    /// The groups that are under way, by their lanes.
    pub(super) groups: [Option<UnderWay>; LANES],
    pub(super) reading: Option<(Vec<KeyHash>, Instant)>,
    pub(super) ending: Option<Vec<u64>>,
    pub(super) renewing: Option<Instant>,
    pub(super) registering: Option<Instant>,
    pub(super) keeping: bool,
    pub(super) next_renewal: Instant,
    pub(super) next_upkeep: Instant,
    /// No group is sent before this time, because the last one failed.
    pub(super) resume_at: Option<Instant>,
    pub(super) resume_reads_at: Option<Instant>,
    pub(super) failures: u32,
    pub(super) timers: BTreeSet<(Instant, KeyHash, Timer)>,
    /// The first instance of this process: it numbers the operations of all of them.
    pub(super) writer: u64,
    /// The newest instance of this process.
    pub(super) last: u64,
    pub(super) ops: u64,
    /// How many groups were sent.
    pub(super) numbers: u64,
    pub(super) stopped: bool,
}

impl Machine {
    pub(crate) fn new(
        rules: Rules,
        limits: Arc<Limits>,
        registered: Registered,
        sent: Instant,
        now: Instant,
    ) -> Self {
        let (id, lease_until) = (registered.instance, registered.lease_until);
        Self {
            limits,
            current: Some(Current { id, lease_until, renewed: sent }),
            clock: StoreClock::new(registered.now, sent, now),
            slots: HashMap::default(),
            replays: Replays::new(rules.replay_bytes),
            generation: 0,
            actions: Vec::new(),
            changes: VecDeque::new(),
            reads: BTreeSet::new(),
            lapsed: BTreeMap::new(),
            gathering: None,
            groups: Default::default(),
            reading: None,
            ending: None,
            renewing: None,
            registering: None,
            keeping: false,
            next_renewal: now + rules.lease / 5,
            next_upkeep: now + rules.upkeep_interval,
            resume_at: None,
            resume_reads_at: None,
            failures: 0,
            timers: BTreeSet::new(),
            writer: registered.instance,
            last: registered.instance,
            ops: 0,
            numbers: 0,
            stopped: false,
            rules,
        }
    }

    /// Takes an event in. [`act`](Self::act) does the work that results, once for several events.
    pub(crate) fn take_in(&mut self, now: Instant, event: Event) {
        match event {
            Event::Submit(op) => self.submit(op, now),
            Event::Withdraw(hash, wait) => self.withdraw(hash, wait),
            Event::GroupDone(lane, result) => self.group_done(lane, result, now),
            Event::ReadDone(result) => self.read_done(result, now),
            Event::Renewed(result) => self.renewed(result, now),
            Event::Registered(result) => self.registered(result, now),
            Event::Ended => self.ended(),
            Event::Kept => self.keeping = false,
            Event::Reopened => {
                self.current = None;
                // An answer about the old instance no longer counts, because this process ended it
                // itself.
                self.renewing = None;
                self.next_renewal = now;
            }
            Event::Stop => self.stop(now),
        }
    }

    /// The actions that are due now.
    pub(crate) fn act(&mut self, now: Instant) -> Vec<Action> {
        self.run_timers(now);
        self.ask(now);
        std::mem::take(&mut self.actions)
    }

    /// When to tick at the latest.
    pub(crate) fn next_tick(&self) -> Instant {
        let retries = [self.resume_at, self.resume_reads_at].into_iter().flatten();
        let timer = self.timers.first().map(|(at, ..)| *at);
        let waits = !self.changes.is_empty() && self.no_group();
        let gathered = self.gathering.filter(|_| waits).map(|gathering| gathering.until);
        retries.chain(timer).chain(gathered).fold(self.next_renewal, Instant::min)
    }

    /// Whether no group is under way.
    pub(super) fn no_group(&self) -> bool {
        self.groups.iter().all(Option::is_none)
    }

    /// Whether no operation waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.slots.values().all(|slot| {
            let waits = slot.work.as_ref().is_some_and(|work| work.asker.is_some());
            !waits && slot.queue.is_empty() && slot.waiters.is_empty()
        })
    }

    /// Refuses the operations that wait for an owner, and all that come later.
    fn stop(&mut self, now: Instant) {
        self.stopped = true;
        for hash in self.slots.keys().copied().collect::<Vec<_>>() {
            let Some(slot) = self.slots.get_mut(&hash) else { continue };
            while let Some(op) = slot.waiters.pop(&self.limits) {
                self.actions.push(refused(op, Error::new(ErrorKind::Closed, "")));
            }
            self.next(hash, now);
        }
    }

    /// The present instance of this process, or its last one.
    pub(crate) fn instance(&self) -> u64 {
        self.current.map_or(self.last, |current| current.id)
    }

    fn submit(&mut self, op: Operation, now: Instant) {
        let admitted = match &op.command {
            _ if self.stopped => Err(Error::new(ErrorKind::Closed, "")),
            command if command.starts_execution() => self.limits.check_queue(),
            _ => Ok(()),
        };
        match admitted {
            Ok(()) => self.take(op, now),
            Err(error) => self.actions.push(refused(op, error)),
        }
    }

    /// Starts an operation, or queues it behind the one that is decided now.
    pub(super) fn take(&mut self, op: Operation, now: Instant) {
        match self.slots.entry(op.hash).or_default() {
            slot if slot.work.is_some() => slot.queue.push_back(op),
            _ => self.begin_work(op, false, now),
        }
    }

    pub(super) fn begin_work(&mut self, op: Operation, waited: bool, now: Instant) {
        let hash = op.hash;
        if op.command.starts_execution() {
            self.limits.queue_begin();
        }
        let patience = self.rules.patience(&op.command);
        let work = Work { waited, ..Work::new(op, now) };
        self.slots.entry(hash).or_default().work = Some(work);
        self.timers.insert((now + patience, hash, Timer::Patience));
        self.start(hash, now);
    }

    /// Begins the next operation of a slot whose work is decided, or removes an empty slot. An
    /// operation that is decided from memory calls this again, which returns at once while the loop
    /// runs: so the stack does not grow with the queue.
    pub(super) fn next(&mut self, hash: KeyHash, now: Instant) {
        match self.slots.get_mut(&hash) {
            Some(slot) if !slot.goes_on => slot.goes_on = true,
            _ => return,
        }
        while let Some(slot) = self.slots.get_mut(&hash) {
            if slot.work.is_none()
                && let Some(op) = slot.queue.pop_front()
            {
                self.begin_work(op, false, now);
                continue;
            }
            slot.goes_on = false;
            if slot.is_empty() {
                self.slots.remove(&hash);
            }
            return;
        }
    }

    /// Ends the work of a slot.
    pub(super) fn end_work(&mut self, hash: KeyHash) -> Option<Work> {
        let work = self.slots.get_mut(&hash)?.work.take()?;
        if work.command.starts_execution() {
            self.limits.unqueue_begins(1);
        }
        if work.reserved {
            self.limits.release(&work.command);
        }
        let patience = self.rules.patience(&work.command);
        self.timers.remove(&(work.since + patience, hash, Timer::Patience));
        self.reads.remove(&hash);
        if matches!(work.stage, Stage::Read | Stage::Declare)
            && let Some((hashes, _)) = &mut self.reading
        {
            // The row is read for this work. The next work of the slot may begin after it was read.
            hashes.retain(|read| *read != hash);
        }
        Some(work)
    }

    pub(super) fn tell(&mut self, asker: Operation, outcome: Outcome) {
        self.actions.push(Action::Answer(Answer::new(asker, outcome)));
    }
}

/// The answer to an operation that was not taken in.
fn refused(op: Operation, error: Error) -> Action {
    Action::Answer(Answer::new(op, Err(error)))
}

/// Whether the command can succeed only on an orphan or on an absent key.
pub(super) fn asks_for_an_orphan(command: &Command) -> bool {
    matches!(command, Command::Begin { .. } | Command::TakeOver { .. } | Command::Release { .. })
}

/// Whether a reply says that the command changed nothing and never will.
pub(super) fn is_refusal(reply: &Reply) -> bool {
    matches!(reply, Reply::Fenced | Reply::AlreadyCompleted)
}
