//! Calls for tests that expect one certain answer.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use oncekey::{Begin, Claim, Engine, Error, Fingerprint, Key, Orphan, Pending, Recorded};

/// The TTL of the engines that tests open.
pub const TTL: Duration = Duration::from_secs(60);

pub fn key(name: impl AsRef<[u8]>) -> Key {
    Key::new("scope", name).unwrap()
}

pub fn body(body: impl AsRef<[u8]>) -> Fingerprint {
    Fingerprint::builder().part("method", "POST").part("body", body).finish()
}

pub fn begin(engine: &Engine, name: &str) -> Begin {
    engine.begin(&key(name), body("a")).wait().unwrap()
}

pub fn claim(engine: &Engine, name: &str) -> Claim {
    match begin(engine, name) {
        Begin::Claimed(claim) => claim,
        other => panic!("claimed, not {other:?}"),
    }
}

pub fn orphan(engine: &Engine, name: &str) -> Orphan {
    match begin(engine, name) {
        Begin::Orphaned(orphan) => orphan,
        other => panic!("orphaned, not {other:?}"),
    }
}

/// The bytes of a checkpoint that exists.
pub fn checkpoint(read: oncekey::Result<Option<oncekey::SharedBytes>>) -> Vec<u8> {
    read.unwrap().unwrap().to_vec()
}

pub fn replay(engine: &Engine, name: &str) -> Recorded {
    match begin(engine, name) {
        Begin::Replay(recorded) => recorded,
        other => panic!("replayed, not {other:?}"),
    }
}

pub fn complete(engine: &Engine, name: &str, response: &[u8]) {
    claim(engine, name).complete(response).wait().unwrap();
}

pub fn locked(engine: &Engine, name: &str) {
    let begin = begin(engine, name);
    assert!(matches!(begin, Begin::Locked(_)), "locked, not {begin:?}");
}

pub fn begin_error(engine: &Engine, name: &str) -> Error {
    engine.begin(&key(name), body("a")).wait().unwrap_err()
}

pub fn submit(engine: &Engine, name: &str) -> Pending<Begin> {
    engine.begin(&key(name), body("a"))
}

/// A begin that waits for an owner without a limit that a test reaches.
pub fn wait_for(engine: &Engine, name: &str) -> Pending<Begin> {
    engine.begin_waiting(&key(name), body("a"), Duration::from_secs(600))
}

/// Checks for a moment that no answer comes.
pub fn unanswered<T, E: From<Error>>(pending: Pending<T, E>) -> Pending<T, E> {
    match pending.wait_timeout(Duration::from_millis(20)) {
        Err(pending) => pending,
        Ok(_) => panic!("answered already"),
    }
}
