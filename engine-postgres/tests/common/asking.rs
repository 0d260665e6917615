//! Begins that wait: the end of a claim at another engine, or of one that is dropped, may be on its way.

use std::time::Duration;

use oncekey::{Begin, Claim, Engine, Orphan};
pub use oncekey_testing::calls::{body, key};

/// No answer is that late, however slow the machine is.
pub const LONG: Duration = Duration::from_secs(60);

pub fn begin(engine: &Engine, name: &str) -> Begin {
    engine.begin_waiting(&key(name), body("a"), LONG).wait().unwrap()
}

pub fn claim(engine: &Engine, name: &str) -> Claim {
    match begin(engine, name) {
        Begin::Claimed(claim) => claim,
        other => panic!("{name}: {other:?}"),
    }
}

pub fn orphan(engine: &Engine, name: &str) -> Orphan {
    match begin(engine, name) {
        Begin::Orphaned(orphan) => orphan,
        other => panic!("{name}: {other:?}"),
    }
}

pub fn replay(engine: &Engine, name: &str) -> Vec<u8> {
    match begin(engine, name) {
        Begin::Replay(recorded) => recorded.response().unwrap().to_vec(),
        other => panic!("{name}: {other:?}"),
    }
}
