//! What the tests of the engine share: an engine on a simulated disk and a clock moved by hand.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

pub(crate) mod stalled;

use std::process::Command;
use std::sync::Arc;

use oncekey::{Engine, Options};
use oncekey_testing::{Begun, ManualClock, Model, SimDisk};
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

/// This test binary again, which runs the one test of this name, ignored or not.
pub(crate) fn this_test(name: &str) -> Command {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", name, "--include-ignored", "--nocapture"]);
    again
}

/// Opens a store that this test has closed. A child that another test starts has the lock, too, from
/// its fork until it runs its program.
pub(crate) fn reopened(open: impl Fn() -> oncekey::Result<Engine>) -> Engine {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        match open() {
            Err(error)
                if error.kind() == oncekey::ErrorKind::StoreInUse
                    && std::time::Instant::now() < until =>
            {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

/// One record that is folded, and one that is in the journal alone.
pub(crate) fn fold_one_of_two(engine: &Engine) {
    complete(engine, "folded", b"one");
    engine.fold().unwrap();
    complete(engine, "journalled", b"two");
}

/// The records of [`fold_one_of_two`] are replayed.
pub(crate) fn both_replay(engine: &Engine) {
    for (name, response) in [("folded", "one"), ("journalled", "two")] {
        assert_eq!(replay(engine, name).response(), Some(response.as_bytes()));
    }
}

/// The state that a restart leaves a key of the model in, and the number of its attempt or its response.
pub(crate) fn after_restart(model: &Model, key: u8) -> String {
    let mut probe = model.clone();
    probe.restart(probe.now);
    match probe.begin(key, 0) {
        Begun::Claimed(_) => "absent".into(),
        Begun::Orphaned(token) => format!("orphan {}", probe.take_over(key, token).unwrap().1 - 1),
        Begun::Replay(response) => format!("completed {}", response.unwrap()),
        other => panic!("the model holds {other:?} after a restart"),
    }
}
