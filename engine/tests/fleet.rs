//! Fleets: the suites that every backend passes, on the shared store in memory.
#![cfg(not(any(oncekey_loom, oncekey_shuttle)))]
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use oncekey::fleet::memory::SharedMemory;
use oncekey::fleet::{Options, open};
use oncekey::{Begin, Engine, ErrorKind, Fingerprint, Key};
use oncekey_testing::conformance::{Fleet, InMemory};

oncekey_testing::semantics!(Fleet<InMemory>);
oncekey_testing::waiting!(Fleet<InMemory>);
oncekey_testing::histories!(Fleet<InMemory>);
oncekey_testing::linearizability!(Fleet<InMemory>);

type Set<T> = fn(&mut Options, T);

const DURATIONS: [(&str, Set<Duration>); 6] = [
    ("ttl", |options, value| options.ttl = value),
    ("max_execution", |options, value| options.max_execution = Some(value)),
    ("overload_after", |options, value| options.overload_after = value),
    ("settle_for", |options, value| options.settle_for = value),
    ("upkeep_interval", |options, value| options.upkeep_interval = value),
    ("lease", |options, value| options.lease = value),
];

const SIZES: [(&str, Set<usize>); 8] = [
    ("max_response", |options, value| options.max_response = value),
    ("max_checkpoint", |options, value| options.max_checkpoint = value),
    ("max_in_flight", |options, value| options.max_in_flight = value),
    ("max_queue", |options, value| options.max_queue = value),
    ("max_waiters", |options, value| options.max_waiters = value),
    ("max_orphans", |options, value| options.max_orphans = value),
    ("max_store_bytes", |options, value| options.max_store_bytes = Some(value as u64)),
    ("replay_bytes", |options, value| options.replay_bytes = value),
];

#[test]
fn each_option_at_its_ends_works_or_is_refused_by_its_name() {
    let (mut opened, mut refused) = (0, 0);
    let mut try_out = |name: &str, value: String, options: Options| match open(
        Arc::new(SharedMemory::new()),
        options,
    ) {
        Ok(engine) => {
            opened += 1;
            works(&engine, &format!("{name} {value}"));
        }
        Err(error) => {
            refused += 1;
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name} {value}: {error}");
            let message = error.to_string();
            assert!(message.contains(name), "{name} {value}: {message}");
            let bound = message.contains("at least") || message.contains("at most");
            assert!(bound, "{name} {value}: {message}");
        }
    };
    for (name, set) in DURATIONS {
        for value in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let mut options = Options::default();
            set(&mut options, value);
            try_out(name, format!("{value:?}"), options);
        }
    }
    for (name, set) in SIZES {
        for value in [0, 1, usize::MAX - 1, usize::MAX] {
            let mut options = Options::default();
            set(&mut options, value);
            try_out(name, value.to_string(), options);
        }
    }
    println!("{opened} opened, {refused} refused");
    assert!(opened > 15 && refused > 15);
}

/// Claims, completes, waits as a duplicate, reopens and closes.
fn works(engine: &Engine, name: &str) {
    let key = Key::new("", "k").unwrap();
    let body = || Fingerprint::builder().part("body", "a").finish();
    let claim = match engine.begin(&key, body()).wait() {
        Ok(Begin::Claimed(claim)) => claim,
        other => panic!("{name}: a new key is claimed, not {other:?}"),
    };
    drop(engine.begin_waiting(&key, body(), Duration::from_millis(1)).wait());
    claim.complete(b"r").wait().unwrap_or_else(|failed| panic!("{name}: {failed}"));
    engine.reopen().unwrap_or_else(|error| panic!("{name}: {error}"));
    engine.close().unwrap_or_else(|error| panic!("{name}: {error}"));
}
