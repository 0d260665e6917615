//! The state after a crash: a seed decides which unsynced changes survive.

use std::ops::Range;

use super::contents::{Contents, Page};

/// How a [`SimDisk`](super::SimDisk) stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// The power fails. Synced changes are there. Each unsynced change has its own fate, which
    /// `seed` decides: a write is lost, kept whole or torn into pieces of 1, 512 or 4096 bytes; a
    /// change of a length or of a directory is lost or kept. The same seed on the same state gives
    /// the same image.
    PowerLoss {
        /// Decides what is lost.
        seed: u64,
    },
    /// The power fails, and every unsynced change is lost.
    LoseAllUnsynced,
    /// The process is killed and the machine goes on. The image is the same disk with the unsynced
    /// changes, which a power loss of the image may still take.
    ProcessKill,
}

/// Decides about unsynced changes, one after another.
#[derive(Debug)]
pub(super) struct Fate {
    /// `None` loses everything.
    seeded: Option<Seeded>,
}

#[derive(Debug)]
struct Seeded {
    rng: oorandom::Rand64,
    lost: u64,
    kept: u64,
}

/// Of 16 writes, how many are lost and how many are kept whole; the others are torn. An image that
/// misses only one of many writes needs the uneven odds.
const ODDS: [(u64, u64); 5] = [(5, 5), (1, 14), (14, 1), (8, 8), (0, 8)];
const ODDS_OF: u64 = 16;

const TORN_UNITS: [u64; 3] = [1, 512, 4096];

impl Fate {
    pub(super) fn seeded(seed: u64) -> Self {
        let mut rng = oorandom::Rand64::new(u128::from(seed));
        let (lost, kept) = ODDS[rng.rand_range(0..ODDS.len() as u64) as usize];
        Self { seeded: Some(Seeded { rng, lost, kept }) }
    }

    pub(super) fn lose_all() -> Self {
        Self { seeded: None }
    }

    /// Whether a change that cannot be torn survives.
    pub(super) fn keeps(&mut self) -> bool {
        self.seeded.as_mut().is_some_and(Seeded::keeps)
    }

    /// Applies to `contents` the part of a write that survives.
    pub(super) fn write(&mut self, range: Range<u64>, pages: &[Page], contents: &mut Contents) {
        let Some(seeded) = &mut self.seeded else {
            return;
        };
        let roll = seeded.below(ODDS_OF);
        if roll < seeded.lost {
            // The length is a change of its own: it can survive without the bytes.
            if seeded.below(4) == 0 {
                contents.set_len(contents.len().max(range.end));
            }
        } else if roll < seeded.lost + seeded.kept {
            contents.put(range.clone(), range.start, pages);
        } else {
            seeded.tear(range, pages, contents);
        }
    }
}

impl Seeded {
    fn below(&mut self, end: u64) -> u64 {
        self.rng.rand_range(0..end)
    }

    fn keeps(&mut self) -> bool {
        let (lost, kept) = (self.lost, self.kept);
        // No change is kept always or lost always, whatever the odds for writes are.
        self.below(lost + kept + 2) < kept + 1
    }

    fn tear(&mut self, range: Range<u64>, pages: &[Page], contents: &mut Contents) {
        let unit = TORN_UNITS[self.below(TORN_UNITS.len() as u64) as usize];
        let cut = |at: u64| (at / unit * unit).clamp(range.start, range.end);
        let len = self.torn_len(&range, contents.len(), cut);
        contents.set_len(len);
        let mut keep = |part: Range<u64>| {
            let part = part.start..part.end.min(len);
            if !part.is_empty() {
                contents.put(part, range.start, pages);
            }
        };
        let scattered = self.below(2) == 0;
        if scattered && unit > 1 {
            let (mut at, mut bits) = (range.start, 0);
            for nth in 0.. {
                if at >= range.end {
                    break;
                }
                if nth % 64 == 0 {
                    bits = self.rng.rand_u64();
                }
                let end = (at / unit * unit + unit).min(range.end);
                if bits >> (nth % 64) & 1 == 1 {
                    keep(at..end);
                }
                at = end;
            }
        } else {
            let (one, other) = (self.within(&range), self.within(&range));
            // A beginning, an end or a piece out of the middle.
            keep(match self.below(3) {
                0 => range.start..cut(one),
                1 => cut(one)..range.end,
                _ => cut(one.min(other))..cut(one.max(other)),
            });
        }
    }

    /// The length of the file after a torn write that would make it longer.
    fn torn_len(&mut self, range: &Range<u64>, len: u64, cut: impl Fn(u64) -> u64) -> u64 {
        if range.end <= len {
            return len;
        }
        match self.below(3) {
            0 => len,
            1 => range.end,
            _ => len.max(cut(self.within(range))),
        }
    }

    fn within(&mut self, range: &Range<u64>) -> u64 {
        self.rng.rand_range(range.start..range.end + 1)
    }
}
