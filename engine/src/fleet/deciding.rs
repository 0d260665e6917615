//! How the machine decides one key: by [`transition`] on the row that it knows, and again on the row that
//! a change met instead.

use std::sync::Arc;
use std::time::Duration;

use super::image::{self, Decided};
use super::machine::{Machine, asks_for_an_orphan, is_refusal};
use super::slot::{Changing, Known, Stage, Work};
use super::store::{GroupAnswer, Row, RowState};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::Instant;
use crate::semantics::command::{Command, Reply};
use crate::semantics::key::KeyHash;
use crate::semantics::record::Record;
use crate::semantics::time::{Time, millis};
use crate::semantics::transition::transition;

/// What a decision is made on.
struct Ground {
    row: Option<Row>,
    record: Option<Arc<Record>>,
    /// In the store's time; at most that of the moment.
    at: Time,
    /// Whether the row is known to stand so: a refusal may be told.
    certain: bool,
}

impl Machine {
    /// Decides the work of a slot on what is known here, or asks for its row.
    pub(super) fn start(&mut self, hash: KeyHash, now: Instant) {
        let lo = self.clock.lo(now);
        let Some(slot) = self.slots.get(&hash) else { return };
        let Some(work) = &slot.work else { return };
        if let Some(live) = &slot.live {
            let certain = self.stands(live, now);
            // An orphan is dated by the end of its instance, when that was the earlier.
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
        if self.bound(&work.command).is_some() {
            // No claim would be granted; whether one is needed only the row tells.
            return self.read(hash);
        }
        self.decide(hash, Ground { row: None, record: None, at: lo, certain: true }, now);
    }

    /// Whether the row of a claim of this process is as it is known: nobody else may have changed it.
    fn stands(&self, live: &Known, now: Instant) -> bool {
        let hi = self.clock.hi(now);
        self.is_current(live.row.owner, now)
            && live.record.deadline().is_none_or(|deadline| hi < deadline)
    }

    fn decide(&mut self, hash: KeyHash, ground: Ground, now: Instant) {
        let Some(work) = self.slots.get(&hash).and_then(|slot| slot.work.as_ref()) else { return };
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
        if let Some(error) = self.bound(&work.command) {
            return self.finish(hash, Err(error), None, now);
        }
        self.ops += 1;
        let version = ground.row.as_ref().map_or(0, |row| row.version);
        let decided = Decided { record, version, at: ground.at };
        let image = image::image(hash, (self.writer, self.ops), &work.command, &change, &decided);
        self.send(hash, Stage::Change, Changing::new(image, ground.row, reply));
    }

    /// The row of a slot was read.
    pub(super) fn was_read(&mut self, hash: KeyHash, row: Option<&Row>, at: u64, now: Instant) {
        let Some(slot) = self.slots.get_mut(&hash) else { return };
        let Some(work) = &mut slot.work else { return };
        if !matches!(work.stage, Stage::Read | Stage::Declare) {
            return;
        }
        // A claim of this process that the store no longer shows so is not its any more.
        if let Some(live) = &slot.live
            && row.is_none_or(|row| row.token != live.row.token || row.state != RowState::InFlight)
        {
            slot.live = None;
            self.in_flight -= 1;
        }
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

    /// What became of the change of a slot in a group that was answered.
    pub(super) fn carried_out(
        &mut self,
        hash: KeyHash,
        answer: &GroupAnswer,
        instance: u64,
        now: Instant,
    ) {
        let Some(work) = self.slots.get_mut(&hash).and_then(|slot| slot.work.as_mut()) else {
            return;
        };
        let gives_back = matches!(work.stage, Stage::GiveBack(_));
        let (Stage::Change(change) | Stage::GiveBack(change)) = &mut work.stage else { return };
        change.under_way = false;
        let at = answer.found.now;
        if let Some((_, version)) = answer.applied.iter().find(|(applied, _)| *applied == hash.0) {
            let row = change.image.filled(change.before.as_ref(), instance, *version, at);
            return self.applied(hash, row, gives_back, at, now);
        }
        let Some(row) = answer.found.rows.iter().find(|row| row.hash == hash.0) else {
            if answer.ended && change.image.grants {
                // Not granted: the instance has ended. It is sent again by the next.
                self.changes.push_back(hash);
                return if self.current.is_some_and(|current| current.id == instance) {
                    self.was_ended(now);
                };
            }
            // It met a row that it could not see, or one that is gone: never absent by that.
            return self.read_again(hash, gives_back, now);
        };
        if (row.writer, row.op) == (change.image.writer, change.image.op) {
            return self.applied(hash, row.clone(), gives_back, at, now);
        }
        let expired = row.expires_at.is_some_and(|expires_at| expires_at <= at);
        if row.version == change.image.expected && (change.image.grants || !expired) {
            if answer.ended && change.image.grants {
                self.changes.push_back(hash);
                return if self.current.is_some_and(|current| current.id == instance) {
                    self.was_ended(now);
                };
            }
            // Another transaction holds its lock for a moment.
            change.tries = (change.tries + 1).min(6);
            change.not_before = Some(now + Duration::from_millis(1 << change.tries));
            self.changes.push_back(hash);
            return;
        }
        if gives_back {
            // Another owner took it over already.
            return self.given_back(hash, now);
        }
        if change.doubtful
            && let Some(outcome) = settled(change, &work.command, row, at)
        {
            return self.finish(hash, outcome.map(|reply| (reply, None, Time(at))), None, now);
        }
        work.doubted |= change.doubtful;
        work.stage = Stage::Read;
        self.was_read(hash, Some(row), at, now);
    }

    fn read_again(&mut self, hash: KeyHash, gives_back: bool, now: Instant) {
        if gives_back {
            return self.given_back(hash, now);
        }
        let Some(work) = self.slots.get_mut(&hash).and_then(|slot| slot.work.as_mut()) else {
            return;
        };
        if let Stage::Change(change) = &work.stage
            && change.doubtful
        {
            if change.image.expected == 0 {
                // Nothing that it could be mistaken for: it is sent as it was.
                self.changes.push_back(hash);
                return;
            }
            // The row is gone: a tombstone that was swept, long after.
            let reply = match &work.command {
                Command::Abort { .. } | Command::Release { .. } | Command::OwnerGone { .. } => {
                    Ok((Reply::Done, None, self.clock.lo(now)))
                }
                _ => Err(Error::new(ErrorKind::OutcomeUnknown, "the row is gone")),
            };
            return self.finish(hash, reply, None, now);
        }
        self.read(hash);
    }

    /// The change is in the store, by this sending or by one before.
    fn applied(&mut self, hash: KeyHash, row: Row, gives_back: bool, at: u64, now: Instant) {
        if gives_back {
            return self.given_back(hash, now);
        }
        let Some(work) = self.slots.get(&hash).and_then(|slot| slot.work.as_ref()) else { return };
        let Stage::Change(change) = &work.stage else { return };
        let reply = change.reply.clone();
        let record = match image::record(&row, self.rules.incarnation, at) {
            Ok(record) => record.map(Arc::new),
            Err(error) => return self.finish(hash, Err(error), None, now),
        };
        let unwanted = work.asker.is_none();
        if change.image.grants && (unwanted || !self.is_current(row.owner, now)) {
            // Nobody may act on it: too late for its instance, or nobody hears of it any more.
            return self.give_back(hash, row, record, now);
        }
        let Some(record) = record else {
            return self.finish(hash, Ok((reply, None, Time(at))), None, now);
        };
        let known = Known { row, record: record.clone() };
        self.finish(hash, Ok((reply, Some(record), Time(at))), Some(known), now);
    }

    /// Aborts a claim that was granted and not delivered.
    fn give_back(&mut self, hash: KeyHash, row: Row, record: Option<Arc<Record>>, now: Instant) {
        let Some(record) = record else { return self.given_back(hash, now) };
        let Some(token) = record.attempt().map(|attempt| attempt.token) else {
            return self.given_back(hash, now);
        };
        let at = Time(row.started_at).max(self.clock.lo(now));
        let command = Command::Abort { token };
        let (change, reply) = transition(Some(&record), &command, &record.key, at);
        let Some(change) = change else { return self.given_back(hash, now) };
        self.ops += 1;
        let decided = Decided { record: Some(&record), version: row.version, at };
        let image = image::image(hash, (self.writer, self.ops), &command, &change, &decided);
        self.send(hash, Stage::GiveBack, Changing::new(image, Some(row), reply));
    }

    fn given_back(&mut self, hash: KeyHash, now: Instant) {
        let Some(work) = self.slots.get(&hash).and_then(|slot| slot.work.as_ref()) else { return };
        match (&work.command, &work.asker) {
            // It begins anew, with what is there now.
            (Command::Begin { .. }, Some(_)) => self.read(hash),
            _ => {
                let error =
                    Error::new(ErrorKind::OutcomeUnknown, "the lease of this engine was over");
                self.finish(hash, Err(error), None, now);
            }
        }
    }

    /// The work of a slot is decided: keeps what is known now, tells who asked, goes on.
    fn finish(
        &mut self,
        hash: KeyHash,
        outcome: Result<(Reply, Option<Arc<Record>>, Time)>,
        known: Option<Known>,
        now: Instant,
    ) {
        let doubtful = self.slots[&hash].work.as_ref().is_some_and(Work::is_doubtful);
        let Some(work) = self.end_work(hash) else { return };
        let outcome = match outcome {
            // A change that may have been carried out before cannot be told as refused.
            Ok((reply, ..)) if doubtful && is_refusal(&reply) && !is_end(&work.command) => {
                Err(Error::new(ErrorKind::OutcomeUnknown, "the key moved on"))
            }
            outcome => outcome,
        };
        self.keep(hash, &outcome, known, &work.command);
        let waits = matches!(&outcome, Ok((Reply::Locked, ..)));
        // The owner goes on; those who wait for it wait on.
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
                    self.in_flight += 1;
                }
                if mine || matches!(reply, Reply::Claimed) {
                    slot.live = Some(known);
                }
            }
            // The claim has ended, or somebody else ended it.
            _ if mine
                && (is_end(command) || is_refusal(reply))
                && !matches!(reply, Reply::Locked) =>
            {
                let ended = matches!(reply, Reply::Done) || is_refusal(reply);
                let own = slot.live.as_ref().and_then(|live| live.record.attempt());
                let asked = token_of(command);
                if ended && own.map(|attempt| attempt.token) == asked {
                    slot.live = None;
                    self.in_flight -= 1;
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

/// What became of a change that may have been carried out, when another row is there now. `None`: it is
/// to be decided again on that row.
fn settled(change: &Changing, command: &Command, row: &Row, at: u64) -> Option<Result<Reply>> {
    let same_life = change.before.as_ref().is_some_and(|before| before.token == row.token);
    if row.state == RowState::Free && same_life {
        // Another change freed the key that this one was to free.
        return None;
    }
    let moved_on = row.state == RowState::Free
        || change.before.as_ref().is_some_and(|before| before.token < row.token);
    match command {
        Command::Abort { .. } | Command::Release { .. } | Command::OwnerGone { .. } if moved_on => {
            // A first attempt follows a freed key. A later one follows an orphan: this one, that was taken
            // over and never freed, or one that came long after.
            let freed = change.image.state == RowState::Free;
            let told = match freed && row.state != RowState::Free && row.attempt > 1 {
                true => Err(Error::new(ErrorKind::OutcomeUnknown, "somebody took over")),
                false => Ok(Reply::Done),
            };
            Some(told)
        }
        Command::Complete { .. } if moved_on => {
            // Its record would still stand, unless it was carried out and has expired.
            let ttl = change.image.expires_in.unwrap_or(0);
            let sent_at = change.sent_at.unwrap_or(0);
            let drift = millis(Duration::from_secs(1));
            match at < sent_at.saturating_add(ttl).saturating_sub(drift) {
                true => None,
                false => {
                    Some(Err(Error::new(ErrorKind::OutcomeUnknown, "its time to live is over")))
                }
            }
        }
        _ => None,
    }
}
