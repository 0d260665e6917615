//! The progress of a request through the upstreams, for the code that answers it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::report::spans::Open;

/// The progress of a request. It is in the extensions of the request, and the code that works on the request
/// updates it.
#[derive(Default)]
pub(crate) struct Course {
    /// The number of the attempt that this request executes; 0 before the execution begins.
    attempt: AtomicU32,
    began: Notify,
    /// The time that the upstreams took, in microseconds plus one; 0 before they answered.
    upstream: AtomicU64,
    /// The span of the request, if it is traced.
    pub(crate) span: Option<Open>,
}

impl Course {
    pub(crate) fn new(span: Option<Open>) -> Self {
        Self { span, ..Self::default() }
    }

    /// Notes that the execution of a keyed request begins.
    pub(super) fn begin(&self, attempt: u32) {
        self.attempt.store(attempt, Ordering::Relaxed);
        self.began.notify_one();
    }

    /// Notes that the upstreams answered, or failed, after `took`.
    pub(super) fn answered(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.upstream.store(micros.saturating_add(1), Ordering::Relaxed);
    }

    /// The number of the attempt; `None` when this request executes nothing.
    pub(crate) fn attempt(&self) -> Option<u32> {
        Some(self.attempt.load(Ordering::Relaxed)).filter(|number| *number > 0)
    }

    pub(crate) fn upstream(&self) -> Option<Duration> {
        let micros = self.upstream.load(Ordering::Relaxed).checked_sub(1);
        micros.map(Duration::from_micros)
    }

    /// Resolves when the execution begins.
    pub(crate) async fn began(&self) {
        self.began.notified().await;
    }
}
