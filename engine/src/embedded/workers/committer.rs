//! The committer. All commands that are queued while a sync runs become the next group: one write,
//! one sync, then every caller of the group is answered.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use crate::admission::queue::{Batch, Taken};
use crate::backend::operation::{Operation, Queued};
use crate::backend::telemetry;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::atomic::Ordering;
use crate::base::sync::{Instant, after};
use crate::embedded::durability::Durability;
use crate::embedded::journal::{Group, Journal, Room};
use crate::embedded::session::Session;
use crate::embedded::session::fold_inbox::FoldTask;
use crate::embedded::session::health::refused_after;
use crate::embedded::session::presence::Presence;
#[cfg(feature = "stepping")]
use crate::embedded::worker::RoundEnd;
use crate::embedded::worker::Worker;
use crate::semantics::command::Reply;
use crate::semantics::record::Record;
use crate::semantics::record::Versioned;
use crate::semantics::time::Time;
use crate::semantics::token::Token;
use crate::semantics::transition::{apply, transition};

/// A group that reaches this many bytes is closed.
const GROUP_BYTES: usize = 1 << 20;

pub(crate) struct Committer {
    session: Arc<Session>,
    journal: Journal,
    presence: Presence,
    incarnation: u64,
    epoch: u64,
    /// The time of the last group: engine time never goes back in the journal.
    time: Time,
    group: Group,
    batch: Batch,
}

/// A command whose change is in the group being written.
struct Written {
    op: Operation,
    /// The record before the change.
    base: Option<Arc<Record>>,
    reply: Reply,
    versioned: Versioned,
}

impl Committer {
    pub(crate) fn new(
        session: Arc<Session>,
        journal: Journal,
        presence: Presence,
        incarnation: u64,
        epoch: u64,
        time: Time,
    ) -> Self {
        let mut committer = Self {
            session,
            journal,
            presence,
            incarnation,
            epoch,
            time,
            group: Group::default(),
            batch: Batch::default(),
        };
        // Recovery may have filled more than half of the memory for recent records.
        committer.rotate_if_due();
        committer
    }

    /// One round: waits for commands, at most until `at_most`, makes them durable in one or more
    /// groups, and answers. Returns `false` once the queue is stopped and empty, or the engine
    /// failed.
    fn one_round(&mut self, at_most: Option<Instant>) -> bool {
        let allow_begins = !self.recent_is_full();
        let deadline = self.next_deadline(allow_begins).into_iter().chain(at_most).min();
        let taken = self.session.queue.take(&mut self.batch, allow_begins, deadline);
        while !self.batch.is_empty() {
            if let Err(error) = self.commit_group() {
                self.fail(&error);
                return false;
            }
        }
        self.refuse_overdue();
        self.rotate_if_due();
        taken != Taken::Stopped
    }

    fn next_deadline(&self, allow_begins: bool) -> Option<Instant> {
        let timer = self.session.run_timers();
        let overdue = if allow_begins { None } else { self.session.queue.oldest_begin() }
            .and_then(|since| since.checked_add(self.session.options.overload_after));
        [timer, overdue].into_iter().flatten().min()
    }

    /// Takes commands from the batch until the group is large enough, and makes it durable.
    fn commit_group(&mut self) -> Result<()> {
        let now = self.session.now().max(self.time);
        self.time = now;
        self.group.clear();
        let limit = GROUP_BYTES.min(self.journal.least_segment_bytes() as usize / 4);
        let mut written = Vec::with_capacity(self.batch.len());
        let mut unchanged = Vec::new();
        while self.group.len() < limit
            && let Some(Queued { op, base }) = self.batch.pop()
        {
            let (change, reply) = transition(base.as_deref(), &op.command, &op.key, now);
            let Some(change) = change else {
                unchanged.push((Queued { op, base }, reply));
                continue;
            };
            let sequence = self.journal.next_sequence() + self.group.entries();
            let at = Token { incarnation: self.incarnation, epoch: self.epoch, sequence };
            let record = apply(base.as_deref(), &change, at, now)
                .map_err(|_| Error::corrupted("a change does not fit the record it was made for"))?
                .map(Arc::new);
            self.group.push(op.hash, &change);
            written.push(Written { op, base, reply, versioned: Versioned { sequence, record } });
        }
        for (queued, reply) in unchanged {
            self.session.publish_unchanged(queued, Ok(reply), now);
        }
        if written.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.make_room() {
            for Written { op, base, .. } in written {
                self.session.publish_unchanged(Queued { op, base }, Err(error.clone()), now);
            }
            return Ok(());
        }
        self.write_and_publish(written, now)
    }

    /// Makes sure that the group fits, and waits for the fold worker if necessary. Nothing is
    /// written yet, so a full disk refuses this group without failing the engine.
    fn make_room(&mut self) -> Result<()> {
        let deadline = after(self.session.options.overload_after);
        loop {
            match self.journal.make_room(&self.group) {
                Room::Here => return Ok(()),
                Room::NextSegment => {
                    self.session.inbox.nudge();
                    return Ok(());
                }
                Room::None => {
                    if self.session.inbox.is_idle() {
                        self.rotate();
                    }
                    self.session.inbox.nudge();
                    self.journal.wait_for_segment(deadline).map_err(|error| {
                        let context = format!("the journal has no room: {}", error.context());
                        Error::caused_by(error.kind(), context, error)
                    })?;
                }
            }
        }
    }

    fn write_and_publish(&mut self, written: Vec<Written>, now: Time) -> Result<()> {
        let position = self.journal.position();
        let Self { journal, group, epoch, .. } = self;
        if let Err(error) = caught(|| journal.append(group, *epoch, now)) {
            return Err(self.unknown(written, error));
        }
        let bytes = self.journal.position().offset - position.offset;
        self.session.recent.journal.fetch_add(bytes, Ordering::Relaxed);
        let late = match self.session.options.durability {
            Durability::Strict => written,
            Durability::Relaxed => {
                // These answers come before the sync, but after the files are known to be there.
                let Self { session, journal, presence, .. } = self;
                if let Err(error) = caught(|| presence.check(journal, &session.views)) {
                    return Err(self.unknown(written, error));
                }
                let (early, late) = (written.into_iter())
                    .partition(|written| written.op.command.starts_execution());
                self.publish(early, now);
                late
            }
        };
        let syncing = Instant::now();
        let Self { session, journal, presence, .. } = self;
        let synced =
            caught(|| journal.sync().and_then(|()| presence.check(journal, &session.views)));
        if let Err(error) = synced {
            return Err(self.unknown(late, error));
        }
        telemetry::group_synced(self.group.entries(), bytes, syncing.elapsed());
        let counters = &self.session.counters;
        counters.groups.fetch_add(1, Ordering::Relaxed);
        counters.entries.fetch_add(self.group.entries(), Ordering::Relaxed);
        let last = self.journal.next_sequence() - 1;
        self.session.folds.published.store(last, Ordering::Release);
        self.publish(late, now);
        Ok(())
    }

    fn publish(&self, written: Vec<Written>, now: Time) {
        for Written { op, base, reply, versioned } in written {
            self.session.publish(op, base.as_deref(), reply, versioned, now);
        }
    }

    /// Ends a group that may or may not be on disk. Latches first: once an outcome is in doubt, no
    /// caller may be told that its key is free or locked.
    fn unknown(&self, written: Vec<Written>, error: Error) -> Error {
        self.session.fail(&error);
        for Written { op, .. } in written {
            self.session.publish_unknown(op, &error.as_outcome_unknown());
        }
        error
    }

    fn fail(&mut self, error: &Error) {
        self.session.fail(error);
        while let Some(queued) = self.batch.pop() {
            self.session.refuse(queued, &refused_after(error));
        }
    }

    fn recent_is_full(&self) -> bool {
        let recent = &self.session.recent;
        recent.active.load(Ordering::Relaxed) >= self.session.options.recent_bytes / 2
            && recent.folding.load(Ordering::Relaxed) > 0
    }

    /// Refuses begins that waited for memory longer than `overload_after`.
    fn refuse_overdue(&self) {
        if !self.recent_is_full() {
            return;
        }
        let Some(limit) = Instant::now().checked_sub(self.session.options.overload_after) else {
            return;
        };
        let message = "folding does not keep up with the writes";
        for queued in self.session.queue.take_begins_before(limit) {
            self.session.refuse(queued, &Error::new(ErrorKind::Overloaded, message));
        }
    }

    fn rotate_if_due(&mut self) {
        // Checked before `wants`: the fold worker clears a wish that it met before it becomes idle,
        // and only this thread makes it busy.
        if !self.session.inbox.is_idle() {
            return;
        }
        let gathered = self.session.recent.gathered(&self.session.options);
        if gathered >= 1.0 || self.session.folds.wants() {
            self.rotate();
        }
    }

    /// Hands the active records to the fold worker, which must be idle. Called between two groups,
    /// so that the fold has exactly the changes that the journal has before `replay_from`.
    fn rotate(&mut self) {
        for mut shard in self.session.table.shards() {
            shard.rotate();
        }
        self.session.rotate_counts();
        self.session.inbox.fold(FoldTask {
            through: self.journal.next_sequence() - 1,
            replay_from: self.journal.position(),
            incarnation: self.incarnation,
            epoch: self.epoch,
            time: self.time,
        });
    }
}

impl Worker for Committer {
    /// Runs until the queue is stopped and empty, or the engine fails.
    fn run(mut self: Box<Self>) {
        while self.one_round(None) {}
    }

    #[cfg(feature = "stepping")]
    fn round(mut self: Box<Self>) -> (Option<Box<dyn Worker>>, RoundEnd) {
        let goes_on = self.one_round(Some(Instant::now()));
        (goes_on.then_some(self as _), RoundEnd::Worked)
    }
}

/// Turns a panic of the disk into an error, so that the callers of the group are answered and get
/// their claims back. The journal is not used after a panic or an error.
fn caught(io: impl FnOnce() -> Result<()>) -> Result<()> {
    panic::catch_unwind(AssertUnwindSafe(io))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "writing the journal panicked")))
}
