//! What the tests of the engine share: an engine on a simulated disk and a clock moved by hand.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

pub(crate) mod caller;
pub(crate) mod stalled;

use std::sync::Arc;
use std::time::Duration;

use oncekey::{Begin, Claim, Engine, Error, Fingerprint, Key, Options, Orphan, Recorded};
use oncekey_testing::{ManualClock, SimDisk};

pub(crate) const TTL: Duration = Duration::from_secs(60);

pub(crate) struct Sim {
    pub(crate) disk: SimDisk,
    pub(crate) clock: ManualClock,
}

impl Sim {
    pub(crate) fn new() -> Self {
        Self { disk: SimDisk::new(), clock: ManualClock::new() }
    }

    /// Small buffers and segments, so that folds and recycling happen early.
    pub(crate) fn options(&self) -> Options {
        Options::new()
            .ttl(TTL)
            .max_response(4096)
            .max_checkpoint(1024)
            .segment_bytes(128 << 10)
            .recent_bytes(64 << 10)
            .disk(Arc::new(self.disk.clone()))
            .clock(Arc::new(self.clock.clone()))
    }

    pub(crate) fn open(&self) -> Engine {
        self.options().open("/store").unwrap()
    }

    /// The same clock, the disk as it is in `image`.
    pub(crate) fn on(&self, image: SimDisk) -> Self {
        Self { disk: image, clock: self.clock.clone() }
    }
}

pub(crate) fn key(name: impl AsRef<[u8]>) -> Key {
    Key::new("scope", name).unwrap()
}

pub(crate) fn body(body: impl AsRef<[u8]>) -> Fingerprint {
    Fingerprint::builder().part("method", "POST").part("body", body).finish()
}

pub(crate) fn begin(engine: &Engine, name: &str) -> Begin {
    engine.begin(&key(name), body("a")).wait().unwrap()
}

pub(crate) fn claim(engine: &Engine, name: &str) -> Claim {
    match begin(engine, name) {
        Begin::Claimed(claim) => claim,
        other => panic!("claimed, not {other:?}"),
    }
}

pub(crate) fn orphan(engine: &Engine, name: &str) -> Orphan {
    match begin(engine, name) {
        Begin::Orphaned(orphan) => orphan,
        other => panic!("orphaned, not {other:?}"),
    }
}

/// The bytes of a checkpoint that was saved.
pub(crate) fn checkpoint(read: oncekey::Result<Option<oncekey::SharedBytes>>) -> Vec<u8> {
    read.unwrap().unwrap().to_vec()
}

pub(crate) fn replay(engine: &Engine, name: &str) -> Recorded {
    match begin(engine, name) {
        Begin::Replay(recorded) => recorded,
        other => panic!("replayed, not {other:?}"),
    }
}

pub(crate) fn complete(engine: &Engine, name: &str, response: &[u8]) {
    claim(engine, name).complete(response).wait().unwrap();
}

pub(crate) fn locked(engine: &Engine, name: &str) {
    let begin = begin(engine, name);
    assert!(matches!(begin, Begin::Locked(_)), "locked, not {begin:?}");
}

pub(crate) fn begin_error(engine: &Engine, name: &str) -> Error {
    engine.begin(&key(name), body("a")).wait().unwrap_err()
}

/// All that is random in a test: a tape of bytes, then a linear congruential generator by its seed.
pub(crate) struct Random {
    state: u64,
    tape: std::vec::IntoIter<u8>,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self { state: seed, tape: Vec::new().into_iter() };
        random.below(1);
        random
    }

    /// What a fuzzer decides.
    pub(crate) fn taped(tape: Vec<u8>) -> Self {
        Self { state: 0, tape: tape.into_iter() }
    }

    pub(crate) fn is_taped(&self) -> bool {
        self.tape.len() > 0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
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

/// The seeds to run: `default`, or what `ONCEKEY_SEEDS` says.
pub(crate) fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(given) = std::env::var("ONCEKEY_SEEDS") else { return default };
    let (start, end) = given.split_once("..").expect("ONCEKEY_SEEDS is like 0..1000");
    start.parse().unwrap()..end.parse().unwrap()
}

/// Names the seed of a failure.
pub(crate) struct Seed(pub(crate) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay this failure with ONCEKEY_SEEDS={}..{}", self.0, self.0 + 1);
        }
    }
}
