//! What the tests of the engine share: an engine on a simulated disk and a clock moved by hand.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

pub(crate) mod stalled;

use std::sync::Arc;

use oncekey::{Engine, Options};
use oncekey_testing::{ManualClock, SimDisk};
#[allow(unused_imports)]
pub(crate) use oncekey_testing::{Random, Seed, caller, calls::*, seeds};

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
