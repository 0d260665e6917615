//! The engine without threads, for tests alone: the committer and the folder do one round when they
//! are told to, so that a run of the whole engine is a function of who is told when.
//!
//! What blocks a caller until a thread has done something, as `fold` and `sweep` do, or waiting for
//! a `Pending`, blocks for ever: ask with [`Stepper::want_fold`], poll, and step. Timers go by the
//! machine's clock, and are best set far beyond the end of a test.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::base::codec::checksum;
use crate::base::sync::Instant;
use crate::embedded::options::Options;
use crate::embedded::session::Core;
use crate::embedded::workers::committer::{Committer, Step};
pub use crate::embedded::workers::fold_worker::Doing;
use crate::embedded::workers::fold_worker::{Folder, Round};

/// Stands in for the threads of one engine at a time, and for the system's random bytes. Clones
/// are the same.
#[derive(Clone)]
pub struct Stepper(Arc<Mutex<Hands>>);

struct Hands {
    /// Weak: its options hold the stepper.
    core: Weak<Core>,
    committer: Option<Committer>,
    folder: Option<Folder>,
    doing: Option<Doing>,
    watch: Option<Box<dyn FnMut(Doing) + Send>>,
    random: u64,
}

impl Stepper {
    /// Works for no engine yet.
    pub fn new(seed: u64) -> Self {
        let hands = Hands {
            core: Weak::new(),
            committer: None,
            folder: None,
            doing: None,
            watch: None,
            random: seed,
        };
        Self(Arc::new(Mutex::new(hands)))
    }

    /// Options for an engine that this one works for.
    pub fn install(&self, mut options: Options) -> Options {
        options.stepper = Some(self.clone());
        options
    }

    /// One round of the committer, without waiting.
    pub fn commit(&self) {
        self.commit_once();
    }

    /// One round of the folder, without waiting; says what it was about, if there was something to
    /// do.
    pub fn fold(&self) -> Option<Doing> {
        let round = self.fold_once()?;
        if round == Round::Worked { self.0.lock().doing } else { None }
    }

    /// Has `watch` called whenever the folder turns to something else.
    pub fn watch(&self, watch: impl FnMut(Doing) + Send + 'static) {
        self.0.lock().watch = Some(Box::new(watch));
    }

    pub(crate) fn about(&self, doing: Doing) {
        let mut hands = self.0.lock();
        hands.doing = Some(doing);
        if let Some(watch) = &mut hands.watch {
            watch(doing);
        }
    }

    /// What [`Engine::fold`](crate::Engine::fold) asks for.
    pub fn want_fold(&self) {
        let core = self.core();
        core.folds.want();
        core.queue.nudge();
    }

    /// Makes merging as far behind as folds may let it fall.
    pub fn neglect_merging(&self) {
        if let Some(folder) = &mut self.0.lock().folder {
            folder.neglect_merging();
        }
    }

    /// What [`Engine::sweep`](crate::Engine::sweep) asks for.
    pub fn want_sweep(&self) {
        drop(self.core().inbox.sweep());
    }

    /// Engine time, in milliseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        self.core().now().0
    }

    /// Whether the engine latched.
    pub fn has_failed(&self) -> bool {
        self.core().has_failed()
    }

    fn core(&self) -> Arc<Core> {
        self.0.lock().core.upgrade().expect("an engine with these options is open")
    }

    pub(crate) fn take_on(&self, core: Arc<Core>, mut committer: Committer, folder: Folder) {
        committer.begin();
        let mut hands = self.0.lock();
        hands.core = Arc::downgrade(&core);
        hands.committer = Some(committer);
        hands.folder = Some(folder);
    }

    /// `None` once it ended.
    fn commit_once(&self) -> Option<()> {
        let mut committer = self.0.lock().committer.take()?;
        // Moved in, so that a panic drops it while it unwinds, as that of a thread does.
        let round = panic::catch_unwind(AssertUnwindSafe(move || {
            (committer.step(Some(Instant::now())) == Step::Again).then_some(committer)
        }));
        let core = self.core();
        match round {
            Ok(Some(committer)) => {
                self.0.lock().committer = Some(committer);
                return Some(());
            }
            Ok(None) => core.committer_ended(),
            Err(_) => core.panicked(),
        }
        None
    }

    /// `None` once it ended.
    fn fold_once(&self) -> Option<Round> {
        let mut folder = self.0.lock().folder.take()?;
        let round = panic::catch_unwind(AssertUnwindSafe(move || {
            let round = folder.round();
            if round == Round::Idle && !folder.wait_no_time() {
                folder.close();
                return (None, round);
            }
            (Some(folder), round)
        }));
        match round {
            Ok((folder, round)) => {
                let going_on = folder.is_some().then_some(round);
                self.0.lock().folder = folder;
                going_on
            }
            Err(_) => {
                self.core().panicked();
                None
            }
        }
    }

    /// The queue was stopped: carries out what is in it.
    pub(crate) fn end_committer(&self) {
        while self.commit_once().is_some() {}
    }

    /// The folder was stopped: lets it end.
    pub(crate) fn end_folder(&self) {
        while self.fold_once().is_some_and(|round| round != Round::Failed) {}
        let folder = self.0.lock().folder.take();
        drop(folder);
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
