//! redb on a [`DiskFile`]: the files that it may open, and how its errors and panics become ours.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::codec::Decoder;
use crate::base::error::{Error, ErrorKind, Result};
use crate::embedded::disk::DiskFile;
use crate::embedded::store::redb::backend::Backend;
use crate::embedded::store::redb::quiet_panics::{self, quietly};

const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// The size of redb's header and its two commit slots; source: redb's `docs/design.md`.
const HEADER: usize = 320;
/// The lowest bit tells which of the two slots is in use.
const FLAGS: usize = 9;
const SLOTS: usize = 64;
const SLOT: usize = 128;
/// The newest file format that the redb we build with knows.
const REDB_FORMAT: u8 = 3;
/// The place of the page size in the header. Region header pages, region data pages, full regions
/// and pages in the last region follow it, each a `u32`.
const LAYOUT: usize = 12;

/// How much longer than twice its layout a file may be, in bytes. After a crash the file includes
/// the growth since redb's last commit: a transaction writes data that was in memory, and redb at
/// most doubles the file or adds a region of 4 GiB.
///
/// There is a limit because every commit writes the state of the allocator, which takes a byte for
/// each page of the file, used or not.
const GROWTH: u128 = 8 << 30;

/// Refuses a file that redb must not open: one that is empty, of another kind, of a later redb, or
/// shorter or much longer than its own header says.
///
/// redb writes a larger layout only after it made the larger length durable, and cuts the file only
/// after it made the smaller layout durable. So a file shorter than its layout lost its end,
/// whether or not it was closed cleanly. redb itself would accept the length of a file that was
/// not.
pub(crate) fn inspect(file: &dyn DiskFile) -> Result<()> {
    let len = file.len().map_err(|error| Error::io("the store file's length", error))?;
    if len == 0 {
        return Err(Error::new(ErrorKind::StoreEmpty, "store.redb has no bytes"));
    }
    let mut header = [0; HEADER];
    let header = &mut header[..HEADER.min(usize::try_from(len).unwrap_or(usize::MAX))];
    file.read_at(0, header).map_err(|error| Error::io("the store file's header", error))?;
    if !header.starts_with(&MAGIC[..MAGIC.len().min(header.len())]) {
        return Err(Error::new(ErrorKind::StoreForeign, "store.redb is not a redb file"));
    }
    let truncated = |expected: u64| {
        let context = format!("store.redb has {len} bytes, its header speaks of {expected}");
        Error::new(ErrorKind::StoreTruncated, context)
    };
    if header.len() < HEADER {
        return Err(truncated(HEADER as u64));
    }
    // Each slot starts with the format and ends with its checksum. redb reports a later format as
    // corruption, but it is corruption only if that checksum fails, too.
    let slot = &header[SLOTS + SLOT * usize::from(header[FLAGS] & 1)..][..SLOT];
    let (body, sum) = slot.split_at(SLOT - 16);
    if body[0] > REDB_FORMAT && xxhash_rust::xxh3::xxh3_128(body).to_le_bytes() == sum {
        let context = format!("store.redb has redb's format {}", body[0]);
        return Err(Error::new(ErrorKind::StoreNewerFormat, context));
    }
    let mut layout = Decoder::new(&header[LAYOUT..]);
    let page = u64::from(layout.u32()?);
    let (region_header, region_data) = (u64::from(layout.u32()?), u64::from(layout.u32()?));
    let (full, trailing) = (u64::from(layout.u32()?), u64::from(layout.u32()?));
    // In u128: these numbers have no checksum and may be anything. redb checks them at open.
    let trailing_pages = if trailing > 0 { region_header + trailing } else { 0 };
    let pages =
        u128::from(full) * u128::from(region_header + region_data) + u128::from(trailing_pages) + 1;
    let expected = pages * u128::from(page);
    if u128::from(len) < expected {
        return Err(truncated(u64::try_from(expected).unwrap_or(u64::MAX)));
    }
    if u128::from(len) > 2 * expected + GROWTH {
        let message = format!(
            "store.redb has {len} bytes, its header speaks of {expected}: the file was stretched, or \
             its header is damaged"
        );
        return Err(Error::corrupted(message));
    }
    Ok(())
}

/// Panics of redb in this process so far. A database that may have panicked is never dropped.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Whether one store was found damaged, and whether it was closed. Clones watch the same store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    damaged: AtomicBool,
    closed: AtomicBool,
}

impl Watch {
    /// Runs `work`, which uses the store, and turns a panic of redb into an error. Nothing is read
    /// once the store is closed, because another process may have its files by then.
    ///
    /// redb documents that it may panic when it reads a file that was altered. Such a panic must
    /// end neither a caller that looks a key up nor the fold worker. `work` must not leave changes
    /// in memory that are used after it failed.
    pub(crate) fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the store was closed"));
        }
        let result = quietly(work).unwrap_or_else(|payload| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            let message = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| payload.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(Error::corrupted(format!("redb panicked on the store file: {message}")))
        });
        if matches!(&result, Err(error) if error.kind() == ErrorKind::Corrupted) {
            self.0.damaged.store(true, Ordering::Relaxed);
        }
        result
    }

    fn found_damage(&self) -> bool {
        self.0.damaged.load(Ordering::Relaxed)
    }
}

/// An open redb file. [`close`](Self::close) ends it in order. A drop ends it as a crash would,
/// with nothing written: a dropped file failed, is damaged, or was only read.
///
/// Every commit includes all that a quick open needs, so a crash costs nothing.
pub(crate) struct Handle {
    database: Option<redb::Database>,
    /// [`PANICS`] when it was opened.
    panics: u64,
    watch: Watch,
}

impl Handle {
    /// Opens the file of the backend. An empty one becomes a new, empty database. With `check` redb
    /// reads and verifies the whole file.
    pub(crate) fn open(backend: Backend, cache_bytes: usize, check: bool) -> Result<Self> {
        quiet_panics::install();
        let watch = Watch::default();
        let database = watch.guarded(|| {
            let database = redb::Builder::new()
                .set_cache_size(cache_bytes)
                .set_check_integrity_on_open(check)
                .create_with_backend(backend);
            database.map_err(failed)
        })?;
        let panics = PANICS.load(Ordering::Relaxed);
        Ok(Self { database: Some(database), panics, watch })
    }

    /// Guards every use of the database.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Closes the file. After damage the file ends as in a crash, without redb's closing commit: on
    /// a damaged list of free pages that commit panics in a destructor during unwinding, and no
    /// `catch_unwind` survives that. Nothing is lost without it.
    pub(crate) fn close(mut self) -> Result<()> {
        if self.watch.found_damage() {
            return Ok(());
        }
        match self.database.take() {
            Some(database) => self.watch.guarded(|| database.close().map_err(failed)),
            None => Ok(()),
        }
    }
}

impl std::ops::Deref for Handle {
    type Target = redb::Database;
    fn deref(&self) -> &redb::Database {
        self.database
            .as_ref()
            .expect("only `close` and `drop` take the database out, and end the handle")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.watch.0.closed.store(true, Ordering::Release);
        let Some(database) = self.database.take() else { return };
        if PANICS.load(Ordering::Relaxed) != self.panics {
            // A panic may have poisoned redb's locks, and then its drop panics again. During
            // unwinding, as below, that ends the process. So the database is leaked, even if
            // another one panicked: that costs memory and a file handle.
            std::mem::forget(database);
            return;
        }
        // A dropped redb database writes a last commit, which can panic twice on a damaged file and
        // so abort the process. It writes none while a panic unwinds. `resume_unwind` unwinds
        // without calling a panic hook.
        if cfg!(panic = "unwind") && !std::thread::panicking() {
            let _ = panic::catch_unwind(AssertUnwindSafe(move || {
                let _dropped_in_unwinding = database;
                panic::resume_unwind(Box::new(()));
            }));
        }
    }
}

/// An error of redb as one of ours.
pub(crate) fn failed(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        // A page number beyond the end of the file: redb never writes one.
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::caused_by(ErrorKind::Corrupted, "store.redb ends before a page in use", error)
        }
        redb::Error::Io(error) => Error::io("store.redb", error),
        redb::Error::PreviousIo => {
            Error::new(ErrorKind::Unavailable, "store.redb failed before and must be reopened")
        }
        redb::Error::DatabaseClosed => Error::new(ErrorKind::Closed, "store.redb was closed"),
        redb::Error::DatabaseAlreadyOpen => {
            Error::new(ErrorKind::StoreInUse, "store.redb is open elsewhere")
        }
        redb::Error::UpgradeRequired(_) => Error::new(
            ErrorKind::StoreForeign,
            "store.redb has a format of redb that is older than any store",
        ),
        // Any other error means that the file changed after redb wrote it: a table is gone or has
        // other types, an order is broken, or the format is one that this store never had.
        other => Error::corrupted(format!("store.redb: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_file_before_a_page_in_use_is_damage() {
        let kind = |kind: io::ErrorKind| failed(redb::Error::Io(kind.into())).kind();
        assert_eq!(kind(io::ErrorKind::UnexpectedEof), ErrorKind::Corrupted);
        assert_eq!(kind(io::ErrorKind::StorageFull), ErrorKind::StoreFull);
        assert_eq!(kind(io::ErrorKind::Other), ErrorKind::Io);
    }
}
