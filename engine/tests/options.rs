//! Every option at its ends: what it is set to works, or is refused at open with its name.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use oncekey::{Begin, Engine, ErrorKind, Options};

type Set = Box<dyn Fn(Options) -> Options>;

fn durations(name: &'static str, set: fn(Options, Duration) -> Options) -> Vec<(String, Set)> {
    let values = [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(1), Duration::MAX];
    let case = |value| -> (String, Set) {
        (format!("{name} {value:?}"), Box::new(move |options| set(options, value)))
    };
    values.map(case).into()
}

fn sizes(name: &'static str, set: fn(Options, usize) -> Options) -> Vec<(String, Set)> {
    let case = |value| -> (String, Set) {
        (format!("{name} {value}"), Box::new(move |options| set(options, value)))
    };
    [0, 1, usize::MAX - 1, usize::MAX].map(case).into()
}

fn cases() -> Vec<(String, Set)> {
    [
        durations("ttl", Options::ttl),
        durations("max_execution", |options, value| options.max_execution(Some(value))),
        durations("overload_after", Options::overload_after),
        durations("sweep_interval", Options::sweep_interval),
        durations("max_clock_gap", Options::max_clock_gap),
        durations("lock_wait", Options::lock_wait),
        sizes("owner_note", |options, value| options.owner_note(vec![b'n'; value.min(1 << 20)])),
        sizes("max_response", Options::max_response),
        sizes("max_checkpoint", Options::max_checkpoint),
        sizes("max_in_flight", Options::max_in_flight),
        sizes("max_orphans", Options::max_orphans),
        sizes("max_queue", Options::max_queue),
        sizes("max_waiters", Options::max_waiters),
        sizes("max_store_bytes", |options, value| options.max_store_bytes(Some(value as u64))),
        sizes("max_open_files", Options::max_open_files),
        sizes("max_open_bytes", |options, value| options.max_open_bytes(value as u64)),
        sizes("backup_bytes_per_second", |options, value| {
            options.backup_bytes_per_second(Some(value as u64))
        }),
        sizes("recent_bytes", Options::recent_bytes),
        sizes("cache_bytes", Options::cache_bytes),
        sizes("segment_bytes", |options, value| options.segment_bytes(value as u64)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn each_option_at_its_ends_works_or_is_refused_by_its_name() {
    let (mut opened, mut refused) = (0, 0);
    for (name, set) in cases() {
        let sim = Sim::new();
        match set(sim.options()).open("/store") {
            Ok(engine) => {
                opened += 1;
                works(&engine, &name);
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}: {error}");
                let option = name.split(' ').next().unwrap();
                assert!(error.to_string().contains(option), "{name}: {error}");
                assert!(
                    error.to_string().contains("at least")
                        || error.to_string().contains("at most")
                        || error.to_string().contains("a multiple"),
                    "{name}: {error}"
                );
                assert!(sim.disk.files().is_empty(), "{name}: refused before anything happens");
            }
        }
    }
    println!("{opened} opened, {refused} refused");
    assert!(opened > 20 && refused > 15);
}

/// Each is in its range alone; the message names the other one too.
#[test]
fn options_that_contradict_each_other_are_refused_by_both_names() {
    for (options, told) in [
        (
            Options::new().max_response(16 << 20),
            "segment_bytes is 33554432, at least 33619968 is allowed with max_response 16777216 and max_checkpoint 65536",
        ),
        (
            Options::new().max_checkpoint(16 << 20),
            "segment_bytes is 33554432, at least 33619968 is allowed with max_response 1048576 and max_checkpoint 16777216",
        ),
        (
            Options::new().max_store_bytes(Some(100 << 20)),
            "max_store_bytes is 104857600, at least 134217728 is allowed with segment_bytes 33554432",
        ),
    ] {
        let error = options.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(told), "{error}");
    }
    // The bound that is named is one that is accepted.
    let sim = Sim::new();
    let engine = sim.options().max_response(16 << 20).segment_bytes(33_619_968);
    works(&engine.open("/store").unwrap(), "the least segment");
}

/// Claims, completes, waits as a duplicate, folds, sweeps, reopens and closes.
fn works(engine: &Engine, name: &str) {
    let Begin::Claimed(claim) = begin(engine, "k") else { panic!("{name}: a new key is claimed") };
    let duplicate = engine.begin_waiting(&key("k"), body("a"), Duration::from_millis(1));
    drop(duplicate.wait());
    claim.complete(b"r").wait().unwrap_or_else(|failed| panic!("{name}: {failed}"));
    engine.fold().unwrap_or_else(|error| panic!("{name}: {error}"));
    engine.sweep().unwrap_or_else(|error| panic!("{name}: {error}"));
    engine.reopen().unwrap_or_else(|error| panic!("{name}: {error}"));
    engine.close().unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[test]
fn a_wait_without_end_is_as_long_as_any() {
    let sim = Sim::new();
    let engine = sim.open();
    let owner = claim(&engine, "k");
    let waiting = engine.begin_waiting(&key("k"), body("a"), Duration::MAX);
    let waiting = waiting.wait_timeout(Duration::from_millis(1)).expect_err("the owner lives");
    owner.complete(b"r").wait().unwrap();
    let answered = waiting.wait_timeout(Duration::MAX).unwrap();
    assert!(matches!(answered, Ok(Begin::Replay(_))));
}

#[test]
fn a_completion_without_a_ttl_is_refused_and_gives_the_claim_back() {
    let sim = Sim::new();
    let engine = sim.open();
    for ttl in [Duration::ZERO, Duration::from_nanos(999_999)] {
        let failed = claim(&engine, "k").complete_with(Some(b"r"), Some(ttl)).wait().unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::InvalidInput);
        failed.into_handle().expect("the claim comes back").abort().wait().unwrap();
    }
    let owner = claim(&engine, "k");
    owner.complete_with(Some(b"r"), Some(Duration::MAX)).wait().unwrap();
    replay(&engine, "k");
}
