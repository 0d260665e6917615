//! Random sequences of calls. `ONCEKEY_SEEDS=17..18 cargo test -p oncekey-ffi --test calls` runs one of them again.
//! With `ONCEKEY_TEST_STORE=postgres` and the feature `postgres` they run on a database. The fuzz target in `fuzz/`
//! runs sequences of bytes that a fuzzer chooses.
#![allow(missing_docs)]

#[path = "support/calls.rs"]
mod calls;

use std::ops::Range;
use std::path::Path;

use oncekey_testing::postgres::{self, PostgresServer};

/// SplitMix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("ONCEKEY_SEEDS") else { return 0..60 };
    let (first, end) = text.split_once("..").expect("ONCEKEY_SEEDS is FIRST..END");
    first.parse().expect("a number")..end.parse().expect("a number")
}

/// Runs sequences on a store of their own. Where PostgreSQL is asked for and missing, it runs none.
fn on_a_store(run: impl FnOnce(&mut calls::World)) {
    if !postgres::is_chosen() {
        let directory = tempfile::tempdir().expect("a directory");
        return run(&mut calls::World::open(directory.path()));
    }
    let Some(server) = PostgresServer::of_this_process() else { return };
    run(&mut calls::World::open(Path::new(&server.url(&server.database()))));
}

#[test]
fn any_sequence_of_calls_is_answered() {
    on_a_store(|world| {
        for seed in seeds() {
            let mut state = seed;
            let len = random(&mut state) % 600;
            let bytes: Vec<u8> = (0..len).map(|_| random(&mut state) as u8).collect();
            println!("seed {seed}");
            world.run(&bytes);
        }
    });
}

/// The inputs that the fuzzer keeps, and each that once found a fault.
#[test]
fn the_corpus_of_the_fuzzer_is_answered() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/calls");
    let mut inputs: Vec<_> = std::fs::read_dir(corpus)
        .expect("the corpus")
        .map(|entry| entry.expect("an input").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty());
    on_a_store(|world| {
        for input in inputs {
            println!("input {}", input.display());
            world.run(&std::fs::read(&input).expect("an input"));
        }
    });
}
