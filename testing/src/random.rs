//! Randomness of tests: seeds that a failure names, and that an environment variable chooses.
#![allow(clippy::unwrap_used)]

/// The random choices of a test: first from a tape of bytes, then from a linear congruential
/// generator with a seed.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    tape: std::vec::IntoIter<u8>,
}

impl Random {
    /// Choices from the generator with this seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Self { state: seed, tape: Vec::new().into_iter() };
        random.below(1);
        random
    }

    /// Choices from the bytes of a fuzzer.
    pub fn taped(tape: Vec<u8>) -> Self {
        Self { state: 0, tape: tape.into_iter() }
    }

    /// Whether bytes of the tape are left.
    pub fn is_taped(&self) -> bool {
        self.tape.len() > 0
    }

    /// A number less than `limit`, from 0 on.
    pub fn below(&mut self, limit: u64) -> u64 {
        if let Some(byte) = self.tape.next() {
            let more = if limit > 256 { self.tape.next().unwrap_or(0) } else { 0 };
            return (u64::from(byte) | u64::from(more) << 8) % limit;
        }
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % limit
    }
}

/// The seeds to run: the range in `ONCEKEY_SEEDS`, or `default` without the variable.
///
/// # Panics
/// When the variable is no range.
pub fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(given) = std::env::var("ONCEKEY_SEEDS") else { return default };
    let (start, end) = given.split_once("..").expect("ONCEKEY_SEEDS is like 0..1000");
    start.parse().unwrap()..end.parse().unwrap()
}

/// Prints the seed when the test fails.
#[derive(Debug)]
pub struct Seed(pub u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay this failure with ONCEKEY_SEEDS={}..{}", self.0, self.0 + 1);
        }
    }
}
