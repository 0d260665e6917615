//! What one call costs. Run with `cargo bench -p oncekey-benches`.
//!
//! Calls that meet no disk are timed by the CPU clock of their thread, which a busy machine does not
//! stretch; the durable pair is timed by the wall clock.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use oncekey::{Begin, Claim, Engine, Fingerprint, Key, Lookup, Result};
use oncekey_benches::drive;
use oncekey_benches::side::{Keys, Pairs, Side};
use oncekey_benches::usage::thread_cpu;

/// Calls between two looks at the CPU clock, which costs a system call.
const BATCH: u64 = 512;
/// Records in the store file.
const FOLDED: u64 = 50_000;

/// A store beside the build, not in a temporary directory that may lie in memory.
struct Store {
    engine: Option<Engine>,
    dir: PathBuf,
}

impl Store {
    fn create(name: &str) -> Self {
        let built_in = std::env::current_exe().expect("a bench has a path");
        let name = format!("oncekey-bench-{name}-{}", std::process::id());
        let dir = built_in.with_file_name(name);
        let engine = Engine::open(&dir).expect("a new store opens");
        Self { engine: Some(engine), dir }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("open until dropped")
    }

    fn fill(&self, pairs: u64) {
        let side = Side::engine(self.engine().clone(), 1024, &Keys::new());
        drive::pairs(&side, 256, pairs).expect("the store is writable");
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.engine = None;
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("{} could not be removed: {error}", self.dir.display());
        }
    }
}

fn fingerprint(body: &[u8]) -> Fingerprint {
    Fingerprint::builder()
        .part("method", "POST")
        .part("target", "/orders")
        .part("header content-type", "application/json")
        .part("body", body)
        .finish()
}

fn key(name: &str) -> Key {
    Key::new("tenant-0042", name).expect("a short key is valid")
}

fn claim(engine: &Engine, key: &Key) -> Claim {
    match engine.begin(key, fingerprint(b"body")).wait() {
        Ok(Begin::Claimed(claim)) => claim,
        other => panic!("a fresh key was not claimed: {other:?}"),
    }
}

fn complete(claim: Claim) {
    claim.complete(&[7; 1024]).wait().expect("a claim completes");
}

/// CPU time of `call` alone; its input is made and its output dropped outside.
fn time_cpu<I, O>(bencher: &mut Bencher<'_>, input: impl Fn() -> I, call: impl Fn(I) -> O) {
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

fn durable_pair(c: &mut Criterion) {
    let store = Store::create("pair");
    let side = Side::engine(store.engine().clone(), 1024, &Keys::new());
    c.bench_function("durable pair, 1 caller, wall time", |bencher| {
        bencher.iter(|| side.pair_blocking().expect("a fresh key completes"));
    });
}

fn in_flight(c: &mut Criterion) {
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

fn replay(c: &mut Criterion) {
    let store = Store::create("replay");
    let mut group = c.benchmark_group("replay 1 KiB, CPU time");
    let is_replay = |begin: &Begin| matches!(begin, Begin::Replay(_));
    let (folded, recent) = (key("folded"), key("recent"));

    complete(claim(store.engine(), &folded));
    store.fill(FOLDED);
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

fn fingerprints(c: &mut Criterion) {
    let mut group = c.benchmark_group("fingerprint");
    for (name, len) in [("1 KiB", 1 << 10), ("1 MiB", 1 << 20)] {
        let body = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |bencher| bencher.iter(|| fingerprint(black_box(&body))));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = in_flight, replay, fingerprints, durable_pair
}
criterion_main!(benches);
