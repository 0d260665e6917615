//! Completed records that were replayed from the store, kept for further retries.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};

use crate::semantics::key::{BuildHasher, KeyHash};
use crate::semantics::record::Record;

/// A bounded cache of the records that the store holds: publishing another record of a key removes
/// the cached one. One pass over many keys does not drive out hot records.
pub(crate) struct ReplayCache {
    records: Cache<KeyHash, Arc<Record>, Weight, BuildHasher>,
    keep_one_of: usize,
    offered: usize,
}

#[derive(Clone)]
struct Weight;

impl Weighter<KeyHash, Arc<Record>> for Weight {
    fn weight(&self, _: &KeyHash, record: &Arc<Record>) -> u64 {
        /// About the overhead of the cache and of the allocator.
        const ENTRY: usize = 64;
        (ENTRY + record.weight()) as u64
    }
}

impl ReplayCache {
    /// Takes about `bytes` of memory when it is full; a longer record is never kept. Admits one
    /// in `keep_one_of` offers: hot keys come again soon, cold ones cost nothing.
    pub(crate) fn new(bytes: usize, keep_one_of: usize) -> Self {
        /// About the size of a record with a response of 1 KiB.
        const USUAL: usize = 1536;
        let lifecycle = DefaultLifecycle::default();
        /// Room for this many items is allocated at once. The cache grows when more come.
        const MOST_ITEMS: usize = 1 << 16;
        let (items, hasher) = ((bytes / USUAL).min(MOST_ITEMS), BuildHasher::default());
        let records = Cache::with(items, bytes as u64, Weight, hasher, lifecycle);
        Self { records, keep_one_of, offered: 0 }
    }

    pub(crate) fn get(&self, hash: KeyHash) -> Option<Arc<Record>> {
        self.records.get(&hash).cloned()
    }

    pub(crate) fn offer(&mut self, hash: KeyHash, record: &Arc<Record>) {
        self.offered += 1;
        if self.offered.is_multiple_of(self.keep_one_of) {
            self.records.insert(hash, record.clone());
        }
    }

    pub(crate) fn forget(&mut self, hash: KeyHash) {
        self.records.remove(&hash);
    }
}

/// Keeps nothing.
impl Default for ReplayCache {
    fn default() -> Self {
        Self::new(0, 1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::bytes::SharedBytes;
    use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
    use crate::semantics::key::Key;
    use crate::semantics::record::{Completed, State};
    use crate::semantics::secret::Secret;
    use crate::semantics::time::Time;
    use crate::semantics::token::Token;

    fn record(response: usize) -> Arc<Record> {
        let fingerprint = Fingerprint::builder().finish();
        Arc::new(Record {
            key: Key::new("", "k").unwrap(),
            fingerprint: KeyedFingerprint::new(fingerprint, &Secret([1; Secret::LEN])).to_stored(),
            state: State::Completed(Completed {
                token: Token { incarnation: 1, epoch: 1, sequence: 1 },
                completed_at: Time(1),
                expires_at: Time(1).after(Duration::from_secs(1)),
                response: Some(SharedBytes::copy_of(&vec![0; response])),
            }),
        })
    }

    fn offer(replays: &mut ReplayCache, hash: KeyHash, record: &Arc<Record>) {
        (0..4).for_each(|_| replays.offer(hash, record));
    }

    #[test]
    fn what_is_kept_is_bounded_by_its_bytes() {
        let mut replays = ReplayCache::new(64 << 10, 4);
        for number in 0..10_000 {
            offer(&mut replays, KeyHash(number), &record(1024));
        }
        let kept = (0..10_000).filter(|number| replays.get(KeyHash(*number)).is_some()).count();
        assert!((20..=64).contains(&kept), "{kept}");
    }

    #[test]
    fn a_record_that_is_too_long_is_not_kept_and_drives_nothing_out() {
        let mut replays = ReplayCache::new(64 << 10, 4);
        offer(&mut replays, KeyHash(1), &record(1024));
        offer(&mut replays, KeyHash(2), &record(64 << 10));
        assert!(replays.get(KeyHash(1)).is_some());
        assert!(replays.get(KeyHash(2)).is_none());
    }

    #[test]
    fn one_of_so_many_offers_is_kept() {
        let mut replays = ReplayCache::new(64 << 10, 4);
        let record = record(1024);
        let mut kept = Vec::new();
        for number in 1..=12 {
            replays.offer(KeyHash(number), &record);
            kept.push(replays.get(KeyHash(number)).is_some());
        }
        let every_fourth: Vec<_> = (1..=12).map(|number| number % 4 == 0).collect();
        assert_eq!(kept, every_fourth);
    }

    #[test]
    fn without_memory_nothing_is_kept() {
        let mut replays = ReplayCache::default();
        offer(&mut replays, KeyHash(1), &record(0));
        assert!(replays.get(KeyHash(1)).is_none());
    }

    #[test]
    fn what_is_forgotten_is_gone() {
        let mut replays = ReplayCache::new(64 << 10, 4);
        offer(&mut replays, KeyHash(1), &record(1024));
        replays.forget(KeyHash(1));
        assert!(replays.get(KeyHash(1)).is_none());
    }
}
