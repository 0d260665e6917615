//! What the tests ask of an engine.

use std::time::Duration;

use oncekey::{Begin, Claim, Engine, Fingerprint, Key, Orphan};

/// No answer is that late, however slow the machine is.
pub const LONG: Duration = Duration::from_secs(60);

pub fn key(name: &str) -> Key {
    Key::new("", name).unwrap()
}

pub fn fingerprint() -> Fingerprint {
    Fingerprint::builder().part("body", "body").finish()
}

pub fn begin(engine: &Engine, name: &str) -> Begin {
    engine.begin_waiting(&key(name), fingerprint(), LONG).wait().unwrap()
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
