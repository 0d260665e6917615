//! Calls that wait for the disk, and calls whose time depends on the size of the store.

use std::cell::Cell;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use oncekey::{Begin, Engine, Options};
use oncekey_benches::drive;

use crate::calls::time_cpu;
use crate::store::{Store, claimed, fingerprint, kept, key, live_keys, numbered};

/// Records that stay alive from one run of the benches to the next.
const YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The kept store with `keys` live keys and responses of 1 KiB.
fn live(keys: u64) -> Engine {
    let dir = kept("live", keys, 1024, YEARS);
    Options::new().ttl(YEARS).accept_clock_jump(true).open(dir).expect("a kept store opens")
}

pub(crate) fn pair(c: &mut Criterion) {
    let mut group = c.benchmark_group("durable pair by callers, wall time");
    group.throughput(Throughput::Elements(1));
    for callers in [1, 16, 64, 256] {
        let store = Store::create("pair");
        let side = store.side();
        group.bench_function(BenchmarkId::from_parameter(callers), |bencher| {
            bencher.iter_custom(|pairs| {
                let start = Instant::now();
                drive::pairs(&side, callers, pairs).expect("fresh keys complete");
                start.elapsed()
            });
        });
    }
    group.finish();
}

pub(crate) fn complete(c: &mut Criterion) {
    let mut group = c.benchmark_group("complete by bytes of the response, wall time");
    for bytes in [100, 1 << 10, 16 << 10, 256 << 10] {
        let store = Store::create("complete");
        let (response, next) = (vec![7; bytes], Cell::new(0));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter_custom(|count| {
                let keys = (0..count).map(|_| numbered(next.replace(next.get() + 1)));
                let begins = keys.map(|key| store.engine().begin(&key, fingerprint(b"body")));
                let begins: Vec<_> = begins.collect();
                let claims: Vec<_> =
                    begins.into_iter().map(|begin| claimed(begin.wait())).collect();
                let start = Instant::now();
                for claim in claims {
                    claim.complete(&response).wait().expect("a claim completes");
                }
                start.elapsed()
            });
        });
    }
    group.finish();
}

pub(crate) fn begin(c: &mut Criterion) {
    let mut group = c.benchmark_group("begin of a new key by live keys, wall time");
    for keys in live_keys() {
        let engine = live(keys);
        let next = Cell::new(0);
        group.bench_function(BenchmarkId::from_parameter(keys), |bencher| {
            bencher.iter_custom(|count| {
                let mut spent = Duration::ZERO;
                for _ in 0..count {
                    let key = key(&format!("new-{}", next.replace(next.get() + 1)));
                    let fingerprint = fingerprint(b"body");
                    let start = Instant::now();
                    let claim = claimed(engine.begin(&key, fingerprint).wait());
                    spent += start.elapsed();
                    // The kept store stays as it was made.
                    claim.abort().wait().expect("a claim is aborted");
                }
                spent
            });
        });
        engine.close().expect("a healthy engine closes");
    }
    group.finish();
}

/// Keys in an order that no cache foresees.
pub(crate) fn replay(c: &mut Criterion) {
    let mut group = c.benchmark_group("replay 1 KiB of a uniform key by live keys, CPU time");
    for keys in live_keys().into_iter().filter(|keys| *keys > 0) {
        let engine = live(keys);
        let state = Cell::new(0x9e37_79b9_7f4a_7c15_u64);
        let input = || {
            // xorshift64
            let mut next = state.get();
            next ^= next << 13;
            next ^= next >> 7;
            next ^= next << 17;
            state.set(next);
            (numbered(next % keys), fingerprint(b"body"))
        };
        group.bench_function(BenchmarkId::from_parameter(keys), |bencher| {
            time_cpu(bencher, input, |(key, fingerprint)| {
                let begin = engine.begin(&key, fingerprint).wait();
                assert!(matches!(begin, Ok(Begin::Replay(_))), "{begin:?}");
                begin
            });
        });
        engine.close().expect("a healthy engine closes");
    }
    group.finish();
}
