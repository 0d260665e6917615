//! The decoders of the store for the fuzz targets. Built only with `--cfg fuzzing`.

use super::run::filter::Filter;
use super::run::{Block, Entry};
use super::schema::{RunMeta, StoreState};
use crate::base::bytes::SharedBytes;
use crate::base::codec::checksum;
use crate::semantics::record_codec;

/// Decodes the bytes as each kind of value, also with a correct checksum.
pub(crate) fn decode(bytes: &[u8]) {
    const SEED: u64 = 42;
    let seal_head = |seed| {
        let mut sealed = vec![0; 8];
        sealed.extend(bytes);
        let sum = checksum(seed, bytes);
        sealed[..8].copy_from_slice(&sum.to_le_bytes());
        sealed
    };
    let mut with_length = (bytes.len() as u32).to_le_bytes().to_vec();
    with_length.extend(bytes);
    let mut sealed = checksum(SEED, &with_length).to_le_bytes().to_vec();
    sealed.extend(with_length);
    for form in [bytes, &sealed] {
        drop(record_codec::decode(&SharedBytes::copy_of(form), SEED));
        record_codec::peek_key(form);
    }
    let meta = RunMeta {
        id: u64::from_le_bytes(std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(0))),
        bucket_end: 9,
        entries: 1,
        end: 4096,
        blocks: 1,
        lines: 1,
        level: 0,
    };
    for form in [bytes.to_vec(), seal_head(SEED)] {
        if let Ok(block) = Block::decode(form.clone(), &meta, 0, SEED) {
            // Random entries are not in order, so a lookup may miss one, but must not return
            // another.
            for Entry { hash, .. } in block.entries() {
                let found = block.find(hash, 1).map(|locator| Entry { hash, locator });
                assert!(found.is_none_or(|found| block.entries().any(|entry| entry == found)));
            }
        }
        drop(Filter::new(1).decode_piece(0, meta.id, SEED, &form));
    }
    drop(Filter::new(1).decode_piece(0, meta.id, SEED, &seal_head(SEED ^ 0x6669_6c74)));
    drop(RunMeta::decode(bytes, SEED, 1));
    drop(StoreState::decode(bytes));
}
