//! The end of the fold worker, reported to the threads that wait for it.

use std::sync::Arc;

use crate::embedded::journal::SegmentPool;
use crate::embedded::session::Session;

/// Ends every wait for the fold worker when the worker ends, however it ends.
///
/// ORDER: later requests are refused, too, so that no caller waits for a worker that has ended.
pub(super) struct Departure {
    pub(super) session: Arc<Session>,
    pub(super) pool: Arc<SegmentPool>,
}

impl Departure {
    pub(super) fn tell(&self) {
        self.session.inbox.refuse();
        self.pool.end();
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.tell();
    }
}
