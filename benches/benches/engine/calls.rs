//! Calls that meet no disk.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Bencher, Criterion, Throughput};
use oncekey::{Begin, Engine, Key, Lookup, Result};
use oncekey_benches::usage::thread_cpu;

use crate::store::{Store, claim, complete, fingerprint, is_test, key};

/// Calls between two looks at the CPU clock, which costs a system call.
const BATCH: u64 = 512;

/// Records in the store file.
fn folded_records() -> u64 {
    if is_test() { 1_000 } else { 50_000 }
}

/// CPU time of `call` alone; its input is made and its output dropped outside.
pub(crate) fn time_cpu<I, O>(
    bencher: &mut Bencher<'_>,
    input: impl Fn() -> I,
    call: impl Fn(I) -> O,
) {
    bencher.iter_custom(|iterations| {
        let mut spent = Duration::ZERO;
        let mut left = iterations;
        while left > 0 {
            let inputs: Vec<I> = (0..left.min(BATCH)).map(|_| input()).collect();
            left -= inputs.len() as u64;
            let mut outputs = Vec::with_capacity(inputs.len());
            let start = thread_cpu();
            outputs.extend(inputs.into_iter().map(&call));
            spent += thread_cpu() - start;
            black_box(outputs);
        }
        spent
    });
}

fn time_begin(
    bencher: &mut Bencher<'_>,
    engine: &Engine,
    key: &Key,
    body: &[u8],
    expected: fn(&Begin) -> bool,
) {
    let fingerprint = fingerprint(body);
    let call = |fingerprint| -> Result<Begin> {
        let begin = engine.begin(key, fingerprint).wait();
        assert!(begin.as_ref().is_ok_and(expected), "{begin:?}");
        begin
    };
    time_cpu(bencher, || fingerprint.clone(), call);
}

pub(crate) fn in_flight(c: &mut Criterion) {
    let store = Store::create("in-flight");
    let key = key("held");
    let claim = claim(store.engine(), &key);
    let mut group = c.benchmark_group("begin in flight, CPU time");
    group.bench_function("locked", |bencher| {
        time_begin(bencher, store.engine(), &key, b"body", |begin| {
            matches!(begin, Begin::Locked(_))
        });
    });
    group.bench_function("mismatch", |bencher| {
        time_begin(bencher, store.engine(), &key, b"other", |begin| {
            matches!(begin, Begin::Mismatch(_))
        });
    });
    group.finish();
    complete(claim);
}

pub(crate) fn replay(c: &mut Criterion) {
    let store = Store::create("replay");
    let mut group = c.benchmark_group("replay 1 KiB, CPU time");
    let is_replay = |begin: &Begin| matches!(begin, Begin::Replay(_));
    let (folded, recent) = (key("folded"), key("recent"));

    complete(claim(store.engine(), &folded));
    store.fill(folded_records());
    store.engine().fold().expect("a healthy engine folds");
    store.engine().sweep().expect("a healthy engine sweeps");
    group.bench_function("folded, page cache warm", |bencher| {
        time_begin(bencher, store.engine(), &folded, b"body", is_replay);
    });

    complete(claim(store.engine(), &recent));
    group.bench_function("recent", |bencher| {
        time_begin(bencher, store.engine(), &recent, b"body", is_replay);
    });
    group.finish();

    c.bench_function("get of an absent key, CPU time", |bencher| {
        let keys: Vec<_> = (0..1024).map(|number| self::key(&format!("absent-{number}"))).collect();
        let next = std::cell::Cell::new(0);
        let input = || {
            next.set((next.get() + 1) % keys.len());
            &keys[next.get()]
        };
        time_cpu(bencher, input, |key| {
            let lookup = store.engine().get(key);
            assert!(matches!(lookup, Ok(Lookup::Absent)), "{lookup:?}");
        });
    });
}

pub(crate) fn fingerprints(c: &mut Criterion) {
    let mut group = c.benchmark_group("fingerprint");
    for (name, len) in [("1 KiB", 1 << 10), ("1 MiB", 1 << 20)] {
        let body = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |bencher| bencher.iter(|| fingerprint(black_box(&body))));
    }
    group.finish();
}
