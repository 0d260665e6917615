//! Whether a session executes commands.

use crate::base::error::{Error, ErrorKind};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, Ordering};

/// Whether commands are executed. A close, a reopen and a failure are noted apart, because a
/// session may fail while it is closed or reopened. None of them is taken back.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Read by every command, hence no lock.
    impaired: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    suspended: bool,
    failed: Option<Error>,
}

impl Health {
    /// Notes a failure. Returns whether it is the first; later ones are its consequences.
    pub(crate) fn fail(&self, error: &Error) -> bool {
        let mut state = self.state.lock();
        let first = state.failed.is_none();
        state.failed.get_or_insert_with(|| error.clone());
        self.impaired.store(true, Ordering::Release);
        first
    }

    /// Notes that the store is being reopened.
    pub(crate) fn suspend(&self) {
        self.state.lock().suspended = true;
        self.impaired.store(true, Ordering::Release);
    }

    /// Notes why a reopen failed. This replaces the earlier failure.
    pub(crate) fn not_reopened(&self, error: &Error) {
        self.state.lock().failed = Some(error.clone());
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.impaired.store(true, Ordering::Release);
    }

    pub(crate) fn is_impaired(&self) -> bool {
        self.impaired.load(Ordering::Acquire)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_impaired() && self.state.lock().closed
    }

    /// Whether the session is closed, or about to be replaced by another.
    pub(crate) fn is_over(&self) -> bool {
        self.is_impaired() && {
            let state = self.state.lock();
            state.closed || state.suspended
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.is_impaired() && self.state.lock().failed.is_some()
    }

    /// Why commands are refused.
    pub(crate) fn refusal(&self) -> Error {
        let state = self.state.lock();
        match &state.failed {
            _ if state.closed => Error::new(ErrorKind::Closed, ""),
            Some(cause) => refused_after(cause),
            None if state.suspended => {
                Error::new(ErrorKind::Unavailable, "the engine is being reopened")
            }
            // The thread panicked, and its panic is not noted yet.
            None => Error::new(ErrorKind::Unavailable, "a thread of the engine ended"),
        }
    }
}

/// The refusal of a command after this failure.
pub(crate) fn refused_after(cause: &Error) -> Error {
    let context = format!("the engine must be reopened after a failure: {cause}");
    Error::caused_by(ErrorKind::Unavailable, context, cause.clone())
}
