//! A cache of verified blocks.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::embedded::store::run::Block;
use crate::semantics::key::BuildHasher;

/// A bounded cache. A listed run never changes and its number is never used again, so a cached
/// block stays right. Blocks of removed runs are driven out in time.
#[derive(Debug)]
pub(crate) struct BlockCache(Cache<BlockId, Arc<Block>, Weight, BuildHasher>);

/// A run and the number of a block of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockId(pub(crate) u64, pub(crate) u32);

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
        /// About the overhead of the cache and of the allocator.
        const ENTRY: usize = 96;
        (ENTRY + block.bytes().len()) as u64
    }
}

impl BlockCache {
    /// Takes about `bytes` of memory when it is full.
    pub(crate) fn new(bytes: usize) -> Self {
        /// About the size of a block.
        const USUAL: usize = 3_500;
        /// Room for this many items is allocated at once. The cache grows when more come.
        const MOST_ITEMS: usize = 1 << 20;
        /// About the number of threads that use the cache at once.
        const SHARDS: usize = 16;
        let options = OptionsBuilder::new()
            .estimated_items_capacity((bytes / USUAL).min(MOST_ITEMS))
            .weight_capacity(bytes as u64)
            .shards(SHARDS)
            .build()
            .expect("both capacities are given");
        let hasher = BuildHasher::default();
        Self(Cache::with_options(options, Weight, hasher, DefaultLifecycle::default()))
    }

    pub(crate) fn get(&self, id: BlockId) -> Option<Arc<Block>> {
        self.0.get(&id)
    }

    pub(crate) fn insert(&self, id: BlockId, block: Arc<Block>) {
        self.0.insert(id, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::codec::{Encode, checksum};
    use crate::embedded::store::schema::RunMeta;

    /// A block with this many entries.
    fn block(run: u64, number: u32, entries: u32) -> Arc<Block> {
        let meta =
            RunMeta { id: run, bucket_end: 9, entries, end: 0, blocks: 9, lines: 1, level: 0 };
        let mut bytes = vec![0; 8];
        bytes.put_u64(run);
        bytes.put_u32(number);
        bytes.put_u32(9);
        bytes.put_u32(entries);
        bytes.resize(bytes.len() + entries as usize * 24, 7);
        let sum = checksum(1, &bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        Arc::new(Block::decode(bytes, &meta, number, 1).unwrap())
    }

    #[test]
    fn a_block_is_found_by_its_run_and_number() {
        let cache = BlockCache::new(1 << 20);
        for (run, number) in [(1, 2), (2, 1), (1, 1)] {
            cache.insert(BlockId(run, number), block(run, number, 1));
        }
        for (run, number) in [(1, 2), (2, 1), (1, 1)] {
            let found = cache.get(BlockId(run, number)).unwrap();
            assert_eq!(found.bytes(), block(run, number, 1).bytes());
        }
        assert!(cache.get(BlockId(2, 2)).is_none());
        assert!(cache.get(BlockId(1 << 32, 1)).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded_by_its_bytes() {
        let cache = BlockCache::new(1 << 20);
        for number in 0..3_000 {
            cache.insert(BlockId(1, number), block(1, number, 140));
        }
        let kept = (0..3_000).filter(|number| cache.get(BlockId(1, *number)).is_some()).count();
        assert!((150..=300).contains(&kept), "{kept}");
        let nothing = BlockCache::new(0);
        nothing.insert(BlockId(1, 1), block(1, 1, 140));
        assert!(nothing.get(BlockId(1, 1)).is_none());
    }
}
