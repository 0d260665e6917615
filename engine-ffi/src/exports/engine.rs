//! Calls on an engine.

use crate::abi::answer::Answer;
use crate::abi::close_report::CloseReport;
use crate::abi::options::Options;
use crate::abi::stats::Stats;
use crate::abi::status::ONCEKEY_UNSUPPORTED;
use crate::abi::types::{Engine, Error, Key, Orphan, Slice};
use crate::boundary::convert::Caller;
use crate::boundary::entry::entry;
use crate::boundary::failure::Failure;
use crate::boundary::fork;
use crate::objects::engine;
use crate::objects::orphan::ORPHANS;
use crate::objects::shared_store;

/// Opens the store in the directory `path`, and creates it unless ONCEKEY_OPEN_EXISTING is set. `options` may
/// be NULL. When this returns, every record that was ever acknowledged is available again, and every claim of
/// an earlier process is an orphan. Blocks while it waits for the disk.
///
/// If the library has the feature `postgres`, `path` may be the URL of a database that any number of
/// processes share, `postgres://user@host/database`. Its tables are created unless ONCEKEY_OPEN_EXISTING is
/// set. The claims of a process that died become orphans one lease after its death. A library without the
/// feature answers UNSUPPORTED.
///
/// The caller frees `engine` with oncekey_engine_free. Fails with INVALID_INPUT, the STORE_ statuses,
/// NETWORK_FILESYSTEM, CORRUPTED, CLOCK_JUMP, IO, and for a URL with UNAVAILABLE, UNSAFE_STORE, UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_engine_open(
    path: Slice,
    options: *const Options,
    engine: *mut Engine,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let engine = caller.out(engine);
    entry(Some(caller.out(error)), || {
        let engine = engine.required("engine")?;
        let path = caller.path(path)?;
        let options: Option<Options> = caller.sized(options)?;
        fork::watch()?;
        engine.id = engine::keep(options.unwrap_or(caller.zeroed()).open(path, &caller)?)?;
        Ok(())
    })
}

/// Recovers in place after a failure, as a restart of the process would. Every claim becomes an orphan, which
/// its owner may still complete. Blocks while it waits for the disk.
///
/// Fails with CLOSED, or like oncekey_engine_open. After a failure the engine stays unavailable and may be
/// reopened again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_engine_reopen(engine: Engine, error: *mut Error) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    entry(Some(caller.out(error)), || engine::reopen(engine.id))
}

/// Closes the engine: ends its control socket, refuses new calls, makes submitted changes durable, folds,
/// joins its threads and unlocks the store. Claims that are still held are orphans at the next open. Blocks
/// while it waits for the disk.
///
/// The handle stays and answers CLOSED until it is freed. `report` may be NULL. Fails with CLOSED when the
/// engine was closed before, and with UNAVAILABLE when it had failed; it is closed all the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_engine_close(
    engine: Engine,
    report: *mut CloseReport,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let mut report = caller.out(report);
    entry(Some(caller.out(error)), || {
        let closed = engine::close(engine.id)?;
        report.set(CloseReport {
            in_flight: closed.in_flight,
            folded_through: closed.folded_through,
        });
        Ok(())
    })
}

/// Frees the handle, and first closes the engine if that was not done. The engine's claims, orphans and
/// queues answer CLOSED from then on and must still be freed. Freeing 0 has no effect.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_engine_free(engine: Engine) -> i32 {
    entry(None, || engine::free(engine.id))
}

/// Reads the state of a key without requesting the right to execute: ABSENT, LOCKED, REPLAY or ORPHANED. May
/// read from the disk.
///
/// The caller frees `answer->data` and `answer->orphan`. Fails with INVALID_INPUT, OUTCOME_UNKNOWN,
/// UNAVAILABLE, CLOSED, CORRUPTED, IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_engine_get(
    engine: Engine,
    key: Key,
    answer: *mut Answer,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let answer = caller.out(answer);
    entry(Some(caller.out(error)), || {
        let answer = answer.required("answer")?;
        let key = caller.key(key)?;
        *answer = Answer::from_lookup(engine::get(engine.id)?.get(&key)?)?;
        Ok(())
    })
}

/// Lists the unresolved orphans, oldest first. Puts up to `capacity` handles into `orphans`, and the total
/// number into `count`. May read from the disk.
///
/// The caller frees the handles that it got: the smaller of `capacity` and `*count`. Fails with UNAVAILABLE,
/// CLOSED, CORRUPTED, IO, and with OVERLOADED when there are no more handles.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_engine_orphans(
    engine: Engine,
    orphans: *mut Orphan,
    capacity: usize,
    count: *mut usize,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let count = caller.out(count);
    let orphans = caller.zeroed_array(orphans, capacity);
    entry(Some(caller.out(error)), || {
        let count = count.required("count")?;
        let orphans = orphans.ok_or_else(|| Failure::null("orphans"))?;
        let found = engine::get(engine.id)?.orphans()?;
        let all = found.len();
        let mut refused = false;
        for (target, orphan) in orphans.iter_mut().zip(found) {
            let id = ORPHANS.insert(orphan).ok();
            refused |= id.is_none();
            target.id = id.unwrap_or(0);
        }
        if refused {
            for orphan in orphans {
                // No caller has seen the handle yet.
                let _ = ORPHANS.remove(std::mem::take(&mut orphan.id));
            }
            return Err(Failure::too_many());
        }
        *count = all;
        Ok(())
    })
}

/// Writes the counters and gauges into `stats`, whose `size` the caller has set. Cheap enough for a frequent
/// scrape.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_engine_stats(
    engine: Engine,
    stats: *mut Stats,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    entry(Some(caller.out(error)), || {
        let taken = engine::get(engine.id).map(|engine| Stats::new(&engine.stats()));
        // The struct is zeroed in any case.
        let empty = Stats::new(&oncekey::Stats::default());
        caller.fill_sized(stats, taken.as_ref().unwrap_or(&empty))?;
        taken.map(drop)
    })
}

/// Moves everything acknowledged so far from the journal into the store files. Never needed for durability.
/// Blocks while it waits for the disk. Fails with UNAVAILABLE, CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_engine_fold(engine: Engine, error: *mut Error) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    entry(Some(caller.out(error)), || Ok(engine::get(engine.id)?.fold()?))
}

/// Frees the space of expired records now. `removed` gets the number of removed rows; it may be NULL. Never
/// needed for correctness. Blocks while it waits for the disk. Fails with UNAVAILABLE, CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_engine_sweep(
    engine: Engine,
    removed: *mut u64,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let mut removed = caller.out(removed);
    entry(Some(caller.out(error)), || {
        removed.set(engine::get(engine.id)?.sweep()?);
        Ok(())
    })
}

/// Writes a consistent copy of the store into the new or empty directory `path`, while the engine runs. The
/// copy is another incarnation: it refuses tokens of the original as FENCED. Blocks until the copy is
/// complete.
///
/// Fails with INVALID_INPUT when `path` is not empty, STORE_FULL, IO, UNAVAILABLE, CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_engine_backup(
    engine: Engine,
    path: Slice,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    entry(Some(caller.out(error)), || {
        let path = caller.path(path)?;
        Ok(engine::get(engine.id)?.backup_to(path)?)
    })
}

/// Reads the whole store in the directory `path`, which no engine may have open, and checks every checksum.
/// Writes nothing. Blocks while it reads the disk.
///
/// Fails with CORRUPTED for the first damage found, with UNSUPPORTED for the URL of a database, whose server
/// has its own checks, or like oncekey_engine_open with ONCEKEY_OPEN_EXISTING.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_verify(path: Slice, error: *mut Error) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    entry(Some(caller.out(error)), || {
        let path = caller.path(path)?;
        if shared_store::url(path).is_some() {
            let context = "a directory is verified; the server of a database has checks of its own";
            return Err(Failure::new(ONCEKEY_UNSUPPORTED, context));
        }
        fork::watch()?;
        match oncekey::verify(path)?.damage().first() {
            Some(damage) => Err(damage.error().clone())?,
            None => Ok(()),
        }
    })
}
