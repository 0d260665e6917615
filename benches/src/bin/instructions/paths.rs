//! The hot paths. Each is a function that prepares, then runs its operations unless told to leave
//! them out.

use std::hint::black_box;
use std::path::Path as Dir;

use oncekey::{Begin, Fingerprint, Key, Lookup};
use oncekey_benches::Result;

use crate::callgrind::{self, Thread};
use crate::layer;
use crate::stores::{FOLDED, Store, Template, UNFOLDED, claimed, fingerprint, fingerprint_of, key};

/// Operations of most paths: enough that one more or less does not show.
pub(crate) const MANY: u64 = 500;
/// Lookups of absent keys: filters pass a few by chance, and those cost much.
const LOOKUPS: u64 = 40_000;
/// The first number of keys that no store was prepared with.
const FRESH: u64 = 1_000_000;

/// A hot path.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    pub(crate) store: Template,
    /// Whose instructions say something. A caller that waits for a fold does nothing itself.
    pub(crate) threads: &'static [Thread],
    pub(crate) operations: u64,
    run: fn(&Dir, bool) -> Result<()>,
}

const CALLER: &[Thread] = &[Thread::Caller];
const BOTH: &[Thread] = &[Thread::Caller, Thread::Engine];
const ENGINE: &[Thread] = &[Thread::Engine];

#[rustfmt::skip]
pub(crate) const PATHS: &[Path] = &[
    path("fingerprint of a request with 1 KiB", Template::Empty, CALLER, MANY, fingerprints),
    path("begin of a new key, empty store", Template::Empty, BOTH, MANY, begin_one_by_one),
    path("begin of a new key, folded store", Template::Folded, BOTH, MANY, begin_one_by_one),
    path("begin of a new key, group of 250", Template::Empty, BOTH, 2 * MANY, begin_in_groups),
    path("complete with 1 KiB", Template::Empty, BOTH, MANY, complete_one_by_one),
    path("complete with 1 KiB, group of 250", Template::Empty, BOTH, 2 * MANY, complete_in_groups),
    path("replay, recent", Template::Empty, CALLER, MANY, replay_recent),
    path("replay, folded", Template::Folded, CALLER, MANY, replay_folded),
    path("lookup of an absent key, folded store", Template::Folded, CALLER, LOOKUPS, absent),
    path("locked", Template::Empty, CALLER, MANY, locked),
    path("mismatch", Template::Empty, CALLER, MANY, mismatch),
    path("request without a key, through the layer", Template::Empty, CALLER, MANY, layer::no_key),
    path("request with a new key, through the layer", Template::Empty, CALLER, MANY, layer::new_keys),
    path("request that is replayed, through the layer", Template::Empty, CALLER, MANY, layer::replays),
    path("fold, for each record", Template::Empty, ENGINE, 4 * MANY, fold),
    path("open after a kill, for each record", Template::Unfolded, CALLER, UNFOLDED, recover),
];

const fn path(
    name: &'static str,
    store: Template,
    threads: &'static [Thread],
    operations: u64,
    run: fn(&Dir, bool) -> Result<()>,
) -> Path {
    Path { name, store, threads, operations, run }
}

/// Runs a path on the store in `dir`, which is not closed: the process is about to end.
pub(crate) fn run(name: &str, dir: &Dir, operations: bool) -> Result<()> {
    let path = PATHS.iter().find(|path| path.name == name).ok_or("there is no such path")?;
    (path.run)(dir, operations)?;
    // Claims and engine stay as they are: their end is not what is counted.
    std::process::exit(0)
}

/// Opens the store and waits until the folder has nothing more to do.
pub(crate) fn open(dir: &Dir) -> Result<Store> {
    let store = Store::open(dir)?;
    store.engine.sweep()?;
    Ok(store)
}

/// Runs `run` as what is counted, unless it is to be left out.
pub(crate) fn count(operations: bool, mut run: impl FnMut() -> Result<()>) -> Result<()> {
    if operations { callgrind::operations(&mut run) } else { Ok(()) }
}

fn fingerprints(_: &Dir, operations: bool) -> Result<()> {
    let body = vec![0x5a; 1024];
    count(operations, || {
        for _ in 0..MANY {
            black_box(fingerprint_of(black_box(&body)));
        }
        Ok(())
    })
}

fn begin_one_by_one(dir: &Dir, operations: bool) -> Result<()> {
    let store = open(dir)?;
    let mut claims = store.claim_in_groups(vec![(key(0x5eed), fingerprint())])?;
    let mut inputs = fresh(MANY);
    claims.reserve(inputs.len());
    count(operations, || {
        for (key, fingerprint) in inputs.drain(..) {
            claims.push(claimed(store.engine.begin(&key, fingerprint).wait()?)?);
        }
        Ok(())
    })?;
    leave((store, claims, inputs))
}

fn begin_in_groups(dir: &Dir, operations: bool) -> Result<()> {
    let store = open(dir)?;
    let mut inputs = fresh(2 * MANY);
    count(operations, || leave(store.claim_in_groups(std::mem::take(&mut inputs))?))?;
    leave((store, inputs))
}

fn complete_one_by_one(dir: &Dir, operations: bool) -> Result<()> {
    let store = open(dir)?;
    let mut claims = store.claim_in_groups(fresh(MANY))?;
    count(operations, || {
        for claim in claims.drain(..) {
            claim.complete(&[7; 1024]).wait().map_err(oncekey::Error::from)?;
        }
        Ok(())
    })?;
    leave((store, claims))
}

fn complete_in_groups(dir: &Dir, operations: bool) -> Result<()> {
    let store = open(dir)?;
    let mut claims = store.claim_in_groups(fresh(2 * MANY))?;
    count(operations, || store.complete_in_groups(std::mem::take(&mut claims)))?;
    leave((store, claims))
}

fn replay_recent(dir: &Dir, operations: bool) -> Result<()> {
    let store = open(dir)?;
    store.complete_in_groups(store.claim_in_groups(fresh(MANY))?)?;
    let inputs = fresh(MANY);
    count(operations, || begins(&store, &inputs, |begin| matches!(begin, Begin::Replay(_))))?;
    leave(store)
}

fn replay_folded(dir: &Dir, operations: bool) -> Result<()> {
    let store = open(dir)?;
    let inputs: Vec<_> =
        (0..MANY).map(|number| (key(number * (FOLDED / MANY)), fingerprint())).collect();
    // The pages are in the cache when the operations start.
    begins(&store, &inputs, |begin| matches!(begin, Begin::Replay(_)))?;
    count(operations, || begins(&store, &inputs, |begin| matches!(begin, Begin::Replay(_))))?;
    leave(store)
}

fn locked(dir: &Dir, operations: bool) -> Result<()> {
    let store = open(dir)?;
    let claims = store.claim_in_groups(fresh(MANY))?;
    let inputs = fresh(MANY);
    count(operations, || begins(&store, &inputs, |begin| matches!(begin, Begin::Locked(_))))?;
    leave((store, claims))
}

fn mismatch(dir: &Dir, operations: bool) -> Result<()> {
    let store = open(dir)?;
    let claims = store.claim_in_groups(fresh(MANY))?;
    let mut inputs = fresh(MANY);
    inputs.iter_mut().for_each(|input| input.1 = fingerprint_of(b"other"));
    count(operations, || begins(&store, &inputs, |begin| matches!(begin, Begin::Mismatch(_))))?;
    leave((store, claims))
}

/// Keys that no store was prepared with.
fn fresh(count: u64) -> Vec<(Key, Fingerprint)> {
    (FRESH..FRESH + count).map(|number| (key(number), fingerprint())).collect()
}

/// Begins that must all get the `expected` answer.
fn begins(
    store: &Store,
    inputs: &[(Key, Fingerprint)],
    expected: fn(&Begin) -> bool,
) -> Result<()> {
    for (key, fingerprint) in inputs {
        let begin = store.engine.begin(key, fingerprint.clone()).wait()?;
        if !expected(&begin) {
            return Err(format!("an answer that was not expected: {begin:?}").into());
        }
    }
    Ok(())
}

fn absent(dir: &Dir, operations: bool) -> Result<()> {
    let store = open(dir)?;
    let keys: Vec<_> = (FRESH..FRESH + LOOKUPS).map(key).collect();
    count(operations, || {
        for key in &keys {
            let lookup = store.engine.get(key)?;
            if !matches!(lookup, Lookup::Absent) {
                return Err(format!("a fresh key is known: {lookup:?}").into());
            }
        }
        Ok(())
    })?;
    leave(store)
}

fn fold(dir: &Dir, operations: bool) -> Result<()> {
    let store = open(dir)?;
    store.complete_in_groups(store.claim_in_groups(fresh(4 * MANY))?)?;
    count(operations, || {
        store.engine.fold()?;
        store.engine.sweep()?;
        Ok(())
    })?;
    leave(store)
}

fn recover(dir: &Dir, operations: bool) -> Result<()> {
    count(operations, || leave(Store::open(dir)?))
}

/// Keeps `value` from being dropped.
pub(crate) fn leave<T>(value: T) -> Result<()> {
    std::mem::forget(value);
    Ok(())
}
