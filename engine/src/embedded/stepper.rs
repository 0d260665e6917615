//! The engine without threads, only for tests. The committer and the fold worker do one round for
//! each call, so that the order of the calls determines a run of the whole engine.
//!
//! A call that blocks until a thread has done work, such as `fold`, `sweep` or the wait for a
//! `Pending`, blocks for ever: ask with [`Stepper::want_fold`], poll, and step. Timers use the
//! clock of the machine, so set them far beyond the end of a test.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::base::codec::checksum;
pub use crate::embedded::worker::Duty;
use crate::embedded::worker::{Employer, RoundEnd, Worker};

/// Takes the place of the threads of one engine at a time, and of the system's random bytes. Clones
/// share one state. [`Options::stepper`](crate::Options::stepper) makes an engine that uses it.
#[derive(Clone)]
pub struct Stepper(Arc<Mutex<Hands>>);

struct Hands {
    /// Weak, because the options of the session hold the stepper.
    employer: Option<Weak<dyn Employer>>,
    committer: Option<Box<dyn Worker>>,
    fold_worker: Option<Box<dyn Worker>>,
    duty: Option<Duty>,
    watch: Option<Box<dyn FnMut(Duty) + Send>>,
    random: u64,
}

/// One of the two workers.
type Place = fn(&mut Hands) -> &mut Option<Box<dyn Worker>>;

const COMMITTER: Place = |hands| &mut hands.committer;
const FOLD_WORKER: Place = |hands| &mut hands.fold_worker;

impl Stepper {
    /// A stepper without an engine.
    pub fn new(seed: u64) -> Self {
        let hands = Hands {
            employer: None,
            committer: None,
            fold_worker: None,
            duty: None,
            watch: None,
            random: seed,
        };
        Self(Arc::new(Mutex::new(hands)))
    }

    /// One round of the committer, without waiting.
    pub fn commit(&self) {
        self.commit_once();
    }

    /// Does one round of the fold worker, without waiting. Returns its duty if there was work.
    pub fn fold(&self) -> Option<Duty> {
        let end = self.round(FOLD_WORKER)?;
        if end == RoundEnd::Worked { self.0.lock().duty } else { None }
    }

    /// Calls `watch` whenever the fold worker turns to another duty.
    pub fn watch(&self, watch: impl FnMut(Duty) + Send + 'static) {
        self.0.lock().watch = Some(Box::new(watch));
    }

    pub(crate) fn about(&self, duty: Duty) {
        let mut hands = self.0.lock();
        hands.duty = Some(duty);
        if let Some(watch) = &mut hands.watch {
            watch(duty);
        }
    }

    /// Asks for a fold, as [`Engine::fold`](crate::Engine::fold) does, without waiting for it.
    pub fn want_fold(&self) {
        self.employer().want_fold();
    }

    /// Puts merging as far behind as folds allow.
    pub fn neglect_merging(&self) {
        if let Some(worker) = &mut self.0.lock().fold_worker {
            worker.neglect();
        }
    }

    /// Asks for a sweep, as [`Engine::sweep`](crate::Engine::sweep) does, without waiting for it.
    pub fn want_sweep(&self) {
        self.employer().want_sweep();
    }

    /// Engine time, in milliseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        self.employer().now().0
    }

    /// Whether the engine latched.
    pub fn has_failed(&self) -> bool {
        self.employer().has_failed()
    }

    fn employer(&self) -> Arc<dyn Employer> {
        let employer = self.0.lock().employer.as_ref().and_then(Weak::upgrade);
        employer.expect("an engine with these options is open")
    }

    pub(crate) fn take_on(
        &self,
        employer: Weak<dyn Employer>,
        committer: Box<dyn Worker>,
        fold_worker: Box<dyn Worker>,
    ) {
        let mut hands = self.0.lock();
        hands.employer = Some(employer);
        hands.committer = Some(committer);
        hands.fold_worker = Some(fold_worker);
    }

    /// `None` once the worker has ended.
    fn round(&self, place: Place) -> Option<RoundEnd> {
        let worker = place(&mut self.0.lock()).take()?;
        match panic::catch_unwind(AssertUnwindSafe(move || worker.round())) {
            Ok((worker, end)) => {
                let goes_on = worker.is_some().then_some(end);
                *place(&mut self.0.lock()) = worker;
                goes_on
            }
            Err(_) => {
                self.employer().panicked();
                None
            }
        }
    }

    fn commit_once(&self) -> Option<()> {
        let had_one = self.0.lock().committer.is_some();
        let end = self.round(COMMITTER);
        if had_one && end.is_none() {
            self.employer().committer_ended();
        }
        end.map(|_| ())
    }

    /// Executes the commands that are left in the stopped queue.
    pub(crate) fn end_committer(&self) {
        while self.commit_once().is_some() {}
    }

    /// Lets the stopped fold worker end.
    pub(crate) fn end_fold_worker(&self) {
        while self.round(FOLD_WORKER).is_some_and(|end| end != RoundEnd::Failed) {}
        let worker = self.0.lock().fold_worker.take();
        drop(worker);
    }

    pub(crate) fn random(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let mut hands = self.0.lock();
            hands.random = checksum(hands.random, b"stepping");
            chunk.copy_from_slice(&hands.random.to_le_bytes()[..chunk.len()]);
        }
    }
}

impl fmt::Debug for Stepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stepper").finish_non_exhaustive()
    }
}
