//! The times that a user waits for. Run with `cargo bench -p oncekey-benches`.
//!
//! Calls that meet no disk are timed by the CPU clock of their thread, which a busy machine does not
//! stretch; calls that wait for the disk are timed by the wall clock.
//!
//! `ONCEKEY_BENCH_KEYS=0,1000000,10000000` says on how many live keys to measure (default
//! 0,1000000; a million takes 1.3 GB). Stores are made once and kept beside the build, in
//! `oncekey-bench-stores`. With `-- --test` everything is small.

mod calls;
mod durable;
mod store;
mod upkeep;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = calls::in_flight, calls::replay, calls::fingerprints,
        durable::pair, durable::complete, durable::begin, durable::replay,
        upkeep::sweep, upkeep::open
}
criterion_main!(benches);
