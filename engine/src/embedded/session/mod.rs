//! The state that callers, the committer and the fold worker of one epoch share.

pub(crate) mod backup_progress;
pub(crate) mod checkpoint;
pub(crate) mod deferred_free;
mod ending;
pub(crate) mod fold_inbox;
pub(crate) mod fold_progress;
pub(crate) mod health;
pub(crate) mod presence;
mod reading;
pub(crate) mod recent;
pub(crate) mod replay_cache;
pub(crate) mod shards;

use std::sync::Arc;

use self::backup_progress::BackupProgress;
use self::fold_inbox::FoldInbox;
use self::health::Health;
use crate::admission::counters::Counters;
use crate::admission::limits::Limits;
use crate::admission::queue::Queue;
use crate::admission::slot::{Admission, FollowUp};
use crate::admission::waits::Waits;
use crate::backend::operation::{Answer, Operation, Queued, Wait};
use crate::backend::reports::Stats;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::atomic::Ordering;
use crate::base::sync::{Instant, after};
use crate::embedded::clock::EngineClock;
use crate::embedded::options::Options;
use crate::embedded::session::deferred_free::DeferredFree;
use crate::embedded::session::fold_progress::FoldProgress;
use crate::embedded::session::recent::RecentSize;
use crate::embedded::session::shards::Shards;
use crate::embedded::store::{CurrentView, View};
use crate::semantics::command::Reply;
use crate::semantics::key::KeyHash;
use crate::semantics::record::{Record, Versioned};
use crate::semantics::time::Time;
use crate::semantics::transition::transition;

/// One open of a store, from recovery to close, failure or reopen.
pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) clock: EngineClock,
    pub(crate) table: Shards,
    pub(crate) limits: Arc<Limits>,
    pub(crate) queue: Queue,
    pub(crate) inbox: FoldInbox,
    pub(crate) counters: Counters,
    pub(crate) backups: BackupProgress,
    pub(crate) recent: RecentSize,
    pub(crate) retired: DeferredFree,
    pub(crate) folds: FoldProgress,
    pub(crate) views: CurrentView,
    pub(super) health: Health,
    pub(crate) waits: Waits,
}

impl Session {
    pub(crate) fn new(
        options: Options,
        clock: EngineClock,
        views: CurrentView,
        folds: FoldProgress,
    ) -> Self {
        let table = Shards::new(options.replay_bytes(), options.keep_one_of());
        let limits = Arc::new(Limits::new(options.bounds()));
        let session = Self {
            options,
            clock,
            table,
            queue: Queue::new(limits.clone()),
            limits,
            inbox: FoldInbox::default(),
            counters: Counters::default(),
            backups: BackupProgress::default(),
            recent: RecentSize::default(),
            retired: DeferredFree::default(),
            folds,
            views,
            health: Health::default(),
            waits: Waits::default(),
        };
        session.count_folded();
        session
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// The store file as the last fold, merge or sweep left it.
    pub(crate) fn view(&self) -> Arc<View> {
        self.views.current()
    }

    /// Submits a command. Its answer comes on this thread or on another.
    pub(crate) fn submit(&self, op: Operation) {
        if let Err(error) = self.check_health() {
            return self.submit_unhealthy(op, error);
        }
        let hash = op.hash;
        let wait = op.wait;
        let admission = self.table.shard(hash).admit(op, self.now(), &self.limits);
        match admission {
            Admission::Answered(answer) => self.answer(answer),
            Admission::Parked(deadline) => {
                if let Some(wait) = wait {
                    if self.waits.watch(wait, hash) {
                        self.queue.nudge();
                    }
                    self.reconsider_at(deadline, hash);
                }
                // If the committer has already made its final pass, nothing would wake this waiter;
                // refuse it here.
                if self.check_health().is_err() {
                    let (refusal, limits) = (self.refusal(), &self.limits);
                    let refused =
                        self.table.shard(hash).slots.refuse_waiting(hash, &refusal, limits);
                    self.follow_up(hash, refused);
                }
            }
            Admission::Change(queued) => self.enqueue(queued),
            Admission::Resolve(op) => {
                let looked_up = self.look_up(hash, &op.key);
                let (now, limits) = (self.now(), &self.limits);
                let follow_up = self.table.shard(hash).resolved(op, looked_up, now, limits);
                self.follow_up(hash, follow_up);
            }
        }
    }

    /// Takes out a waiting begin whose caller gave up, which makes room for another. An operation
    /// that is under way already goes on.
    pub(crate) fn withdraw(&self, hash: KeyHash, wait: Wait) {
        let withdrawn = self.table.shard(hash).slots.withdraw(hash, wait, &self.limits);
        // The shard is unlocked here: the operation that is dropped may lock a shard.
        if withdrawn.is_some() {
            self.waits.forget(wait, hash);
        }
    }

    /// Answers a command that needs no change while the engine cannot write. Refuses any other.
    fn submit_unhealthy(&self, op: Operation, refused: Error) {
        let now = self.now();
        let outcome = match self.peek(op.hash, &op.key) {
            _ if refused.kind() == ErrorKind::Closed => Err(refused),
            Err(error) => Err(error),
            Ok(record) => match transition(record.as_deref(), &op.command, &op.key, now) {
                // Its owner may have ended it, which could not be written: not a key to wait for.
                (None, Reply::Locked) | (Some(_), _) => Err(refused),
                (None, reply) => Ok((reply, record, now)),
            },
        };
        self.answer(Answer::new(op, outcome));
    }

    pub(crate) fn enqueue(&self, queued: Queued) {
        let allocates = queued.op.command.starts_execution();
        if let Some(queued) = self.queue.push(queued) {
            self.refuse(queued, &self.refusal());
        }
        if allocates {
            self.retired.free_few();
        }
    }

    /// Answers a command that was queued but not written: nothing happened.
    pub(crate) fn refuse(&self, queued: Queued, error: &Error) {
        let Queued { op, .. } = queued;
        self.limits.release(&op.command);
        let (hash, mut follow_up) = (op.hash, FollowUp::default());
        self.table.shard(hash).slots.abandon(hash, error, &self.limits, &mut follow_up);
        self.answer(Answer::new(op, Err(error.clone())));
        self.follow_up(hash, follow_up);
    }

    /// Does the work that a shard left for the time after its lock.
    pub(crate) fn follow_up(&self, hash: KeyHash, follow_up: FollowUp) {
        if let Some(queued) = follow_up.queued {
            self.enqueue(queued);
        }
        self.reconsider_at(follow_up.reconsider_at, hash);
        for wait in follow_up.ended {
            self.waits.forget(wait, hash);
        }
        for answer in follow_up.answers {
            self.answer(answer);
        }
    }

    pub(crate) fn answer(&self, answer: Answer) {
        if answer.parts().1.is_err() && self.limits.asks_for_a_fold() {
            self.folds.want();
            self.queue.nudge();
        }
        self.counters.count(&answer);
        answer.give();
    }

    pub(super) fn reconsider_at(&self, deadline: Option<Time>, hash: KeyHash) {
        if let Some(deadline) = deadline {
            let at = after(deadline.since(self.now()));
            if self.waits.watch_deadline(at, hash) {
                self.queue.nudge();
            }
        }
    }

    /// Answers operations whose wait is over. Returns when to look again.
    pub(crate) fn run_timers(&self) -> Option<Instant> {
        loop {
            match self.waits.next(Instant::now()) {
                Err(next) => return next,
                Ok(hash) => {
                    let (now, limits) = (self.now(), &self.limits);
                    let follow_up = self.table.shard(hash).slots.reconsider(hash, now, limits);
                    self.follow_up(hash, follow_up);
                }
            }
        }
    }

    /// Publishes a durable change of the record `base`, and answers its caller and the operations that
    /// waited for it.
    pub(crate) fn publish(
        &self,
        op: Operation,
        base: Option<&Record>,
        reply: Reply,
        versioned: Versioned,
        now: Time,
    ) {
        let (hash, record) = (op.hash, versioned.record.clone());
        let reserved = isize::from(op.command.starts_execution());
        let mut replaced = None;
        let (grew, follow_up) =
            self.table.shard(hash).publish(hash, versioned, now, &self.limits, &mut replaced);
        self.limits.claims_changed(grew - reserved);
        self.count_recent(record.as_deref(), replaced.and_then(|replaced| replaced.record));
        let is_orphan = |record: Option<&Record>| record.is_some_and(Record::is_orphan);
        self.count_orphan(is_orphan(base), is_orphan(record.as_deref()));
        self.answer(Answer::new(op, Ok((reply, record, now))));
        self.follow_up(hash, follow_up);
    }

    /// Answers a queued command that turned out to change nothing.
    pub(crate) fn publish_unchanged(&self, queued: Queued, outcome: Result<Reply>, now: Time) {
        let Queued { op, base } = queued;
        let (hash, mut follow_up) = (op.hash, FollowUp::default());
        self.limits.release(&op.command);
        let mut shard = self.table.shard(hash);
        shard.slots.settle(hash, base.clone(), now, &self.limits, &mut follow_up);
        drop(shard);
        self.answer(Answer::new(op, outcome.map(|reply| (reply, base, now))));
        self.follow_up(hash, follow_up);
    }

    /// The group with this command failed: it may or may not have happened.
    pub(crate) fn publish_unknown(&self, op: Operation, error: &Error) {
        let hash = op.hash;
        self.limits.release(&op.command);
        let follow_up = self.table.shard(hash).slots.set_unknown(hash, &self.limits);
        self.answer(Answer::new(op, Err(error.clone())));
        self.follow_up(hash, follow_up);
    }

    /// Counts a record that was published or restored, and discounts the recent record that it
    /// replaced.
    fn count_recent(&self, record: Option<&Record>, replaced: Option<Arc<Record>>) {
        let open_bytes = &self.limits.open_bytes;
        let weight = record.map_or(0, Record::weight);
        self.recent.add(weight);
        if record.is_some_and(|record| record.attempt().is_some()) {
            open_bytes.add(weight as u64);
        }
        if let Some(replaced) = replaced {
            let weight = replaced.weight();
            self.recent.remove(weight);
            if replaced.attempt().is_some() {
                open_bytes.remove(weight as u64);
            }
        }
    }

    /// Counts the orphan that a change of a durable record makes, or ends.
    fn count_orphan(&self, before: bool, after: bool) {
        match (before, after) {
            (false, true) => self.limits.orphans.add(1),
            (true, false) => self.limits.orphans.remove(1),
            _ => {}
        }
    }

    /// Takes in the records of the journal that the store file does not have as yet.
    pub(crate) fn restore(&self, records: impl IntoIterator<Item = (KeyHash, Versioned)>) {
        let view = self.view();
        let has_orphans = view.orphans() > 0;
        for (hash, versioned) in records {
            let record = versioned.record.as_deref();
            self.count_recent(record, None);
            let was_orphan = has_orphans && view.has_orphan(hash);
            self.count_orphan(was_orphan, record.is_some_and(Record::is_orphan));
            self.table.shard(hash).restore(hash, versioned);
        }
    }

    /// A fold begins: what is recent now is what it folds.
    pub(crate) fn rotate_counts(&self) {
        self.recent.rotate();
        self.limits.orphans.rotate();
        self.limits.open_bytes.rotate();
    }

    /// Counts the open records of the store file.
    pub(crate) fn count_folded(&self) {
        let view = self.views.current();
        self.limits.orphans.set_folded(view.orphans());
        self.limits.open_bytes.set_folded(view.open_bytes());
    }

    /// The folded records are no longer recent.
    pub(crate) fn evicted_counts(&self) {
        self.count_folded();
        self.recent.evicted();
        self.limits.orphans.evicted();
        self.limits.open_bytes.evicted();
    }

    /// A snapshot of counters and gauges.
    pub(crate) fn stats(&self) -> Stats {
        let now = self.now();
        let mut stats = Stats::default();
        self.counters.fill(&mut stats);
        let mut oldest = None;
        for shard in self.table.shards() {
            for record in shard.slots.live_records() {
                stats.in_flight += 1;
                let started = record.attempt().map(|attempt| attempt.started_at);
                oldest = [oldest, started].into_iter().flatten().min();
            }
        }
        stats.oldest_claim = oldest.map(|started| now.since(started));
        stats.orphans = self.limits.orphans.total();
        stats.open_bytes = self.limits.open_bytes.total();
        stats.backups = self.backups.running.load(Ordering::Relaxed);
        stats.backup_bytes = self.backups.bytes.load(Ordering::Relaxed);
        stats.backup_bytes_copied = self.backups.copied.load(Ordering::Relaxed);
        stats.full = self.limits.shortage.is_on();
        stats.queued = self.limits.queued() as u64;
        stats.waiters = self.limits.waiting() as u64;
        let recent = &self.recent;
        stats.recent_bytes =
            (recent.active.load(Ordering::Relaxed) + recent.folding.load(Ordering::Relaxed)) as u64;
        let view = self.view();
        stats.folded_records = view.entries();
        stats.runs = view.runs() as u64;
        stats
    }

    /// Folds everything published so far. Blocks until the fold is durable.
    pub(crate) fn fold(&self) -> Result<()> {
        self.check_health()?;
        let through = self.folds.published.load(Ordering::Acquire);
        if self.folds.folded_through() >= through {
            return Ok(());
        }
        self.folds.want();
        self.queue.nudge();
        // A fold that found no space is tried again at once.
        self.inbox.nudge();
        self.folds.wait(through)
    }

    /// Notes why the engine was not reopened. Callers get this reason from now on.
    pub(crate) fn not_reopened(&self, error: &Error) {
        self.health.not_reopened(error);
    }
}
