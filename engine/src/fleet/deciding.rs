//! How the machine decides one key: by [`transition`] on the row that it knows, and again on the row that
//! a change met instead.

use std::sync::Arc;

use super::image::{self, Decided};
use super::machine::{Machine, asks_for_an_orphan, is_refusal};
use super::slot::{Changing, Known, Stage, Work};
use super::store::{Row, RowState};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::Instant;
use crate::semantics::command::{Command, Reply};
use crate::semantics::key::KeyHash;
use crate::semantics::record::Record;
use crate::semantics::time::Time;
use crate::semantics::transition::transition;

/// The row and the record that a decision is made on.
struct Ground {
    row: Option<Row>,
    record: Option<Arc<Record>>,
    /// The time of the decision, in the store's time.
    at: Time,
    /// Whether the row is known to be current, so that a refusal may be told.
    certain: bool,
}

impl Machine {
    /// Decides the work of a slot from memory, or asks for its row.
    pub(super) fn start(&mut self, hash: KeyHash, now: Instant) {
        let lo = self.clock.lo(now);
        let Some(slot) = self.slots.get(&hash) else { return };
        let Some(work) = &slot.work else { return };
        if let Some(live) = &slot.live {
            let certain = self.stands(live, now);
            // The end of the instance dates an orphan if it came first.
            let dates = matches!(work.command, Command::OwnerGone { .. });
            if !certain && (dates || asks_for_an_orphan(&work.command)) {
                return self.read(hash);
            }
            let (row, record) = (Some(live.row.clone()), Some(live.record.clone()));
            return self.decide(hash, Ground { row, record, at: lo, certain }, now);
        }
        if !matches!(work.command, Command::Begin { .. }) {
            return self.read(hash);
        }
        if let Some(record) = self.replays.get(hash).cloned() {
            let at = self.clock.hi(now);
            if !record.is_expired(at) && record.key == work.key {
                let ground = Ground { row: None, record: Some(record), at, certain: true };
                return self.decide(hash, ground, now);
            }
            self.replays.forget(hash);
            return self.read(hash);
        }
        if self.limits.refuses(&work.command) {
            // No claim would be granted. Only the row tells whether one is needed.
            return self.read(hash);
        }
        self.decide(hash, Ground { row: None, record: None, at: lo, certain: true }, now);
    }

    /// Whether the known row of a claim is current: no other process may have changed it.
    fn stands(&self, live: &Known, now: Instant) -> bool {
        let hi = self.clock.hi(now);
        self.is_current(live.row.owner, now)
            && live.record.deadline().is_none_or(|deadline| hi < deadline)
    }

    fn decide(&mut self, hash: KeyHash, ground: Ground, now: Instant) {
        let Some(work) = self.slots.get_mut(&hash).and_then(|slot| slot.work.as_mut()) else {
            return;
        };
        let record = ground.record.as_deref();
        if record.is_some_and(|record| record.key != work.key) {
            let error = Error::corrupted("two keys have one hash");
            return self.finish(hash, Err(error), None, now);
        }
        let (change, reply) = transition(record, &work.command, &work.key, ground.at);
        let Some(change) = change else {
            if !ground.certain {
                return self.read(hash);
            }
            let known = ground.row.zip(ground.record.clone());
            let known = known.map(|(row, record)| Known { row, record });
            return self.finish(hash, Ok((reply, ground.record, ground.at)), known, now);
        };
        if !work.reserved {
            match self.limits.reserve(&work.command) {
                Ok(()) => work.reserved = true,
                Err(error) => return self.finish(hash, Err(error), None, now),
            }
        }
        self.ops += 1;
        let version = ground.row.as_ref().map_or(0, |row| row.version);
        let decided = Decided { record, version, at: ground.at };
        let image = image::image(hash, (self.writer, self.ops), &work.command, &change, &decided);
        self.send(hash, Stage::Change, Changing::new(image, ground.row, reply));
    }

    /// Forgets a claim of this process that the store no longer shows as such.
    pub(super) fn disown(&mut self, hash: KeyHash, row: Option<&Row>) {
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        let gone = |live: &mut Known| {
            row.is_none_or(|row| row.token != live.row.token || row.state != RowState::InFlight)
        };
        if slot.live.take_if(gone).is_some() {
            self.limits.claims_changed(-1);
        }
    }

    /// Takes in the row of a slot that was read.
    pub(super) fn was_read(&mut self, hash: KeyHash, row: Option<&Row>, at: u64, now: Instant) {
        let asked = self.slots.get(&hash).and_then(|slot| slot.work.as_ref());
        if !asked.is_some_and(|work| matches!(work.stage, Stage::Read | Stage::Declare)) {
            return;
        }
        self.disown(hash, row);
        let Some(work) = self.slots.get_mut(&hash).and_then(|slot| slot.work.as_mut()) else {
            return;
        };
        if let Some(row) = row
            && row.owner_lapsed
            && !work.declared
            && asks_for_an_orphan(&work.command)
        {
            work.declared = true;
            work.stage = Stage::Declare;
            self.lapsed.entry(row.owner).or_default().insert(hash);
            return;
        }
        match row.map(|row| image::record(row, self.rules.incarnation, at)).transpose() {
            Ok(record) => {
                let record = record.flatten().map(Arc::new);
                let ground = Ground { row: row.cloned(), record, at: Time(at), certain: true };
                self.decide(hash, ground, now);
            }
            Err(error) => self.finish(hash, Err(error), None, now),
        }
    }

    /// Ends the decided work of a slot: keeps the result, answers the caller, and begins the next
    /// operation.
    pub(super) fn finish(
        &mut self,
        hash: KeyHash,
        outcome: Result<(Reply, Option<Arc<Record>>, Time)>,
        known: Option<Known>,
        now: Instant,
    ) {
        let doubtful = self.slots[&hash].work.as_ref().is_some_and(Work::is_doubtful);
        let Some(work) = self.end_work(hash) else { return };
        let outcome = match outcome {
            // A change that may have been carried out before must not be told as refused.
            Ok((reply, ..)) if doubtful && is_refusal(&reply) && !is_end(&work.command) => {
                Err(Error::new(ErrorKind::OutcomeUnknown, "the key moved on"))
            }
            outcome => outcome,
        };
        self.keep(hash, &outcome, known, &work.command);
        let waits = matches!(&outcome, Ok((Reply::Locked, ..)));
        // The owner goes on, so its waiters wait on.
        let stays = match &outcome {
            Ok((Reply::Mismatch(_), ..)) | Err(_) => true,
            Ok((Reply::Done, ..)) => matches!(work.command, Command::Checkpoint { .. }),
            _ => false,
        };
        if let Some(mut asker) = work.asker {
            if waits {
                match self.park(asker, work.waited, now) {
                    None => return self.next(hash, now),
                    Some(refused) => asker = refused,
                }
            }
            self.tell(asker, outcome);
        }
        if !waits && !stays {
            self.wake(hash);
        }
        self.next(hash, now);
    }

    /// Keeps the row of a claim that this process holds, and the response of a completed one.
    fn keep(
        &mut self,
        hash: KeyHash,
        outcome: &Result<(Reply, Option<Arc<Record>>, Time)>,
        known: Option<Known>,
        command: &Command,
    ) {
        let Ok((reply, record, _)) = outcome else { return };
        if let Some(record) = record
            && matches!(reply, Reply::Done | Reply::Replay | Reply::Mismatch(_))
            && record.expires_at().is_some()
            && record.attempt().is_none()
        {
            self.replays.keep(hash, record);
        }
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        let holds = matches!(
            (reply, command),
            (Reply::Claimed, _) | (Reply::Done, Command::Checkpoint { .. })
        );
        let mine = slot.live.is_some();
        match known {
            Some(known) if holds => {
                if matches!(reply, Reply::Claimed) && !mine {
                    self.limits.claims_changed(1);
                }
                if mine || matches!(reply, Reply::Claimed) {
                    slot.live = Some(known);
                }
            }
            // The claim has ended, by its owner or by another caller.
            _ if mine
                && (is_end(command) || is_refusal(reply))
                && !matches!(reply, Reply::Locked) =>
            {
                let ended = matches!(reply, Reply::Done) || is_refusal(reply);
                let own = slot.live.as_ref().and_then(|live| live.record.attempt());
                let asked = token_of(command);
                if ended && own.map(|attempt| attempt.token) == asked {
                    slot.live = None;
                    self.limits.claims_changed(-1);
                }
            }
            _ => {}
        }
    }
}

fn is_end(command: &Command) -> bool {
    matches!(
        command,
        Command::Complete { .. }
            | Command::Abort { .. }
            | Command::OwnerGone { .. }
            | Command::Release { .. }
    )
}

fn token_of(command: &Command) -> Option<crate::semantics::token::Token> {
    match command {
        Command::Begin { .. } => None,
        Command::Complete { token, .. }
        | Command::Abort { token }
        | Command::Checkpoint { token, .. }
        | Command::OwnerGone { token }
        | Command::TakeOver { token, .. }
        | Command::Release { token } => Some(*token),
    }
}
