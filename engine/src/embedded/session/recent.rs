//! The memory of the records that are journalled but not yet folded.

use crate::base::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::embedded::options::Options;

/// The bytes of recent records.
#[derive(Debug, Default)]
pub(crate) struct RecentSize {
    /// Of the records that changed since the last fold began.
    pub(crate) active: AtomicUsize,
    pub(crate) folding: AtomicUsize,
    /// The bytes of the journal since the last fold began. Many small groups fill segments long
    /// before they fill memory.
    pub(crate) journal: AtomicU64,
}

/// The memory of a record beside its weight.
const ENTRY: usize = 64;

impl RecentSize {
    pub(crate) fn add(&self, weight: usize) {
        self.active.fetch_add(ENTRY + weight, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, weight: usize) {
        self.active.fetch_sub(ENTRY + weight, Ordering::Relaxed);
    }

    /// The share of the next fold that has gathered: from 1 on a fold is due.
    pub(crate) fn gathered(&self, options: &Options) -> f64 {
        let memory = self.active.load(Ordering::Relaxed) as f64;
        let journal = self.journal.load(Ordering::Relaxed) as f64;
        let half = (options.recent_bytes / 2) as f64;
        (memory / half).max(journal / (2.0 * options.segment_bytes as f64))
    }

    pub(crate) fn rotate(&self) {
        self.journal.store(0, Ordering::Relaxed);
        self.folding.store(self.active.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(crate) fn evicted(&self) {
        self.folding.store(0, Ordering::Relaxed);
    }
}
