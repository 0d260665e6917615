//! The fold worker: the only writer of the store file. In the order of urgency it prepares journal
//! segments, moves recent records into the store file, loads filters, merges runs and frees the
//! space of expired records.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::telemetry;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::atomic::Ordering;
use crate::base::sync::{Instant, after, oneshot};
use crate::embedded::journal::SegmentPool;
use crate::embedded::session::Session;
use crate::embedded::session::fold_inbox::FoldTask;
use crate::embedded::store::{Fold, Store};
use crate::embedded::worker::{Duty, RoundEnd, Worker};
use crate::embedded::workers::departure::Departure;
use crate::embedded::workers::pace::paced;
use crate::semantics::key::KeyHash;
use crate::semantics::record::Versioned;

/// Run entries merged in one step: few, because a fold may wait for its end.
const MERGE_ENTRIES: usize = 1 << 13;
/// Run entries to merge for each folded record, so that merging keeps pace under any load.
const MERGED_PER_RECORD: usize = 4;
/// Folds go before merging until merging is this number of run entries behind.
const MOST_OWED: usize = 1 << 20;
/// The pause between two pieces of space that are given back.
const PAUSE: Duration = Duration::from_millis(5);
/// How long work that found no space waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The niceness of the fold worker: on a contended processor it gets about a tenth of the time that
/// others get. Half this niceness lowered the 99th percentile less; the idle class starved folds
/// when callers were busy.
const NICENESS: i32 = 10;

pub(crate) struct FoldWorker {
    session: Arc<Session>,
    store: Store,
    pool: Arc<SegmentPool>,
    next_sweep: Instant,
    /// How many records the sweep under way has removed, and the callers that asked for it.
    sweeping: Option<(u64, Vec<oneshot::Sender<Result<u64>>>)>,
    filters_loaded: bool,
    /// A fold that found no space or no descriptor, and why. Its records are still recent, and its
    /// part of the journal is not recycled.
    kept: Option<(FoldTask, Error)>,
    /// The kept fold waits before it is tried again.
    resting: bool,
    /// Why a merge or the loading of a filter waits before it is tried again: it found no space or
    /// no descriptor.
    runs_wait: Option<Error>,
    /// Run entries that are still to be merged.
    owed: usize,
    departure: Departure,
}

impl FoldWorker {
    pub(crate) fn new(session: Arc<Session>, store: Store, pool: Arc<SegmentPool>) -> Self {
        let next_sweep = after(session.options.sweep_interval);
        let departure = Departure { session: session.clone(), pool: pool.clone() };
        Self {
            session,
            store,
            pool,
            next_sweep,
            sweeping: None,
            filters_loaded: false,
            kept: None,
            resting: false,
            runs_wait: None,
            owed: 0,
            departure,
        }
    }

    /// Runs until it is stopped; the store file is closed when this returns. After a failure it
    /// writes nothing more, but keeps the store file open for readers.
    fn work(mut self) {
        yield_to_others();
        loop {
            match self.one_round() {
                RoundEnd::Worked => {}
                RoundEnd::Idle if self.wait() => {}
                RoundEnd::Idle => return self.close(),
                RoundEnd::Failed => {
                    self.departure.tell();
                    return self.session.inbox.wait_for_stop();
                }
            }
        }
    }

    fn one_round(&mut self) -> RoundEnd {
        if self.session.has_failed() {
            self.sweeping = None;
            return RoundEnd::Failed;
        }
        match self.step() {
            Ok(true) => RoundEnd::Worked,
            Ok(false) => RoundEnd::Idle,
            Err(error) => {
                self.session.fail(&error);
                RoundEnd::Worked
            }
        }
    }

    /// Tells a stepper the next duty.
    #[cfg(feature = "stepping")]
    fn about(&self, duty: Duty) {
        if let Some(stepper) = &self.session.options.stepper {
            stepper.about(duty);
        }
    }

    #[cfg(not(feature = "stepping"))]
    fn about(&self, _: Duty) {}

    /// Like [`wait`](Self::wait), without the time. Returns `false` when the fold worker must stop.
    #[cfg(feature = "stepping")]
    fn wait_no_time(&mut self) -> bool {
        self.retry();
        !self.session.inbox.requests.lock().stopped
    }

    /// The orderly end, after which the next open has nothing to repair.
    fn close(self) {
        if let Err(error) = self.store.close() {
            self.session.fail(&error);
        }
    }

    /// Does the most urgent work. Returns whether there was any.
    fn step(&mut self) -> Result<bool> {
        self.store.journal_reached(self.session.folds.published.load(Ordering::Acquire));
        if self.pool.wants_segment() && self.pool.failure().is_none() {
            // The pool keeps a failure, which refuses claims and does not fail the engine.
            self.about(Duty::Prepare);
            let prepared = self.pool.prepare();
            self.note_space()?;
            if prepared.is_ok() {
                return Ok(true);
            }
        }
        if self.owed > MOST_OWED && self.shortage().is_none() && self.merge()? {
            return Ok(true);
        }
        let kept = if self.resting { None } else { self.kept.take() };
        let task =
            kept.map(|(task, _)| task).or_else(|| self.session.inbox.requests.lock().fold.take());
        if let Some(task) = task {
            self.about(Duty::Fold);
            self.fold(task)?;
            return Ok(true);
        }
        if self.session.inbox.requests.lock().stopped {
            return Ok(false);
        }
        if !self.filters_loaded && self.runs_wait.is_none() {
            self.about(Duty::Load);
            match self.store.load_next_filter() {
                Err(error) if error.is_shortage() => self.let_runs_wait(error)?,
                loaded => {
                    self.filters_loaded = !loaded?;
                    // Claims may have been refused until now.
                    self.note_space()?;
                }
            }
            return Ok(true);
        }
        // Not during a shortage: a merge takes space before it frees any.
        if self.shortage().is_none() && self.merge()? {
            return Ok(true);
        }
        self.about(Duty::Sweep);
        self.sweep()
    }

    /// Does one step of a merge. Returns `false` when there is nothing to merge.
    fn merge(&mut self) -> Result<bool> {
        self.about(Duty::Merge);
        let merged = match self.store.merge_step(MERGE_ENTRIES) {
            Err(error) if error.is_shortage() => {
                self.let_runs_wait(error)?;
                return Ok(true);
            }
            merged => merged?,
        };
        self.owed = if merged { self.owed.saturating_sub(MERGE_ENTRIES) } else { 0 };
        if merged {
            self.note_space()?;
        }
        Ok(merged)
    }

    fn let_runs_wait(&mut self, shortage: Error) -> Result<()> {
        self.runs_wait = Some(shortage);
        self.note_space()
    }

    /// Waits for a request, a retry or the next sweep. Returns `false` when the fold worker must
    /// stop.
    fn wait(&mut self) -> bool {
        let mut requests = self.session.inbox.requests.lock();
        loop {
            // A fold is still done. The end of the worker refuses all other requests.
            if requests.stopped && requests.fold.is_none() {
                return false;
            }
            let busy = requests.fold.is_some() || !requests.sweeps.is_empty();
            if busy || std::mem::take(&mut requests.nudged) {
                break;
            }
            let retry = self.shortage().is_some().then(|| Instant::now() + RETRY);
            let until = retry.map_or(self.next_sweep, |retry| retry.min(self.next_sweep));
            if self.session.inbox.wake.wait_until(&mut requests, until).timed_out() {
                break;
            }
        }
        drop(requests);
        self.retry();
        true
    }

    /// Why some work waits to be tried again. No new claim is granted meanwhile.
    fn shortage(&self) -> Option<Error> {
        let kept = self.kept.as_ref().map(|(_, why)| why);
        kept.or(self.runs_wait.as_ref()).cloned().or_else(|| self.pool.failure())
    }

    /// Lets work that found no space be tried again.
    fn retry(&mut self) {
        self.pool.forget_failure();
        self.resting = false;
        self.runs_wait = None;
    }

    fn fold(&mut self, task: FoldTask) -> Result<()> {
        let started = Instant::now();
        let entries: Vec<(KeyHash, Versioned)> = self
            .session
            .table
            .shards()
            .flat_map(|shard| shard.folding().collect::<Vec<_>>())
            .collect();
        let count = entries.len();
        let fold = Fold {
            through: task.through,
            replay_from: task.replay_from,
            incarnation: task.incarnation,
            epoch: task.epoch,
            time: task.time,
            bucket_width: bucket_width(self.session.options.ttl),
            entries,
        };
        let written = self.store.write_fold(&fold, &mut paced(&self.session, &self.pool));
        match written {
            Err(error) if error.is_shortage() && !self.store.is_latched() => {
                return self.keep(task, error);
            }
            written => written?,
        }
        let folded = self.store.without_checkpoint_bytes(&fold);
        // From here on only the recent records refer to them, so the eviction frees them.
        drop(fold);
        // ORDER: the store has published the new view, so readers find the records there before the
        // records leave the recent ones.
        let evicted: Vec<_> = self.session.table.shards().map(|mut shard| shard.evict()).collect();
        // The view holds the checkpoints of live claims, too.
        for (hash, record, light) in folded {
            self.session.table.shard(hash).lighten(hash, &record, light);
        }
        self.session.evicted_counts();
        // DURABLE: only after the fold is durable may its part of the journal be overwritten.
        self.pool.recycle(task.replay_from);
        self.session.folds.folded(task.through);
        // Set after the wish for this fold is cleared, or the committer would fold again.
        self.session.inbox.requests.lock().folding = false;
        self.session.counters.folds.fetch_add(1, Ordering::Relaxed);
        telemetry::folded(count, started.elapsed());
        self.session.queue.nudge();
        // Frees the rest of the previous fold. That takes a while, so it comes when no caller
        // waits.
        self.session.retired.replace(evicted);
        self.owed += MERGED_PER_RECORD * count;
        self.note_space()
    }

    /// Puts a fold off: a lack of space or descriptors refuses claims without failing the engine.
    fn keep(&mut self, task: FoldTask, shortage: Error) -> Result<()> {
        self.kept = Some((task, shortage.clone()));
        self.resting = true;
        self.note_space()?;
        // These begins wait for the memory that this fold was to free.
        for queued in self.session.queue.take_begins_before(Instant::now()) {
            self.session.refuse(queued, &shortage);
        }
        self.session.folds.put_off(shortage);
        Ok(())
    }

    fn sweep(&mut self) -> Result<bool> {
        let now = self.session.now();
        if self.sweeping.is_none() {
            let requested = std::mem::take(&mut self.session.inbox.requests.lock().sweeps);
            let mut due = !requested.is_empty();
            if Instant::now() >= self.next_sweep {
                due = true;
                self.next_sweep = after(self.session.options.sweep_interval);
            }
            if due {
                // During a shortage a sweep writes only if it frees space: a commit that finds none fails
                // the engine.
                let is_worth_it = self.shortage().is_none()
                    || self.store.has_expired_files(now) && !self.store.has_pending_fold();
                let swept = if is_worth_it { self.store.sweep(now)? } else { 0 };
                self.session.counters.swept.fetch_add(swept, Ordering::Relaxed);
                self.sweeping = Some((swept, requested));
                return Ok(true);
            }
        }
        if let Some(left) = self.store.give_back_removed()? {
            if left {
                // A sync during a removal waits for the filesystem. The committer can sync in the
                // pause.
                self.session.inbox.rest(PAUSE);
            }
            return Ok(true);
        }
        let Some((swept, requested)) = self.sweeping.take() else {
            return Ok(false);
        };
        if self.store.view().has_expired_orphans(now) {
            // Their space comes back with the next fold.
            self.session.folds.want();
            self.session.queue.nudge();
        }
        telemetry::swept(swept);
        self.note_space()?;
        for sender in requested {
            drop(sender.send(Ok(swept)));
        }
        Ok(true)
    }

    /// Decides whether new claims are granted: by the shortages and by the size that the options
    /// allow.
    fn note_space(&self) -> Result<()> {
        let bytes = self.store.file_bytes()? + self.pool.bytes();
        self.session.counters.store_bytes.store(bytes, Ordering::Relaxed);
        let over = self.session.options.max_store_bytes.is_some_and(|limit| bytes >= limit);
        let over = over.then(|| Error::new(ErrorKind::StoreFull, "max_store_bytes is reached"));
        let why = over.or_else(|| self.shortage());
        let full = why.is_some();
        if self.session.limits.shortage.set(why) != full {
            telemetry::full_changed(full);
        }
        telemetry::gauges(|| self.session.stats());
        Ok(())
    }
}

impl Worker for FoldWorker {
    fn run(self: Box<Self>) {
        self.work();
    }

    #[cfg(feature = "stepping")]
    fn round(mut self: Box<Self>) -> (Option<Box<dyn Worker>>, RoundEnd) {
        let end = self.one_round();
        if end == RoundEnd::Idle && !self.wait_no_time() {
            self.close();
            return (None, end);
        }
        (Some(self), end)
    }

    #[cfg(feature = "stepping")]
    fn neglect(&mut self) {
        self.owed = MOST_OWED + 1;
    }
}

/// Lets the committer and the threads of the host run first when they compete for a processor:
/// callers wait for those, and for this thread only when memory runs out. Affects only the calling
/// thread.
fn yield_to_others() {
    // On Linux `None` means this thread. Raising its own niceness is always allowed; if it failed,
    // the fold worker would only disturb others more.
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// The width of the buckets by which expired records free their space: a twenty-fourth of the TTL.
fn bucket_width(ttl: Duration) -> Duration {
    (ttl / 24).clamp(Duration::from_secs(1), Duration::from_secs(3600))
}
