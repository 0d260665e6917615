//! Records that are journalled but not yet folded.

use std::sync::Arc;

use crate::base::sync::atomic::{AtomicUsize, Ordering};
use crate::semantics::record::{Record, State};

/// Bytes and orphans among the recent records.
#[derive(Debug, Default)]
pub(crate) struct RecentSize {
    pub(crate) active: AtomicUsize,
    pub(crate) folding: AtomicUsize,
    pub(crate) orphans_active: AtomicUsize,
    pub(crate) orphans_folding: AtomicUsize,
    /// Of records in flight and orphans alone.
    pub(crate) open_active: AtomicUsize,
    pub(crate) open_folding: AtomicUsize,
}

impl RecentSize {
    pub(crate) fn add(&self, record: Option<&Record>, replaced: Option<Arc<Record>>) {
        const ENTRY: usize = 64;
        let is_orphan = |record: &Record| matches!(record.state, State::Orphan { .. });
        let weight = record.map_or(0, Record::weight);
        self.active.fetch_add(ENTRY + weight, Ordering::Relaxed);
        if record.is_some_and(is_orphan) {
            self.orphans_active.fetch_add(1, Ordering::Relaxed);
        }
        if record.is_some_and(|record| record.attempt().is_some()) {
            self.open_active.fetch_add(weight, Ordering::Relaxed);
        }
        if let Some(replaced) = replaced {
            let weight = replaced.weight();
            self.active.fetch_sub(ENTRY + weight, Ordering::Relaxed);
            if is_orphan(&replaced) {
                self.orphans_active.fetch_sub(1, Ordering::Relaxed);
            }
            if replaced.attempt().is_some() {
                self.open_active.fetch_sub(weight, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn restored(&self, record: Option<&Record>) {
        self.add(record, None);
    }

    pub(crate) fn rotate(&self) {
        self.open_folding.store(self.open_active.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.folding.store(self.active.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.orphans_folding
            .store(self.orphans_active.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(crate) fn evicted(&self) {
        self.open_folding.store(0, Ordering::Relaxed);
        self.folding.store(0, Ordering::Relaxed);
        self.orphans_folding.store(0, Ordering::Relaxed);
    }
}
