//! A blocked Bloom filter: says of a hash "not in this run" or "maybe".
//!
//! Every hash sets 8 bits within one line of 512 bits, a cache line. Source: Putze, Sanders,
//! Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007. The lines divide the range of
//! hashes as the blocks of a run do. A filter is stored in pieces, so that loading it takes only
//! the memory of the filter and of one piece.
//!
//! A piece: checksum u64 | run u64 | piece u32 | lines of the whole filter u32 | lines × 64 bytes.

use crate::base::codec::{Decoder, Encode, checksum, seal};
use crate::base::error::{Error, Result};
use crate::semantics::key::KeyHash;

/// One line for 32 keys: 16 bits a key.
const KEYS_PER_LINE: u32 = 32;
const LINE_BYTES: usize = 64;
const PIECE_HEAD: usize = 24;
/// Lines of a full piece: 64 KiB.
const PIECE_LINES: u32 = 1024;
/// Keeps the checksums of pieces apart from those of other values.
const FILTER_SEED: u64 = 0x6669_6c74;

#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Line([u64; 8]);

#[derive(Debug)]
pub(crate) struct Filter {
    lines: Vec<Line>,
}

/// The share that `hash` is in, of `parts` equal shares of the range of hashes. Hashes are uniform.
pub(crate) fn part(hash: KeyHash, parts: u32) -> u32 {
    // Below 2^64 × 2^32: no overflow, and less than `parts` after the shift.
    (((hash.0 >> 64) * u128::from(parts)) >> 64) as u32
}

/// The places of 8 bits in a line: 7 from the low half of the hash, 1 from the low end of the high
/// half, whose high end chose the line.
fn bits(hash: KeyHash) -> [usize; 8] {
    let low = hash.0 as u64;
    std::array::from_fn(|index| match index {
        7 => (hash.0 >> 64) as usize % 512,
        _ => (low >> (9 * index)) as usize % 512,
    })
}

/// The lines that a filter of `entries` keys has.
pub(crate) fn lines_for(entries: u32) -> u32 {
    entries.div_ceil(KEYS_PER_LINE).max(1)
}

pub(crate) fn pieces(lines: u32) -> u32 {
    lines.div_ceil(PIECE_LINES)
}

/// The bytes of a stored piece.
pub(crate) fn piece_len(piece: u32, lines: u32) -> usize {
    PIECE_HEAD + lines_of_piece(piece, lines).len() * LINE_BYTES
}

/// The bytes of all stored pieces.
pub(crate) fn stored_len(lines: u32) -> u64 {
    u64::from(pieces(lines)) * PIECE_HEAD as u64 + u64::from(lines) * LINE_BYTES as u64
}

impl Filter {
    pub(crate) fn new(lines: u32) -> Self {
        Self { lines: vec![Line::default(); lines as usize] }
    }

    pub(crate) fn lines(&self) -> u32 {
        // Made from a `u32`.
        self.lines.len() as u32
    }

    pub(crate) fn insert(&mut self, hash: KeyHash) {
        let line = part(hash, self.lines());
        let Line(words) = &mut self.lines[line as usize];
        for bit in bits(hash) {
            words[bit / 64] |= 1 << (bit % 64);
        }
    }

    pub(crate) fn may_contain(&self, hash: KeyHash) -> bool {
        let Line(words) = &self.lines[part(hash, self.lines()) as usize];
        bits(hash).iter().all(|bit| words[bit / 64] & (1 << (bit % 64)) != 0)
    }

    /// Appends the stored form of a piece to `out`.
    pub(crate) fn encode_piece(&self, piece: u32, run: u64, seed: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u64(0);
        out.put_u64(run);
        out.put_u32(piece);
        out.put_u32(self.lines());
        for Line(words) in &self.lines[lines_of_piece(piece, self.lines())] {
            words.iter().for_each(|word| out.put_u64(*word));
        }
        seal(&mut out[start..], seed ^ FILTER_SEED);
    }

    /// Verifies a stored piece and adds its lines.
    pub(crate) fn decode_piece(
        &mut self,
        piece: u32,
        run: u64,
        seed: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let mut decoder = Decoder::new(bytes);
        if decoder.u64()? != checksum(seed ^ FILTER_SEED, &bytes[8..]) {
            return Err(Error::corrupted("a filter fails its checksum"));
        }
        if (decoder.u64()?, decoder.u32()?, decoder.u32()?) != (run, piece, self.lines()) {
            return Err(Error::corrupted("a piece of a filter is another's"));
        }
        let range = lines_of_piece(piece, self.lines());
        for Line(words) in &mut self.lines[range] {
            for word in words {
                *word = decoder.u64()?;
            }
        }
        decoder.finish()
    }
}

fn lines_of_piece(piece: u32, lines: u32) -> std::ops::Range<usize> {
    let start = piece.saturating_mul(PIECE_LINES).min(lines);
    start as usize..start.saturating_add(PIECE_LINES).min(lines) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::samples::Noise;

    #[test]
    fn no_false_negatives_and_few_false_positives() {
        let mut noise = Noise::new(3);
        for count in [1, 100, 50_000] {
            let inside: Vec<_> = (0..count).map(|_| noise.hash()).collect();
            let mut filter = Filter::new(lines_for(count));
            inside.iter().for_each(|hash| filter.insert(*hash));
            assert!(inside.iter().all(|hash| filter.may_contain(*hash)));
            let false_positives = (0..100_000).filter(|_| filter.may_contain(noise.hash())).count();
            assert!(false_positives < 1000, "{false_positives} of 100,000 at {count} keys");
        }
    }

    #[test]
    fn pieces_come_back_and_damage_is_noticed() {
        let mut noise = Noise::new(4);
        let hashes: Vec<_> = (0..80_000).map(|_| noise.hash()).collect();
        let mut filter = Filter::new(lines_for(80_000));
        hashes.iter().for_each(|hash| filter.insert(*hash));
        assert_eq!(pieces(filter.lines()), 3);

        let mut copy = Filter::new(filter.lines());
        let mut stored = 0;
        for piece in 0..pieces(filter.lines()) {
            let mut bytes = b"before".to_vec();
            filter.encode_piece(piece, 7, 42, &mut bytes);
            let bytes = bytes.split_off(6);
            assert_eq!(bytes.len(), piece_len(piece, filter.lines()));
            stored += bytes.len() as u64;
            copy.decode_piece(piece, 7, 42, &bytes).unwrap();
            assert!(copy.decode_piece(piece, 8, 42, &bytes).is_err());
            assert!(copy.decode_piece(piece + 1, 7, 42, &bytes).is_err());
            for _ in 0..100 {
                let mut altered = bytes.clone();
                let index = noise.next() as usize % altered.len();
                altered[index] ^= 1 << (noise.next() % 8);
                assert!(Filter::new(filter.lines()).decode_piece(piece, 7, 42, &altered).is_err());
                assert!(copy.decode_piece(piece, 7, 42, &bytes[..index]).is_err());
            }
        }
        assert_eq!(stored, stored_len(filter.lines()));
        assert!(hashes.iter().all(|hash| copy.may_contain(*hash)));
        assert!((0..1000).all(|_| {
            let hash = noise.hash();
            copy.may_contain(hash) == filter.may_contain(hash)
        }));
    }

    /// Stored filters contain these bits: other places are another format.
    #[test]
    fn the_bits_of_a_hash_are_where_they_always_were() {
        let low = (0..7).fold(0, |low, index| low | (index + 1) << (9 * index));
        assert_eq!(bits(KeyHash(0b1_0000_0011 << 64 | low)), [1, 2, 3, 4, 5, 6, 7, 259]);
    }
}
