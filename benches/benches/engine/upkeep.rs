//! Work that happens now and then: sweeps and opens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use oncekey::{Engine, Options};
use oncekey_benches::workdir::WorkDir;
use oncekey_testing::ManualClock;

use crate::store::{Store, copy, is_test, kept};

/// Records that the sweep finds.
fn expired() -> u64 {
    if is_test() { 5_000 } else { 1_000_000 }
}

/// Records in the journal when the process is killed: about half of what recent memory holds.
fn unfolded() -> u64 {
    if is_test() { 1_000 } else { 20_000 }
}

pub(crate) fn sweep(c: &mut Criterion) {
    let mut group = c.benchmark_group("sweep");
    group.sample_size(10).throughput(Throughput::Elements(expired()));
    let template = kept("expired", expired(), 100, Duration::from_secs(86_400));
    group.bench_function(format!("{} expired records, wall time", expired()), |bencher| {
        bencher.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for _ in 0..count {
                let dir = WorkDir::create("bench-sweep", None).expect("the build is writable");
                copy(&template, dir.path());
                let clock = ManualClock::new();
                // All records of the store have expired, whenever it was made.
                clock.advance(Duration::from_secs(100 * 365 * 86_400));
                let options = Options::new().clock(Arc::new(clock)).accept_clock_jump(true);
                let engine = options.open(dir.path()).expect("a copy opens");
                let start = Instant::now();
                let swept = engine.sweep().expect("a healthy engine sweeps");
                spent += start.elapsed();
                assert_eq!(swept, expired());
            }
            spent
        });
    });
    group.finish();
}

pub(crate) fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open, wall time");
    group.sample_size(10);
    let store = Store::create("open");
    store.fill(unfolded());
    store.engine().fold().expect("a healthy engine folds");
    store.fill(unfolded());
    let snapshot = |name| {
        let dir = WorkDir::create(name, None).expect("the build is writable");
        copy(store.path(), dir.path());
        dir
    };
    // `kill -9` leaves the files as they are at that moment.
    let killed = snapshot("bench-killed");
    group.bench_function("after kill -9", |bencher| {
        let copied = || {
            let dir = WorkDir::create("bench-reopen", None).expect("the build is writable");
            copy(killed.path(), dir.path());
            dir
        };
        let open = |dir: WorkDir| (Engine::open(dir.path()).expect("the store opens"), dir);
        bencher.iter_batched(copied, open, BatchSize::PerIteration);
    });
    store.engine().close().expect("a healthy engine closes");
    let closed = snapshot("bench-closed");
    group.bench_function("after close", |bencher| {
        bencher.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for _ in 0..count {
                let start = Instant::now();
                let engine = Engine::open(closed.path()).expect("the store opens");
                spent += start.elapsed();
                engine.close().expect("a healthy engine closes");
            }
            spent
        });
    });
    group.finish();
}
