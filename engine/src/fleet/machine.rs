//! The machine: everything that a process of a fleet decides, without threads, clocks or connections.
//!
//! [`Machine::handle`] takes an event and the time, and gives actions: questions for the store, and
//! answers for callers. Each question is answered by one event. At most one group is under way, so that
//! everything that is asked meanwhile becomes the next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::clock::StoreClock;
use super::replays::Replays;
use super::slot::{Changing, Slot, Stage, Work};
use super::store::{Failure, Group, GroupAnswer, NewInstance, Registered, Renewal, Rows};
use crate::backend::operation::{Answer, Operation, Outcome, Wait};
use crate::base::error::{Error, ErrorKind};
use crate::base::sync::Instant;
use crate::semantics::command::{Command, Reply};
use crate::semantics::key::{HashMap, KeyHash};
use crate::semantics::time::Time;

/// Changes in one group at most.
const GROUP_IMAGES: usize = 512;

/// Bytes of responses and checkpoints in one group, about.
const GROUP_BYTES: usize = 4 << 20;

/// How long a statement may be on its way, by the store's clock.
const VALID_FOR_MS: u64 = 10_000;

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
    pub(crate) max_in_flight: usize,
    pub(crate) max_queue: usize,
    pub(crate) max_waiters: usize,
    pub(crate) max_orphans: usize,
    pub(crate) max_store_bytes: Option<u64>,
    pub(crate) replay_bytes: usize,
    /// Whether a claim waits until it is durable.
    pub(crate) durable_claims: bool,
}

impl Rules {
    /// How long somebody who asks for this waits for the store.
    fn patience(&self, command: &Command) -> Duration {
        if command.starts_execution() { self.overload_after } else { self.settle_for }
    }
}

/// Something happened.
pub(crate) enum Event {
    Submit(Operation),
    Withdraw(KeyHash, Wait),
    GroupDone(Result<GroupAnswer, Failure>),
    ReadDone(Result<Rows, Failure>),
    Renewed(Result<Renewal, Failure>),
    Registered(Result<Registered, Failure>),
    Ended,
    Kept,
    /// The store has so many orphans and so many bytes.
    Counted(u64, u64),
    /// The instance was ended by its own process: another one begins.
    Reopened,
    /// Refuses what is submitted from now on.
    Stop,
}

/// Something is to be done.
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
enum Timer {
    /// The wait of this number ends.
    Wait(u64),
    /// The waiters look at the owner.
    Look,
    /// The work has taken too long.
    Patience,
}

/// The instance that this process is, as long as it has not heard of its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current {
    pub(crate) id: u64,
    pub(crate) lease_until: u64,
}

/// See the head of this file.
pub(crate) struct Machine {
    pub(super) rules: Rules,
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
    /// Owners to declare, with the slots that wait for it.
    pub(super) lapsed: BTreeMap<u64, BTreeSet<KeyHash>>,
    group: Option<(Vec<KeyHash>, u64, Instant)>,
    reading: Option<(Vec<KeyHash>, Instant)>,
    ending: Option<Vec<u64>>,
    renewing: Option<Instant>,
    registering: Option<Instant>,
    keeping: bool,
    next_renewal: Instant,
    next_upkeep: Instant,
    /// Not before: the last group failed.
    resume_at: Option<Instant>,
    resume_reads_at: Option<Instant>,
    failures: u32,
    timers: BTreeSet<(Instant, KeyHash, Timer)>,
    /// Who numbers the operations of this process: its first instance.
    pub(super) writer: u64,
    /// Its newest instance.
    last: u64,
    pub(super) ops: u64,
    groups: u64,
    pub(super) in_flight: usize,
    waiting: usize,
    begins: usize,
    orphans: u64,
    bytes: u64,
    stopped: bool,
}

impl Machine {
    pub(crate) fn new(rules: Rules, registered: Registered, sent: Instant, now: Instant) -> Self {
        Self {
            current: Some(Current { id: registered.instance, lease_until: registered.lease_until }),
            clock: StoreClock::new(registered.now, sent, now),
            slots: HashMap::default(),
            replays: Replays::new(rules.replay_bytes),
            generation: 0,
            actions: Vec::new(),
            changes: VecDeque::new(),
            reads: BTreeSet::new(),
            lapsed: BTreeMap::new(),
            group: None,
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
            groups: 0,
            in_flight: 0,
            waiting: 0,
            begins: 0,
            orphans: 0,
            bytes: 0,
            stopped: false,
            rules,
        }
    }

    /// Takes an event in. What comes of it is done by [`act`](Self::act), once for all that came.
    pub(crate) fn take_in(&mut self, now: Instant, event: Event) {
        match event {
            Event::Submit(op) => self.submit(op, now),
            Event::Withdraw(hash, wait) => self.withdraw(hash, wait),
            Event::GroupDone(result) => self.group_done(result, now),
            Event::ReadDone(result) => self.read_done(result, now),
            Event::Renewed(result) => self.renewed(result, now),
            Event::Registered(result) => self.registered(result, now),
            Event::Ended => self.ended(),
            Event::Kept => self.keeping = false,
            Event::Counted(orphans, bytes) => (self.orphans, self.bytes) = (orphans, bytes),
            Event::Reopened => {
                self.current = None;
                self.next_renewal = now;
            }
            Event::Stop => self.stop(now),
        }
    }

    /// What is to be done now.
    pub(crate) fn act(&mut self, now: Instant) -> Vec<Action> {
        self.run_timers(now);
        self.ask(now);
        std::mem::take(&mut self.actions)
    }

    /// When to tick at the latest.
    pub(crate) fn next_tick(&self) -> Instant {
        let retries = [self.resume_at, self.resume_reads_at].into_iter().flatten();
        let timer = self.timers.first().map(|(at, ..)| *at);
        retries.chain(timer).fold(self.next_renewal, Instant::min)
    }

    /// Whether nobody waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.slots.values().all(|slot| {
            let waits = slot.work.as_ref().is_some_and(|work| work.asker.is_some());
            !waits && slot.queue.is_empty() && slot.waiters.is_empty()
        })
    }

    /// Claims that this process holds, and begins that wait for the store and for an owner.
    pub(crate) fn numbers(&self) -> [u64; 3] {
        [self.in_flight, self.begins, self.waiting].map(|number| number as u64)
    }

    /// Refuses those who wait for an owner, and everything that comes.
    fn stop(&mut self, now: Instant) {
        self.stopped = true;
        for hash in self.slots.keys().copied().collect::<Vec<_>>() {
            let Some(slot) = self.slots.get_mut(&hash) else { continue };
            let waiters = std::mem::take(&mut slot.waiters);
            self.waiting -= waiters.len();
            for op in waiters {
                self.tell(op, Err(Error::new(ErrorKind::Closed, "")));
            }
            self.next(hash, now);
        }
    }

    /// The instance that this process is now, or was last.
    pub(crate) fn instance(&self) -> u64 {
        self.current.map_or(self.last, |current| current.id)
    }

    fn submit(&mut self, op: Operation, now: Instant) {
        let refusal = match &op.command {
            _ if self.stopped => Some(Error::new(ErrorKind::Closed, "")),
            command if !command.starts_execution() => None,
            _ if self.begins >= self.rules.max_queue => {
                Some(overloaded("begins that wait for the store"))
            }
            _ => None,
        };
        match refusal {
            Some(error) => self.tell(op, Err(error)),
            None => self.take(op, now),
        }
    }

    /// Starts an operation, or queues it behind the one that is decided now.
    pub(super) fn take(&mut self, op: Operation, now: Instant) {
        match self.slots.entry(op.hash).or_default() {
            slot if slot.work.is_some() => slot.queue.push_back(op),
            _ => self.begin_work(op, false, now),
        }
    }

    fn begin_work(&mut self, op: Operation, waited: bool, now: Instant) {
        let hash = op.hash;
        if op.command.starts_execution() {
            self.begins += 1;
        }
        let patience = self.rules.patience(&op.command);
        let work = Work { waited, ..Work::new(op, now) };
        self.slots.entry(hash).or_default().work = Some(work);
        self.timers.insert((now + patience, hash, Timer::Patience));
        self.start(hash, now);
    }

    /// The slot has decided its work: the next operation, or nothing is left of it.
    pub(super) fn next(&mut self, hash: KeyHash, now: Instant) {
        while let Some(slot) = self.slots.get_mut(&hash) {
            if slot.work.is_some() {
                return;
            }
            if let Some(op) = slot.queue.pop_front() {
                self.take(op, now);
                continue;
            }
            if slot.is_empty() {
                self.slots.remove(&hash);
            }
            return;
        }
    }

    /// The work of a slot has ended.
    pub(super) fn end_work(&mut self, hash: KeyHash) -> Option<Work> {
        let work = self.slots.get_mut(&hash)?.work.take()?;
        if work.command.starts_execution() {
            self.begins -= 1;
        }
        let patience = self.rules.patience(&work.command);
        self.timers.remove(&(work.since + patience, hash, Timer::Patience));
        self.reads.remove(&hash);
        Some(work)
    }

    pub(super) fn tell(&mut self, asker: Operation, outcome: Outcome) {
        self.actions.push(Action::Answer(Answer::new(asker, outcome)));
    }

    /// A begin that met an owner waits, if it asked to and its time is not over; otherwise it comes back.
    /// One that `waited` before keeps its place.
    pub(super) fn park(&mut self, op: Operation, waited: bool, now: Instant) -> Option<Operation> {
        let Some(wait) = op.wait.filter(|wait| now < wait.until && !self.stopped) else {
            return Some(op);
        };
        if !waited && self.waiting >= self.rules.max_waiters {
            self.tell(op, Err(overloaded("begins that wait for an owner")));
            return None;
        }
        let hash = op.hash;
        let slot = self.slots.entry(hash).or_default();
        let step = Duration::from_millis(20 << slot.looks.min(4)).min(Duration::from_millis(250));
        slot.waiters.push_back(op);
        self.waiting += 1;
        self.timers.insert((wait.until, hash, Timer::Wait(wait.number)));
        // One look is enough for all who wait here.
        if !std::mem::replace(&mut slot.looks_soon, true) {
            self.timers.insert((now + step, hash, Timer::Look));
        }
        None
    }

    /// The owner is gone, or the record is another: those who wait begin again.
    pub(super) fn wake(&mut self, hash: KeyHash) {
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        slot.looks = 0;
        self.waiting -= slot.waiters.len();
        let waiters = std::mem::take(&mut slot.waiters);
        slot.queue.extend(waiters);
    }

    fn withdraw(&mut self, hash: KeyHash, wait: Wait) {
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        let before = slot.waiters.len();
        slot.waiters.retain(|op| op.wait != Some(wait));
        self.waiting -= before - slot.waiters.len();
        if slot.is_empty() {
            self.slots.remove(&hash);
        }
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(&(at, hash, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Wait(_) => self.waits_end(hash, now),
                Timer::Look => self.look(hash, now),
                Timer::Patience => self.lose_patience(hash, now),
            }
        }
    }

    /// Those whose wait is over look once more, and are told what is.
    fn waits_end(&mut self, hash: KeyHash, now: Instant) {
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        let over = |op: &Operation| op.wait.is_none_or(|wait| wait.until <= now);
        let (over, waiting): (Vec<_>, Vec<_>) = slot.waiters.drain(..).partition(over);
        self.waiting -= over.len();
        slot.waiters = waiting.into();
        over.into_iter().for_each(|op| self.take(op, now));
    }

    /// One of those who wait looks at the owner.
    fn look(&mut self, hash: KeyHash, now: Instant) {
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        if slot.waiters.is_empty() {
            slot.looks_soon = false;
            return;
        }
        if slot.work.is_some() {
            // Its end wakes those who wait, or not; then they look.
            self.timers.insert((now + Duration::from_millis(20), hash, Timer::Look));
            return;
        }
        slot.looks_soon = false;
        slot.looks += 1;
        if let Some(op) = slot.waiters.pop_front() {
            self.waiting -= 1;
            self.begin_work(op, true, now);
        }
    }

    fn lose_patience(&mut self, hash: KeyHash, now: Instant) {
        let Some(work) = self.slots.get_mut(&hash).and_then(|slot| slot.work.as_mut()) else {
            return;
        };
        let begins = work.command.starts_execution();
        let patience = self.rules.patience(&work.command);
        if now < work.since + patience {
            return;
        }
        let sent =
            matches!(&work.stage, Stage::Change(change) if change.under_way || change.doubtful);
        let lacks =
            |error: &Error| matches!(error.kind(), ErrorKind::StoreFull | ErrorKind::Overloaded);
        let late = |kind| Error::new(kind, "the store did not answer in time");
        let error = match &work.stage {
            _ if sent && !begins => Some(late(ErrorKind::OutcomeUnknown)),
            Stage::Change(change) => change.refused_for.clone().filter(lacks),
            _ => None,
        };
        let Some(asker) = work.asker.take() else { return };
        self.tell(asker, Err(error.unwrap_or_else(|| late(ErrorKind::Unavailable))));
        let settles =
            sent || matches!(self.slots[&hash].work, Some(Work { stage: Stage::GiveBack(_), .. }));
        if !settles {
            // Never sent: it is as if it had not been asked.
            self.end_work(hash);
            self.next(hash, now);
        }
    }

    /// Asks the store for all that is to be asked and may be asked now.
    fn ask(&mut self, now: Instant) {
        self.ask_for_life(now);
        let Some(current) = self.current else { return };
        if self.resume_at.is_none_or(|at| at <= now) && self.group.is_none() {
            self.resume_at = None;
            self.send_group(current, now);
        }
        if self.resume_reads_at.is_none_or(|at| at <= now) {
            self.resume_reads_at = None;
            if self.reading.is_none() && !self.reads.is_empty() {
                let hashes: Vec<_> = self.reads.iter().copied().take(GROUP_IMAGES).collect();
                let asked = hashes.iter().map(|hash| hash.0).collect();
                self.reads.retain(|hash| !hashes.contains(hash));
                self.reading = Some((hashes, now));
                self.actions.push(Action::Read(current.id, asked));
            }
            if self.ending.is_none() && !self.lapsed.is_empty() {
                let owners: Vec<_> = self.lapsed.keys().copied().collect();
                self.ending = Some(owners.clone());
                self.actions.push(Action::End(current.id, owners));
            }
        }
    }

    /// Renewals, upkeep, and a new instance after the end of the old one.
    fn ask_for_life(&mut self, now: Instant) {
        match self.current {
            Some(current) if self.renewing.is_none() && self.next_renewal <= now => {
                self.renewing = Some(now);
                self.next_renewal = now + self.rules.lease / 5;
                self.actions.push(Action::Renew(current.id));
            }
            None if self.registering.is_none() && self.next_renewal <= now => {
                self.registering = Some(now);
                self.next_renewal = now + self.rules.lease / 5;
                let (lease, build) = (self.rules.lease, self.rules.build.clone());
                let name = self.rules.name.clone();
                self.actions.push(Action::Register(NewInstance { name, lease, build }));
            }
            _ => {}
        }
        if let Some(current) = self.current
            && !self.keeping
            && self.next_upkeep <= now
        {
            self.keeping = true;
            self.next_upkeep = now + self.rules.upkeep_interval;
            self.actions.push(Action::Upkeep(current.id));
        }
    }

    fn send_group(&mut self, current: Current, now: Instant) {
        let valid_until = self.clock.lo(now).0 + VALID_FOR_MS;
        let sent_at = self.clock.lo(now).0;
        let (mut images, mut members, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut later = VecDeque::new();
        let mut durable = false;
        while let Some(hash) = self.changes.pop_front() {
            let work = self.slots.get_mut(&hash).and_then(|slot| slot.work.as_mut());
            let Some(Work { stage: Stage::Change(change) | Stage::GiveBack(change), .. }) = work
            else {
                continue;
            };
            if change.under_way {
                continue;
            }
            let waits = change.not_before.is_some_and(|at| at > now);
            let image = &change.image;
            let size = [&image.body, &image.checkpoint].into_iter().flatten().map(|b| b.len());
            let size = size.sum::<usize>() + 512;
            let full = images.len() == GROUP_IMAGES || (bytes + size > GROUP_BYTES && bytes > 0);
            if waits || full || (change.alone && !images.is_empty()) {
                later.push_back(hash);
                continue;
            }
            change.under_way = true;
            change.sent_at.get_or_insert(sent_at);
            durable |= !change.image.grants || self.rules.durable_claims;
            images.push(change.image.clone());
            members.push(hash);
            bytes += size;
            if change.alone {
                break;
            }
        }
        later.append(&mut self.changes);
        self.changes = later;
        if let Some(at) = self.changes.iter().filter_map(|hash| self.not_before(*hash)).min()
            && images.is_empty()
        {
            self.resume_at = Some(at);
        }
        if images.is_empty() {
            return;
        }
        self.groups += 1;
        let number = self.groups;
        self.group = Some((members, current.id, now));
        let instance = current.id;
        self.actions.push(Action::Group(Group { instance, number, valid_until, durable, images }));
    }

    fn not_before(&self, hash: KeyHash) -> Option<Instant> {
        match &self.slots.get(&hash)?.work.as_ref()?.stage {
            Stage::Change(change) | Stage::GiveBack(change) => change.not_before,
            _ => None,
        }
    }

    fn heard(&mut self, store_now: u64, sent: Instant, now: Instant) {
        self.clock = StoreClock::new(store_now, sent, now);
    }

    fn group_done(&mut self, result: Result<GroupAnswer, Failure>, now: Instant) {
        let Some((members, instance, sent)) = self.group.take() else { return };
        match result {
            Ok(answer) => {
                self.failures = 0;
                self.heard(answer.found.now, sent, now);
                self.entered(answer.found.generation);
                for hash in members {
                    self.carried_out(hash, &answer, instance, now);
                }
            }
            Err(failure) => {
                let single = members.len() == 1;
                for hash in &members {
                    self.not_carried_out(*hash, &failure, single, now);
                }
                if !matches!(failure, Failure::Refused(_)) {
                    if self.failures == 0 {
                        // The store may be another one by now, whose clock makes every group late.
                        self.next_renewal = now;
                    }
                    self.failures = (self.failures + 1).min(6);
                    // Spread by the number of the instance, so that many do not come at once.
                    let jitter = self.writer.wrapping_mul(31).wrapping_add(self.groups) % 8;
                    let step = (4 << self.failures) + jitter;
                    self.resume_at = Some(now + Duration::from_millis(step));
                }
            }
        }
    }

    /// Responses that were kept may be lost with the generation that they came from.
    fn entered(&mut self, generation: u64) {
        if generation != self.generation {
            self.generation = generation;
            self.replays.clear();
        }
    }

    fn not_carried_out(&mut self, hash: KeyHash, failure: &Failure, single: bool, now: Instant) {
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        let Some(work) = slot.work.as_mut() else { return };
        let (Stage::Change(change) | Stage::GiveBack(change)) = &mut work.stage else { return };
        change.under_way = false;
        let full = |error: &Error| error.kind() == ErrorKind::StoreFull;
        let begins = work.command.starts_execution();
        match failure {
            Failure::Unknown(_) => change.doubtful = true,
            Failure::NotCarriedOut(error) if !full(error) => {
                change.refused_for = Some(error.clone());
            }
            // The end of a claim waits for room; a new one does not.
            Failure::NotCarriedOut(error) if !single || !begins || change.doubtful => {
                change.refused_for = Some(error.clone());
                change.alone = true;
            }
            Failure::Refused(error) | Failure::NotCarriedOut(error) if single => {
                let doubtful = change.doubtful;
                let error = if doubtful { error.as_outcome_unknown() } else { error.clone() };
                if let Some(work) = self.end_work(hash)
                    && let Some(asker) = work.asker
                {
                    self.tell(asker, Err(error));
                }
                self.next(hash, now);
                return;
            }
            // One of them is to blame: each goes alone.
            Failure::Refused(_) | Failure::NotCarriedOut(_) => change.alone = true,
        }
        let nobody_asks = work.asker.is_none();
        if nobody_asks && !work.is_doubtful() && matches!(work.stage, Stage::Change(_)) {
            // Whoever asked was told that it did not happen, and it did not.
            self.end_work(hash);
            self.next(hash, now);
            return;
        }
        self.changes.push_back(hash);
    }

    fn read_done(&mut self, result: Result<Rows, Failure>, now: Instant) {
        let Some((hashes, sent)) = self.reading.take() else { return };
        match result {
            Ok(rows) => {
                self.heard(rows.now, sent, now);
                self.entered(rows.generation);
                for hash in hashes {
                    let row = rows.rows.iter().find(|row| row.hash == hash.0);
                    self.was_read(hash, row, rows.now, now);
                }
            }
            Err(Failure::Refused(error)) => {
                for hash in hashes {
                    let Some(work) = self.end_work(hash) else { continue };
                    if let Some(asker) = work.asker {
                        self.tell(asker, Err(error.clone()));
                    }
                    self.next(hash, now);
                }
            }
            Err(_) => {
                self.reads.extend(hashes);
                self.resume_reads_at = Some(now + Duration::from_millis(20));
            }
        }
    }

    fn renewed(&mut self, result: Result<Renewal, Failure>, now: Instant) {
        let Some(sent) = self.renewing.take() else { return };
        match (result, &mut self.current) {
            (Ok(Renewal::Renewed { lease_until, now: store_now }), Some(current)) => {
                current.lease_until = lease_until;
                self.heard(store_now, sent, now);
            }
            (Ok(Renewal::Ended { now: store_now }), _) => {
                self.heard(store_now, sent, now);
                self.was_ended(now);
            }
            // The next one comes soon, and the lease is longer.
            _ => {}
        }
    }

    /// This instance was ended: what it holds is for others to take over. Another one begins.
    pub(super) fn was_ended(&mut self, now: Instant) {
        self.current = None;
        self.next_renewal = now;
        // Another process may have it by now: two of one name would end each other for ever.
        self.rules.name.clear();
    }

    fn registered(&mut self, result: Result<Registered, Failure>, now: Instant) {
        let Some(sent) = self.registering.take() else { return };
        if let Ok(registered) = result {
            self.heard(registered.now, sent, now);
            let lease_until = registered.lease_until;
            self.current = Some(Current { id: registered.instance, lease_until });
            self.last = registered.instance;
            self.next_renewal = now + self.rules.lease / 5;
        }
    }

    fn ended(&mut self) {
        for owner in self.ending.take().unwrap_or_default() {
            // Ended or not, now or before: the rows tell.
            self.reads.extend(self.lapsed.remove(&owner).unwrap_or_default());
        }
    }

    /// Why a claim that this command asks for is not granted, whatever its row says.
    pub(super) fn bound(&self, command: &Command) -> Option<Error> {
        let rules = &self.rules;
        if !command.starts_execution() {
            return None;
        }
        if self.in_flight >= rules.max_in_flight {
            return Some(overloaded("claims in flight"));
        }
        if matches!(command, Command::Begin { .. }) && self.orphans >= rules.max_orphans as u64 {
            return Some(overloaded("orphans"));
        }
        let full = rules.max_store_bytes.is_some_and(|most| self.bytes >= most);
        full.then(|| Error::new(ErrorKind::StoreFull, "max_store_bytes is reached"))
    }

    /// Whether this instance counts as living beyond doubt.
    pub(super) fn is_current(&self, instance: u64, now: Instant) -> bool {
        self.current.is_some_and(|current| {
            current.id == instance && self.clock.hi(now) < Time(current.lease_until)
        })
    }

    /// The change of a slot's work is to be sent.
    pub(super) fn send(
        &mut self,
        hash: KeyHash,
        stage: impl FnOnce(Box<Changing>) -> Stage,
        change: Changing,
    ) {
        if let Some(work) = self.slots.get_mut(&hash).and_then(|slot| slot.work.as_mut()) {
            work.stage = stage(Box::new(change));
            self.changes.push_back(hash);
        }
    }

    /// The row of a slot's work is to be read.
    pub(super) fn read(&mut self, hash: KeyHash) {
        if let Some(work) = self.slots.get_mut(&hash).and_then(|slot| slot.work.as_mut()) {
            work.stage = Stage::Read;
            self.reads.insert(hash);
        }
    }
}

/// The refusal of a bound.
pub(super) fn overloaded(bound: &str) -> Error {
    Error::new(ErrorKind::Overloaded, format!("as many {bound} as there may be"))
}

/// Whether a command is one that only an orphan, or nothing, is asked with.
pub(super) fn asks_for_an_orphan(command: &Command) -> bool {
    matches!(command, Command::Begin { .. } | Command::TakeOver { .. } | Command::Release { .. })
}

/// Whether a reply says that the command changed nothing and never will.
pub(super) fn is_refusal(reply: &Reply) -> bool {
    matches!(reply, Reply::Fenced | Reply::AlreadyCompleted)
}
