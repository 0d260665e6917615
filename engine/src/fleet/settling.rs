//! The outcome of a change that was sent: carried out, overtaken, or in doubt.

use std::sync::Arc;
use std::time::Duration;

use super::image::{self, Decided};
use super::machine::Machine;
use super::slot::{Changing, Known, Stage};
use super::store::{Applied, GroupAnswer, Row, RowState};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::Instant;
use crate::semantics::command::{Command, Reply};
use crate::semantics::key::KeyHash;
use crate::semantics::record::Record;
use crate::semantics::time::{Time, millis};
use crate::semantics::transition::transition;

impl Machine {
    /// Takes in the outcome of a slot's change, in a group that was answered.
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
        let applied = answer.applied.iter().find(|applied| applied.hash == hash.0);
        if let Some(&Applied { version, at, .. }) = applied {
            let row = change.image.filled(change.before.as_ref(), instance, version, at);
            return self.applied(hash, row, gives_back, at, now);
        }
        let at = answer.found.now;
        let Some(row) = answer.found.rows.iter().find(|row| row.hash == hash.0) else {
            if answer.ended && change.image.grants {
                return self.left_to_the_next(hash, instance, now);
            }
            // The change met a row that it could not see, or one that is gone. The key is not
            // absent by that.
            return self.read_again(hash, gives_back, now);
        };
        if (row.writer, row.op) == (change.image.writer, change.image.op) {
            return self.applied(hash, row.clone(), gives_back, at, now);
        }
        if row.version == change.image.expected && (change.image.grants || !row.has_expired(at)) {
            if answer.ended && change.image.grants {
                return self.left_to_the_next(hash, instance, now);
            }
            // Another transaction holds the lock of the row for a moment.
            change.tries = (change.tries + 1).min(6);
            change.not_before = Some(now + Duration::from_millis(1 << change.tries));
            self.changes.push_back(hash);
            return;
        }
        if gives_back {
            // Another owner took the claim over already.
            return self.given_back(hash, now);
        }
        let held = change.before.as_ref().is_some_and(|before| {
            let overdue = before.deadline.is_some_and(|deadline| deadline <= at);
            before.state == RowState::InFlight
                && before.owner == instance
                && !answer.ended
                && !overdue
        });
        if change.doubtful
            && let Some(outcome) = settled(change, &work.command, row, held, at)
        {
            // The caller may keep its claim for long and never ask again, so the claim is forgotten
            // now.
            if outcome.is_err() {
                self.disown(hash, Some(row));
            }
            return self.finish(hash, outcome.map(|reply| (reply, None, Time(at))), None, now);
        }
        work.doubted |= change.doubtful;
        work.stage = Stage::Read;
        self.was_read(hash, Some(row), at, now);
    }

    /// A change was not granted, because its instance has ended. The next instance sends it again.
    fn left_to_the_next(&mut self, hash: KeyHash, instance: u64, now: Instant) {
        self.changes.push_back(hash);
        if self.current.is_some_and(|current| current.id == instance) {
            self.was_ended(now);
        }
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
                // No other change can be mistaken for an insert: it is sent again unchanged.
                self.changes.push_back(hash);
                return;
            }
            // The row is gone: its tombstone was swept, long after the change.
            let reply = match &work.command {
                Command::OwnerGone { .. } => Ok((Reply::Done, None, self.clock.lo(now))),
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
            // No caller may act on the claim: it came too late for its instance, or its caller is
            // gone. A begin that goes on needs a lease that is renewed at once, or it would be
            // granted and given back again.
            if !unwanted {
                self.next_renewal = now;
            }
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
            // The begin starts anew, on the present row.
            (Command::Begin { .. }, Some(_)) => self.read(hash),
            _ => {
                let error =
                    Error::new(ErrorKind::OutcomeUnknown, "the lease of this engine was over");
                self.finish(hash, Err(error), None, now);
            }
        }
    }
}

/// The outcome of a change that may have been carried out, when another row is there now. `held`:
/// the claim that the change ends did not count as an orphan until now. `None`: the command is
/// decided again on the new row.
fn settled(
    change: &Changing,
    command: &Command,
    row: &Row,
    held: bool,
    at: u64,
) -> Option<Result<Reply>> {
    let newer = change.before.as_ref().is_some_and(|before| before.token < row.token);
    match command {
        Command::OwnerGone { .. } => newer.then_some(Ok(Reply::Done)),
        Command::Abort { .. } | Command::Release { .. } => {
            // The row shows a change that freed the key until the key is claimed again. It shows a
            // change that left an orphan only until the orphan is resolved.
            let resolved = !matches!(row.state, RowState::InFlight | RowState::Orphan);
            let leaves_orphan = change.image.state == RowState::Orphan;
            (newer || (leaves_orphan && resolved)).then(|| match held {
                // No other caller ends a claim that its owner holds.
                true => Ok(Reply::Done),
                false => Err(Error::new(
                    ErrorKind::OutcomeUnknown,
                    "another caller may have resolved the orphan",
                )),
            })
        }
        Command::Complete { .. } if newer => {
            // If the change had been carried out, its record would still stand until it expired.
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
