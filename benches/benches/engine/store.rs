//! The stores that are measured.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oncekey::{Begin, Claim, Engine, Fingerprint, Key, Options};
use oncekey_benches::drive;
use oncekey_benches::side::{Keys, Side};
use oncekey_benches::workdir::WorkDir;

/// Keys that are begun or completed at a time when a store is filled.
const BATCH: u64 = 512;

/// Whether everything runs once, to see that it does.
pub(crate) fn is_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// On how many live keys to measure.
pub(crate) fn live_keys() -> Vec<u64> {
    if is_test() {
        return vec![0, 5_000];
    }
    let list = std::env::var("ONCEKEY_BENCH_KEYS").unwrap_or_else(|_| "0,1000000".to_owned());
    list.split(',').map(|keys| keys.trim().parse().expect("a list of numbers")).collect()
}

/// A new store, removed at the end, beside the build: a temporary directory may lie in memory.
pub(crate) struct Store {
    engine: Option<Engine>,
    dir: WorkDir,
}

impl Store {
    pub(crate) fn create(name: &str) -> Self {
        let dir = WorkDir::create(&format!("bench-{name}"), None).expect("the build is writable");
        let engine = Engine::open(dir.path()).expect("a new store opens");
        Self { engine: Some(engine), dir }
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("open until dropped")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn side(&self) -> Side {
        Side::engine(self.engine().clone(), 1024, &Keys::new())
    }

    pub(crate) fn fill(&self, pairs: u64) {
        drive::pairs(&self.side(), 256, pairs).expect("the store is writable");
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Before its directory is removed.
        self.engine = None;
    }
}

/// The closed store of `records` completed ones, numbered from 0, made unless it is there. They
/// expire after `ttl`.
pub(crate) fn kept(name: &str, records: u64, response: usize, ttl: Duration) -> PathBuf {
    let built_in = std::env::current_exe().expect("a bench has a path");
    let stores = built_in.with_file_name("oncekey-bench-stores");
    let dir = stores.join(format!("{name}-{records}"));
    if dir.exists() {
        return dir;
    }
    let unfinished = stores.join(format!("{name}-{records}.unfinished"));
    std::fs::remove_dir_all(&unfinished).ok();
    std::fs::create_dir_all(&stores).expect("the build is writable");
    let engine = Options::new().ttl(ttl).open(&unfinished).expect("a new store opens");
    let response = vec![7; response];
    for start in (0..records).step_by(BATCH as usize) {
        let keys = (start..records.min(start + BATCH)).map(numbered);
        let begins: Vec<_> = keys.map(|key| engine.begin(&key, fingerprint(b"body"))).collect();
        let claims: Vec<_> = begins.into_iter().map(|begin| claimed(begin.wait())).collect();
        let ends: Vec<_> = claims.into_iter().map(|claim| claim.complete(&response)).collect();
        for end in ends {
            end.wait().expect("a claim completes");
        }
        if start % (BATCH * 256) == 0 {
            eprintln!("{name}: {start} of {records} records");
        }
    }
    engine.sweep().expect("merges end");
    engine.close().expect("a healthy engine closes");
    drop(engine);
    std::fs::rename(&unfinished, &dir).expect("the build is writable");
    dir
}

/// Copies the files of a store.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the build is writable");
    for file in std::fs::read_dir(from).expect("a store is a directory") {
        let file = file.expect("a store is readable");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("there is space");
    }
}

pub(crate) fn fingerprint(body: &[u8]) -> Fingerprint {
    Fingerprint::builder()
        .part("method", "POST")
        .part("target", "/orders")
        .part("header content-type", "application/json")
        .part("body", body)
        .finish()
}

pub(crate) fn key(name: &str) -> Key {
    Key::new("tenant-0042", name).expect("a short key is valid")
}

pub(crate) fn numbered(number: u64) -> Key {
    key(&format!("{number:036}"))
}

pub(crate) fn claim(engine: &Engine, key: &Key) -> Claim {
    claimed(engine.begin(key, fingerprint(b"body")).wait())
}

pub(crate) fn claimed(begin: oncekey::Result<Begin>) -> Claim {
    match begin {
        Ok(Begin::Claimed(claim)) => claim,
        other => panic!("a fresh key was not claimed: {other:?}"),
    }
}

pub(crate) fn complete(claim: Claim) {
    claim.complete(&[7; 1024]).wait().expect("a claim completes");
}
