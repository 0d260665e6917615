//! Verified blocks that were read, kept for the lookups to come.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::run::Block;
use crate::key::BuildHasher;

/// A bounded cache. A run never changes and its number is never used again, so neither does what is
/// held of it; blocks of runs that are gone are driven out in time.
#[derive(Debug)]
pub(super) struct BlockCache(Cache<BlockId, Arc<Block>, Weight, BuildHasher>);

/// A run and the number of a block of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockId(pub(super) u64, pub(super) u32);

impl Hash for BlockId {
    /// The last step of splitmix64, which spreads neighbours.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut word = self.0.rotate_left(32) ^ u64::from(self.1);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state.write_u64(word ^ (word >> 31));
    }
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<BlockId, Arc<Block>> for Weight {
    fn weight(&self, _: &BlockId, block: &Arc<Block>) -> u64 {
        /// What the cache and the allocator add, about.
        const ENTRY: usize = 96;
        (ENTRY + block.weight()) as u64
    }
}

impl BlockCache {
    /// Takes about `bytes` of memory when it is full.
    pub(super) fn new(bytes: usize) -> Self {
        /// About what a block takes.
        const USUAL: usize = 3_500;
        /// Looked into by so many threads at once, more or less.
        const SHARDS: usize = 16;
        let options = OptionsBuilder::new()
            .estimated_items_capacity(bytes / USUAL)
            .weight_capacity(bytes as u64)
            .shards(SHARDS)
            .build()
            .expect("both capacities are given");
        let hasher = BuildHasher::default();
        Self(Cache::with_options(options, Weight, hasher, DefaultLifecycle::default()))
    }

    pub(super) fn get(&self, id: BlockId) -> Option<Arc<Block>> {
        self.0.get(&id)
    }

    pub(super) fn insert(&self, id: BlockId, block: Arc<Block>) {
        self.0.insert(id, block);
    }
}
