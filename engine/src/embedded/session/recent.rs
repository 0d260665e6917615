//! The memory of the records that are journalled but not yet folded.

use crate::base::sync::atomic::{AtomicUsize, Ordering};

/// The bytes of recent records.
#[derive(Debug, Default)]
pub(crate) struct RecentSize {
    /// Of the records that changed since the last fold began.
    pub(crate) active: AtomicUsize,
    pub(crate) folding: AtomicUsize,
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

    pub(crate) fn rotate(&self) {
        self.folding.store(self.active.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(crate) fn evicted(&self) {
        self.folding.store(0, Ordering::Relaxed);
    }
}
