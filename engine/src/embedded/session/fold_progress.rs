//! How far the store file follows the journal.

use crate::base::error::{Error, Result};
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Condvar, Mutex};

/// How far folding has come, for the threads that wait for it.
#[derive(Default)]
pub(crate) struct FoldProgress {
    /// The last sequence that was published.
    pub(crate) published: AtomicU64,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    folded_through: u64,
    /// A fold was asked for up to this sequence.
    wanted: Option<u64>,
    /// How many folds found no space, and the reason of the last one.
    put_off: u64,
    no_space: Option<Error>,
    error: Option<Error>,
}

impl FoldProgress {
    pub(crate) fn start(folded_through: u64, published: u64) -> Self {
        Self {
            published: AtomicU64::new(published),
            progress: Mutex::new(Progress { folded_through, ..Progress::default() }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn wants(&self) -> bool {
        self.progress.lock().wanted.is_some()
    }

    pub(crate) fn want(&self) {
        let through = self.published.load(Ordering::Acquire);
        let mut progress = self.progress.lock();
        progress.wanted = Some(progress.wanted.unwrap_or(0).max(through));
    }

    pub(crate) fn folded(&self, through: u64) {
        let mut progress = self.progress.lock();
        progress.folded_through = progress.folded_through.max(through);
        progress.no_space = None;
        if progress.wanted.is_some_and(|wanted| wanted <= through) {
            progress.wanted = None;
        }
        self.changed.notify_all();
    }

    /// A fold found no space. It is tried again, but waiting threads get the error.
    pub(crate) fn put_off(&self, error: Error) {
        let mut progress = self.progress.lock();
        progress.put_off += 1;
        progress.no_space = Some(error);
        self.changed.notify_all();
    }

    pub(crate) fn fail(&self, error: &Error) {
        self.progress.lock().error = Some(error.clone());
        self.changed.notify_all();
    }

    pub(crate) fn folded_through(&self) -> u64 {
        self.progress.lock().folded_through
    }

    /// Waits until everything up to `through` is folded. Fails when a fold finds no space.
    pub(crate) fn wait(&self, through: u64) -> Result<()> {
        let mut progress = self.progress.lock();
        let put_off = progress.put_off;
        while progress.folded_through < through {
            let no_space = progress.no_space.as_ref().filter(|_| progress.put_off != put_off);
            if let Some(error) = progress.error.as_ref().or(no_space) {
                return Err(error.clone());
            }
            self.changed.wait(&mut progress);
        }
        Ok(())
    }
}
