//! The questions that the machine puts to the store.

use std::collections::VecDeque;

use super::machine::{Action, Current, Machine, UnderWay};
use super::slot::{Changing, Stage, Work};
use super::store::{Group, NewInstance};
use crate::base::sync::Instant;
use crate::semantics::key::KeyHash;

/// The most changes in one group.
const GROUP_IMAGES: usize = 512;

/// About the most bytes of responses and checkpoints in one group.
const GROUP_BYTES: usize = 4 << 20;

/// How long a statement may be on its way, by the store's clock.
const VALID_FOR_MS: u64 = 10_000;

impl Machine {
    /// Puts all questions to the store that are due now.
    pub(super) fn ask(&mut self, now: Instant) {
        // A wait that is over must not be the next tick, whatever else holds groups up.
        self.gathering = self.gathering.filter(|gathering| gathering.until > now);
        self.ask_for_life(now);
        let Some(current) = self.current else { return };
        if self.resume_at.is_none_or(|at| at <= now) {
            self.resume_at = None;
            while let Some(lane) = self.next_lane()
                && self.send_group(lane, current, now)
            {}
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

    /// The lane of the next group, if one is to be sent now.
    fn next_lane(&self) -> Option<usize> {
        let lane = self.groups.iter().position(Option::is_none)?;
        let least = match self.gathering {
            _ if !self.no_group() => self.rules.second_group,
            Some(gathering) => gathering.callers.min(self.rules.second_group),
            None => 1,
        };
        (self.changes.len() >= least).then_some(lane)
    }

    /// Returns whether it sent a group.
    fn send_group(&mut self, lane: usize, current: Current, now: Instant) -> bool {
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
            return false;
        }
        self.numbers += 1;
        let (instance, number) = (current.id, self.numbers);
        self.groups[lane] = Some(UnderWay { members, instance, sent: now });
        let group = Group { lane, instance, number, valid_until, durable, images };
        self.actions.push(Action::Group(group));
        true
    }

    fn not_before(&self, hash: KeyHash) -> Option<Instant> {
        match &self.slots.get(&hash)?.work.as_ref()?.stage {
            Stage::Change(change) | Stage::GiveBack(change) => change.not_before,
            _ => None,
        }
    }

    /// Queues the change of a slot's work for sending.
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

    /// Queues the row of a slot's work for reading.
    pub(super) fn read(&mut self, hash: KeyHash) {
        if let Some(work) = self.slots.get_mut(&hash).and_then(|slot| slot.work.as_mut()) {
            work.stage = Stage::Read;
            self.reads.insert(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::hearing::GATHER_FOR;
    use super::super::hearing::tests::machine;
    use super::super::machine::Event;
    use super::super::store::{Applied, Failure, GroupAnswer};
    use super::*;
    use crate::backend::operation::{Operation, Request};
    use crate::base::error::{Error, ErrorKind};
    use crate::semantics::command::Command;
    use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
    use crate::semantics::key::Key;
    use crate::semantics::samples::{SECRET, hash};

    fn begin(number: u8) -> Event {
        let key = Key::new("", [number]).unwrap();
        let fingerprint = KeyedFingerprint::new(Fingerprint::builder().finish(), &SECRET);
        let ttl = Duration::from_secs(60);
        let command = Command::Begin { fingerprint, ttl, max_execution: None };
        let hash = hash(&key);
        Event::Submit(Operation::untold(Request { key, hash, command, wait: None }))
    }

    /// The groups that are sent after these events: their lanes, and how many changes they have.
    fn sent(
        machine: &mut Machine,
        now: Instant,
        events: impl Iterator<Item = Event>,
    ) -> Vec<(usize, usize)> {
        let mut groups = Vec::new();
        for event in events {
            machine.take_in(now, event);
            let actions = machine.act(now).into_iter();
            groups.extend(actions.filter_map(|action| match action {
                Action::Group(group) => Some((group.lane, group.images.len())),
                _ => None,
            }));
        }
        groups
    }

    #[test]
    fn a_group_goes_beside_another_one_only_when_enough_changes_wait() {
        let now = Instant::now();
        let mut machine = machine(now);
        assert_eq!(sent(&mut machine, now, (0..16).map(begin)), [(0, 1)]);
        assert_eq!(sent(&mut machine, now, (16..100).map(begin)), [(1, 16)], "then both are taken");
        let error = Error::new(ErrorKind::Unavailable, "");
        let lost = Event::GroupDone(1, Err(Failure::Unknown(error)));
        assert_eq!(sent(&mut machine, now, std::iter::once(lost)), [], "not at once");
        let later = now + Duration::from_secs(1);
        assert_eq!(sent(&mut machine, later, std::iter::once(Event::Kept)), [(1, 99)]);
    }

    /// An answer that carried out what was sent.
    fn done(machine: &Machine, lane: usize) -> Event {
        let members = &machine.groups[lane].as_ref().unwrap().members;
        let applied = members.iter().map(|hash| Applied { hash: hash.0, version: 1, at: 0 });
        Event::GroupDone(lane, Ok(GroupAnswer { applied: applied.collect(), ..Default::default() }))
    }

    #[test]
    fn a_group_waits_for_as_many_callers_as_were_answered_half_as_long_as_that_took() {
        let start = Instant::now();
        let mut machine = machine(start);
        assert_eq!(sent(&mut machine, start, (0..4).map(begin)), [(0, 1)], "nobody was answered");
        let at = |micros| start + Duration::from_micros(micros);
        let answer = done(&machine, 0);
        assert_eq!(sent(&mut machine, at(600), [answer].into_iter()), [(0, 3)], "all that wait");
        let answer = done(&machine, 0);
        let answered = at(1200);
        assert_eq!(sent(&mut machine, answered, [answer].into_iter()), []);
        assert!(machine.next_tick() > at(1500), "nothing waits");
        assert_eq!(sent(&mut machine, at(1210), (10..12).map(begin)), [], "two of three");
        assert_eq!(machine.next_tick(), at(1500));
        assert_eq!(sent(&mut machine, at(1220), [begin(12)].into_iter()), [(0, 3)]);
        let answer = done(&machine, 0);
        assert_eq!(sent(&mut machine, at(1820), [answer].into_iter()), []);
        assert_eq!(sent(&mut machine, at(1900), [begin(20)].into_iter()), []);
        assert_eq!(sent(&mut machine, at(2120), [Event::Kept].into_iter()), [(0, 1)], "time over");
        let answer = done(&machine, 0);
        assert_eq!(sent(&mut machine, at(2720), [answer].into_iter()), []);
        assert_eq!(sent(&mut machine, at(2721), [begin(30)].into_iter()), [(0, 1)], "one of one");
    }

    #[test]
    fn no_group_waits_for_callers_longer_than_a_millisecond() {
        let start = Instant::now();
        let mut machine = machine(start);
        sent(&mut machine, start, (0..3).map(begin));
        let answer = done(&machine, 0);
        sent(&mut machine, start, [answer].into_iter());
        let (answer, later) = (done(&machine, 0), start + Duration::from_millis(100));
        assert_eq!(sent(&mut machine, later, [answer].into_iter()), []);
        assert_eq!(sent(&mut machine, later, [begin(10)].into_iter()), []);
        assert_eq!(machine.next_tick(), later + GATHER_FOR);
    }

    #[test]
    fn no_group_waits_for_more_callers_than_go_beside_another_one() {
        let start = Instant::now();
        let mut machine = machine(start);
        assert_eq!(sent(&mut machine, start, (0..37).map(begin)), [(0, 1), (1, 16)]);
        let first = done(&machine, 0);
        assert_eq!(sent(&mut machine, start, [first].into_iter()), [(0, 20)]);
        let answered = start + Duration::from_millis(1);
        let answers = [done(&machine, 1), done(&machine, 0)];
        assert_eq!(sent(&mut machine, answered, answers.into_iter()), []);
        assert_eq!(sent(&mut machine, answered, (40..55).map(begin)), []);
        assert_eq!(sent(&mut machine, answered, [begin(55)].into_iter()), [(0, 16)]);
    }

    #[test]
    fn a_wait_for_callers_that_is_over_is_no_tick_while_a_failure_holds_groups_up() {
        let start = Instant::now();
        let mut machine = machine(start);
        assert_eq!(sent(&mut machine, start, (0..17).map(begin)), [(0, 1), (1, 16)]);
        let answered = start + Duration::from_micros(600);
        let answer = done(&machine, 1);
        sent(&mut machine, answered, [answer].into_iter());
        let lost = Failure::Unknown(Error::new(ErrorKind::Unavailable, ""));
        sent(&mut machine, answered, [Event::GroupDone(0, Err(lost))].into_iter());
        let over = answered + Duration::from_micros(300);
        assert_eq!(machine.next_tick(), over);
        assert_eq!(sent(&mut machine, over, [Event::Kept].into_iter()), []);
        assert!(machine.next_tick() > over + Duration::from_millis(1));
    }
}
