//! The threads of an open store: started after recovery, joined before the lock is given up.

use std::sync::Arc;

use crate::backend::telemetry;
use crate::base::error::{Error, Result};
use crate::base::sync::thread::JoinHandle;
use crate::base::sync::{Instant, thread};
use crate::embedded::directory::{Lock, StoreDirectory};
use crate::embedded::options::Options;
use crate::embedded::recovery::{self, Recovered};
use crate::embedded::session::Session;
use crate::embedded::session::fold_progress::FoldProgress;
use crate::embedded::session::presence::Presence;
#[cfg(feature = "stepping")]
use crate::embedded::worker::Employer;
use crate::embedded::worker::Worker;
use crate::embedded::workers::committer::Committer;
use crate::embedded::workers::fold_worker::FoldWorker;
use crate::semantics::secret::Secret;

/// The threads of one session, in the order in which they end, and the lock that they work under.
pub(crate) struct Threads {
    committer: Option<JoinHandle<()>>,
    fold_worker: Option<JoinHandle<()>>,
    #[cfg(feature = "stepping")]
    stepper: Option<crate::embedded::stepper::Stepper>,
    lock: Lock,
}

impl Threads {
    /// Opens the store file, recovers, and starts the threads. A reopen passes the secret that it
    /// knows, so that another store in the directory is refused.
    pub(crate) fn start(
        options: &Options,
        home: &StoreDirectory,
        lock: &Lock,
        known: Option<&Secret>,
    ) -> Result<(Arc<Session>, Secret, Self)> {
        let opening = Instant::now();
        let Opened { session, secret, committer, fold_worker } =
            recover_session(options, home, known)?;
        telemetry::opened(&home.path, session.limits.orphans.total(), opening.elapsed());
        let mut running = Self::ended(lock.clone());
        #[cfg(feature = "stepping")]
        if let Some(stepper) = &options.stepper {
            let employer: Arc<dyn Employer> = session.clone();
            stepper.take_on(Arc::downgrade(&employer), committer, fold_worker);
            running.stepper = Some(stepper.clone());
            return Ok((session, secret, running));
        }
        let ended = session.clone();
        let commit = move || {
            committer.run();
            ended.committer_ended();
        };
        let started = spawn("oncekey-commit", &session, lock, commit)
            .map(|thread| running.committer = Some(thread))
            .and_then(|()| spawn("oncekey-fold", &session, lock, move || fold_worker.run()))
            .map(|thread| running.fold_worker = Some(thread));
        if let Err(error) = started {
            session.close();
            running.join(&session);
            return Err(error);
        }
        Ok((session, secret, running))
    }

    /// The lock on the directory without threads: before they start, and after a failed reopen.
    pub(crate) fn ended(lock: Lock) -> Self {
        Self {
            committer: None,
            fold_worker: None,
            #[cfg(feature = "stepping")]
            stepper: None,
            lock,
        }
    }

    /// Joins both threads: the committer first, because it hands work to the fold worker.
    pub(crate) fn join(self, session: &Session) -> Lock {
        join(self.committer);
        #[cfg(feature = "stepping")]
        self.stepper.iter().for_each(|stepper| stepper.end_committer());
        session.inbox.stop();
        join(self.fold_worker);
        #[cfg(feature = "stepping")]
        self.stepper.iter().for_each(|stepper| stepper.end_fold_worker());
        session.refuse_waiters();
        session.folds.fail(&session.refusal());
        self.lock
    }
}

/// Joins a thread, unless it is the current one: a reply on a thread of the engine may drop the
/// last handle of the engine.
fn join(thread: Option<JoinHandle<()>>) {
    let other = thread.filter(|handle| !thread::is_current(handle.thread()));
    if let Some(thread) = other {
        // A thread that panicked has latched the session before it ended.
        drop(thread.join());
    }
}

/// A recovered store, before its workers run.
struct Opened {
    session: Arc<Session>,
    secret: Secret,
    committer: Box<dyn Worker>,
    fold_worker: Box<dyn Worker>,
}

fn recover_session(
    options: &Options,
    home: &StoreDirectory,
    known: Option<&Secret>,
) -> Result<Opened> {
    let Recovered { store, journal, records, clock, incarnation, epoch, time } =
        recovery::recover(options, home, known)?;
    let state = store.state();
    let folds = FoldProgress::start(state.folded_through, journal.next_sequence() - 1);
    let session = Arc::new(Session::new(options.clone(), clock, store.views(), folds));
    session.restore(records);
    let pool = journal.pool().clone();
    let committer = Committer::new(
        session.clone(),
        journal,
        Presence::new(home.handle.clone()),
        incarnation,
        epoch,
        time,
    );
    let fold_worker = FoldWorker::new(session.clone(), store, pool);
    let (committer, fold_worker) = (Box::new(committer), Box::new(fold_worker));
    Ok(Opened { session, secret: state.secret, committer, fold_worker })
}

/// Starts a thread whose panic latches the engine.
fn spawn(
    name: &str,
    session: &Arc<Session>,
    lock: &Lock,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    // The thread keeps the directory locked while it writes, even after the last handle is dropped.
    let (session, lock) = (session.clone(), lock.clone());
    let run = move || {
        thread::enter();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        if result.is_err() {
            session.panicked();
        }
        drop(lock);
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| Error::io(format!("starting the thread {name}"), error))
}
