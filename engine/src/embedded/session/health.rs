//! Whether a session carries commands out.

use crate::base::error::Error;
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, Ordering};

/// Whether commands are carried out. Healthy until it is impaired, which no later failure changes; a
/// failed reopening and the close do.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Read by every command, hence no lock.
    impaired: AtomicBool,
    state: Mutex<Option<Impaired>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Impaired {
    Failed(Error),
    Closed,
}

impl Health {
    /// Sets the first state; says whether this call did.
    pub(crate) fn set(&self, impaired: Impaired) -> bool {
        let mut state = self.state.lock();
        let first = state.is_none();
        state.get_or_insert(impaired);
        self.impaired.store(true, Ordering::Release);
        first
    }

    /// Sets the state whatever it was before, unless that was the close.
    pub(crate) fn replace(&self, impaired: Impaired) {
        let mut state = self.state.lock();
        if !matches!(*state, Some(Impaired::Closed)) {
            *state = Some(impaired);
        }
        self.impaired.store(true, Ordering::Release);
    }

    pub(crate) fn impaired(&self) -> Option<Impaired> {
        if self.impaired.load(Ordering::Acquire) { self.state.lock().clone() } else { None }
    }
}

/// Want of space, of descriptors, or of a journal segment that could not be prepared: no new claims
/// until the folder has what it needs again.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    /// Read by every begin, hence no lock.
    on: AtomicBool,
    why: Mutex<Option<Error>>,
}

impl Shortage {
    /// Sets the reason, or that there is none; says whether there was one before.
    pub(crate) fn set(&self, why: Option<Error>) -> bool {
        let on = why.is_some();
        *self.why.lock() = why;
        self.on.swap(on, Ordering::Relaxed)
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(crate) fn why(&self) -> Option<Error> {
        if self.is_on() { self.why.lock().clone() } else { None }
    }
}
