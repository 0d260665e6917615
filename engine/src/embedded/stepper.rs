//! The engine without threads, for tests alone: the committer and the fold worker do one round when
//! they are told to, so that a run of the whole engine is a function of who is told when.
//!
//! What blocks a caller until a thread has done something, as `fold` and `sweep` do, or waiting for
//! a `Pending`, blocks for ever: ask with [`Stepper::want_fold`], poll, and step. Timers go by the
//! machine's clock, and are best set far beyond the end of a test.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::base::codec::checksum;
pub use crate::embedded::worker::Duty;
use crate::embedded::worker::{Employer, RoundEnd, Worker};

/// Stands in for the threads of one engine at a time, and for the system's random bytes. Clones
/// are the same. [`Options::stepper`](crate::Options::stepper) makes an engine that this one works for.
#[derive(Clone)]
pub struct Stepper(Arc<Mutex<Hands>>);

struct Hands {
    /// Weak: its options hold the stepper.
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
    /// Works for no engine yet.
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

    /// One round of the fold worker, without waiting; says what it did, if there was something to do.
    pub fn fold(&self) -> Option<Duty> {
        let end = self.round(FOLD_WORKER)?;
        if end == RoundEnd::Worked { self.0.lock().duty } else { None }
    }

    /// Has `watch` called whenever the fold worker turns to something else.
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

    /// What [`Engine::fold`](crate::Engine::fold) asks for.
    pub fn want_fold(&self) {
        self.employer().want_fold();
    }

    /// Makes merging as far behind as folds may let it fall.
    pub fn neglect_merging(&self) {
        if let Some(worker) = &mut self.0.lock().fold_worker {
            worker.neglect();
        }
    }

    /// What [`Engine::sweep`](crate::Engine::sweep) asks for.
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

    /// The queue was stopped: carries out what is in it.
    pub(crate) fn end_committer(&self) {
        while self.commit_once().is_some() {}
    }

    /// The fold worker was stopped: lets it end.
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
