//! Completed records kept in memory: they do not change until they expire.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::semantics::key::{HashMap, KeyHash};
use crate::semantics::record::Record;

/// The newest completed records, within a budget of bytes.
pub(crate) struct Replays {
    records: HashMap<Arc<Record>>,
    order: VecDeque<(KeyHash, usize)>,
    bytes: usize,
    budget: usize,
}

impl Replays {
    pub(crate) fn new(budget: usize) -> Self {
        Self { records: HashMap::default(), order: VecDeque::new(), bytes: 0, budget }
    }

    pub(crate) fn get(&self, hash: KeyHash) -> Option<&Arc<Record>> {
        self.records.get(&hash)
    }

    pub(crate) fn keep(&mut self, hash: KeyHash, record: &Arc<Record>) {
        if self.records.insert(hash, record.clone()).is_some() {
            return;
        }
        let weight = record.weight();
        self.order.push_back((hash, weight));
        self.bytes += weight;
        while self.bytes > self.budget
            && let Some((oldest, weight)) = self.order.pop_front()
        {
            self.bytes -= weight;
            self.records.remove(&oldest);
        }
    }

    /// Its weight counts until its turn to go comes, so that `order` is bounded as well.
    pub(crate) fn forget(&mut self, hash: KeyHash) {
        self.records.remove(&hash);
    }

    /// Called when the store may have lost the records.
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.order.clear();
        self.bytes = 0;
    }
}
