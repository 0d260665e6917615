//! The answers of the store, and the failures.

use std::time::Duration;

use super::clock::{StoreClock, at_most};
use super::machine::{Current, Gathering, Machine, UnderWay};
use super::slot::Stage;
use super::store::{Failure, GroupAnswer, Registered, Renewal, Rows};
use crate::base::error::{Error, ErrorKind};
use crate::base::sync::Instant;
use crate::semantics::key::KeyHash;
use crate::semantics::time::{Time, millis};

/// How long after a failed registration the next one is sent: until one succeeds, nothing is granted.
const REGISTER_AGAIN: Duration = Duration::from_millis(200);

/// How long a group waits at most for the callers whom the last one answered; otherwise half as long
/// as that one took.
pub(super) const GATHER_FOR: Duration = Duration::from_millis(1);

impl Machine {
    fn heard(&mut self, store_now: u64, sent: Instant, now: Instant) {
        self.clock = StoreClock::new(store_now, sent, now);
    }

    pub(super) fn group_done(
        &mut self,
        lane: usize,
        result: Result<GroupAnswer, Failure>,
        now: Instant,
    ) {
        let Some(UnderWay { members, instance, sent }) = self.groups[lane].take() else { return };
        match result {
            Ok(answer) => {
                self.failures = 0;
                let wait = (now.saturating_duration_since(sent) / 2).min(GATHER_FOR);
                self.gathering = Some(Gathering { callers: members.len(), until: now + wait });
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
                    // The number of the instance spreads the retries, so that many do not come at
                    // once.
                    let jitter = self.writer.wrapping_mul(31).wrapping_add(self.numbers) % 8;
                    let step = (4 << self.failures) + jitter;
                    self.resume_at = Some(now + Duration::from_millis(step));
                }
            }
        }
    }

    /// The store may have lost kept responses together with the generation that they came from.
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
            // The end of a claim waits for room. A new claim does not.
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
            // One of the changes is to blame, so each is sent alone.
            Failure::Refused(_) | Failure::NotCarriedOut(_) => change.alone = true,
        }
        let nobody_asks = work.asker.is_none();
        if nobody_asks && !work.is_doubtful() && matches!(work.stage, Stage::Change(_)) {
            // The caller was told that the change did not happen, and it did not.
            self.end_work(hash);
            self.next(hash, now);
            return;
        }
        self.changes.push_back(hash);
    }

    pub(super) fn read_done(&mut self, result: Result<Rows, Failure>, now: Instant) {
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

    pub(super) fn renewed(&mut self, result: Result<Renewal, Failure>, now: Instant) {
        let Some(sent) = self.renewing.take() else { return };
        match (result, &mut self.current) {
            (Ok(Renewal::Renewed { lease_until, now: store_now }), Some(current)) => {
                current.lease_until = lease_until;
                current.renewed = sent;
                self.heard(store_now, sent, now);
            }
            (Ok(Renewal::Ended { now: store_now }), _) => {
                self.heard(store_now, sent, now);
                self.was_ended(now);
            }
            // The next renewal comes soon, and the lease lasts longer.
            _ => {}
        }
    }

    /// This instance was ended, and other processes take its claims over. Another instance begins.
    pub(super) fn was_ended(&mut self, now: Instant) {
        self.current = None;
        self.next_renewal = now;
        // Another process may have the name by now. Two of one name would end each other for ever.
        self.rules.name.clear();
    }

    pub(super) fn registered(&mut self, result: Result<Registered, Failure>, now: Instant) {
        let Some(sent) = self.registering.take() else { return };
        let Ok(registered) = result else {
            self.next_renewal = now + REGISTER_AGAIN.min(self.rules.lease / 5);
            return;
        };
        self.heard(registered.now, sent, now);
        let lease_until = registered.lease_until;
        self.current = Some(Current { id: registered.instance, lease_until, renewed: sent });
        self.last = registered.instance;
        self.next_renewal = now + self.rules.lease / 5;
    }

    pub(super) fn ended(&mut self) {
        for owner in self.ending.take().unwrap_or_default() {
            // The rows tell whether the owner has ended, now or before.
            self.reads.extend(self.lapsed.remove(&owner).unwrap_or_default());
        }
    }

    /// Whether this instance counts as living beyond doubt: by the store's clock, and by its own, since the
    /// clock of the store may have gone back meanwhile.
    pub(super) fn is_current(&self, instance: u64, now: Instant) -> bool {
        self.current.is_some_and(|current| {
            let silent = at_most(now.saturating_duration_since(current.renewed));
            current.id == instance
                && self.clock.hi(now) < Time(current.lease_until)
                && silent < millis(self.rules.lease)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::machine::{Action, Event, Rules};
    use super::super::store::NewInstance;
    use super::*;
    use crate::admission::limits::{Bounds, Limits};
    use crate::backend::operation::{Operation, Request};
    use crate::semantics::command::Command;
    use crate::semantics::key::Key;
    use crate::semantics::samples::hash;
    use crate::semantics::token::Token;

    const LEASE: Duration = Duration::from_secs(600);

    pub(in crate::fleet) fn machine(now: Instant) -> Machine {
        let rules = Rules {
            incarnation: 1,
            name: "pod-1".to_owned(),
            build: String::new(),
            lease: LEASE,
            overload_after: Duration::from_secs(5),
            settle_for: Duration::from_secs(30),
            upkeep_interval: Duration::from_secs(3600),
            replay_bytes: 1 << 20,
            second_group: 16,
            durable_claims: true,
        };
        let registered = Registered { instance: 7, lease_until: 1_600_000, now: 1_000_000 };
        Machine::new(rules, Limits::new(Bounds::NONE).into(), registered, now, now)
    }

    fn registration(machine: &mut Machine, now: Instant) -> Option<NewInstance> {
        machine.act(now).into_iter().find_map(|action| match action {
            Action::Register(instance) => Some(instance),
            _ => None,
        })
    }

    #[test]
    fn a_registration_that_fails_is_tried_again_soon_whatever_the_lease() {
        let now = Instant::now();
        let mut machine = machine(now);
        machine.take_in(now, Event::Reopened);
        assert!(registration(&mut machine, now).is_some());
        let refused = Error::new(ErrorKind::Unavailable, "");
        machine.take_in(now, Event::Registered(Err(Failure::NotCarriedOut(refused))));
        assert!(registration(&mut machine, now).is_none(), "not at once");
        assert!(registration(&mut machine, now + REGISTER_AGAIN).is_some());
    }

    #[test]
    fn a_clock_of_the_store_that_goes_back_makes_no_lease_longer() {
        let now = Instant::now();
        let mut machine = machine(now);
        machine.heard(0, now, now);
        assert!(machine.is_current(7, now + LEASE / 2));
        assert!(!machine.is_current(7, now + LEASE), "another process may have declared its end");
        machine.renewing = Some(now + LEASE);
        let renewal = Renewal::Renewed { lease_until: 1_200_000, now: 600_000 };
        machine.renewed(Ok(renewal), now + LEASE);
        assert!(machine.is_current(7, now + LEASE));
    }

    #[test]
    fn an_old_renewal_that_is_answered_after_a_reopening_is_of_no_account() {
        let now = Instant::now();
        let mut machine = machine(now);
        let due = now + LEASE / 5;
        assert!(machine.act(due).iter().any(|action| matches!(action, Action::Renew(7))));
        machine.take_in(due, Event::Reopened);
        machine.take_in(due, Event::Renewed(Ok(Renewal::Ended { now: 1 })));
        let registration = registration(&mut machine, due).unwrap();
        assert_eq!(registration.name, "pod-1", "the process ended its own instance, not another");
    }

    #[test]
    fn a_row_that_was_read_for_an_operation_that_is_over_decides_no_later_one() {
        let start = Instant::now();
        let mut machine = machine(start);
        let key = Key::new("", [1]).unwrap();
        let release = |machine: &mut Machine, now| {
            let token = Token { incarnation: 1, epoch: 0, sequence: 3 };
            let (key, hash) = (key.clone(), hash(&key));
            let request = Request { key, hash, command: Command::Release { token }, wait: None };
            machine.take_in(now, Event::Submit(Operation::untold(request)));
            asked(machine, now)
        };
        assert_eq!(release(&mut machine, start), ["read"]);
        let late = start + machine.rules.settle_for;
        assert_eq!(asked(&mut machine, late), ["answer"], "it loses patience");
        assert_eq!(release(&mut machine, late), [""; 0], "one reading is under way");
        let rows = || Rows { now: 1_000_000, ..Rows::default() };
        machine.take_in(late, Event::ReadDone(Ok(rows())));
        assert_eq!(asked(&mut machine, late), ["read"], "the row as it is by now");
        machine.take_in(late, Event::ReadDone(Ok(rows())));
        assert_eq!(asked(&mut machine, late), ["answer"]);
    }

    fn asked(machine: &mut Machine, now: Instant) -> Vec<&'static str> {
        let actions = machine.act(now).into_iter();
        let name = |action| match action {
            Action::Read(..) => Some("read"),
            Action::Answer(_) => Some("answer"),
            _ => None,
        };
        actions.filter_map(name).collect()
    }
}
