//! The storage adapter of redb, which can hold operations back.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::base::bytes::Hidden;
use crate::base::error::is_lack_of_space;
use crate::embedded::store::redb::write_buffer::{StoreFile, overlay};

/// The storage that redb runs on. It starts *held*: operations are kept in memory and reads see them,
/// so that redb can open, and if need be repair, a file that the open has not decided to touch yet.
/// [`release`](Self::release) does the held operations. From then on everything passes through.
///
/// A write that finds no space holds the storage again, since an error would make redb refuse
/// everything until the file is opened anew. [`make_up`](Self::make_up) tries the held operations
/// again. Until it succeeds, redb takes a commit as durable that is not.
///
/// The lock methods keep redb's default, unsupported, which leaves locking to the caller: the locks
/// of the store directory do it.
#[derive(Clone, Debug)]
pub(crate) struct Backend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: StoreFile,
    /// Whether a lack of space holds the storage, and is no error for redb.
    absorbs_shortage: bool,
    /// Set while `held` is locked, after the last held operation.
    released: AtomicBool,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    operations: Vec<Operation>,
    /// A lack of space holds the storage.
    is_short: bool,
}

/// An operation that redb takes as done.
enum Operation {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
    Sync,
}

/// Why held operations were not done.
#[derive(Debug)]
pub(crate) struct Unreleased {
    pub(crate) error: io::Error,
    /// No sync failed, so the same operations may be tried again.
    pub(crate) may_be_tried_again: bool,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, bytes } => write!(f, "Write({:?} at {offset})", Hidden(bytes)),
            Self::SetLen(len) => write!(f, "SetLen({len})"),
            Self::Sync => f.write_str("Sync"),
        }
    }
}

impl Operation {
    fn apply(&self, file: &StoreFile) -> Result<(), Unreleased> {
        let done = match self {
            Self::Write { offset, bytes } => file.write(*offset, bytes),
            Self::SetLen(len) => file.set_len(*len),
            Self::Sync => file.write_out(),
        };
        done.map_err(|error| Unreleased { may_be_tried_again: is_lack_of_space(&error), error })?;
        match self {
            Self::Sync => {
                // DURABLE: a sync that failed may have dropped writes from before the storage was held.
                let synced = file.sync();
                synced.map_err(|error| Unreleased { error, may_be_tried_again: false })
            }
            _ => Ok(()),
        }
    }
}

impl Backend {
    /// The storage of a store, held.
    pub(crate) fn held(file: StoreFile) -> Self {
        Self::new(file, true)
    }

    /// The storage of a file that is being created: whatever fails, the file is given up.
    pub(crate) fn released(file: StoreFile) -> Self {
        let backend = Self::new(file, false);
        backend.0.released.store(true, Ordering::Release);
        backend
    }

    fn new(file: StoreFile, absorbs_shortage: bool) -> Self {
        let (released, held) = Default::default();
        Self(Arc::new(Inner { file, absorbs_shortage, released, held }))
    }

    /// Does the held operations in their order, syncs included. So a crash on the way leaves the
    /// file as a crash of redb itself would have left it.
    ///
    /// DURABLE: what a sync has made durable is not done again. An earlier version of a page could
    /// otherwise replace a later one that a commit refers to.
    pub(crate) fn release(&self) -> Result<(), Unreleased> {
        let mut held = self.0.held.lock();
        let mut next = 0;
        while let Some(operation) = held.operations.get(next) {
            operation.apply(&self.0.file)?;
            next += 1;
            if matches!(held.operations[next - 1], Operation::Sync) {
                held.operations.drain(..next);
                next = 0;
            }
        }
        *held = Held::default();
        self.0.released.store(true, Ordering::Release);
        Ok(())
    }

    /// Does the operations that a lack of space holds back, if there are any.
    pub(crate) fn make_up(&self) -> Result<(), Unreleased> {
        let is_short = self.0.held.lock().is_short;
        if is_short { self.release() } else { Ok(()) }
    }

    /// Keeps `operation` if the backend is held, else returns `false`.
    fn hold(&self, operation: impl FnOnce() -> Operation) -> bool {
        if self.0.released.load(Ordering::Acquire) {
            return false;
        }
        let mut held = self.0.held.lock();
        let holding = !self.0.released.load(Ordering::Acquire);
        if holding {
            held.operations.push(operation());
        }
        holding
    }

    /// Holds an operation that found no space. Returns whether the operation was done.
    fn unless_short(
        &self,
        done: io::Result<()>,
        operation: impl FnOnce() -> Operation,
    ) -> io::Result<bool> {
        match done {
            Err(error) if self.0.absorbs_shortage && is_lack_of_space(&error) => {
                let mut held = self.0.held.lock();
                held.operations.push(operation());
                held.is_short = true;
                self.0.released.store(false, Ordering::Release);
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        if !self.0.released.load(Ordering::Acquire) {
            let held = self.0.held.lock();
            let set = held.operations.iter().rev().find_map(|operation| match operation {
                Operation::SetLen(len) => Some(*len),
                _ => None,
            });
            if let Some(len) = set {
                return Ok(len);
            }
        }
        self.0.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.released.load(Ordering::Acquire) {
            return self.0.file.read(offset, out);
        }
        let held = self.0.held.lock();
        let in_file = self.0.file.len()?.saturating_sub(offset).min(out.len() as u64) as usize;
        self.0.file.read(offset, &mut out[..in_file])?;
        // A held write grows the file only after a held `SetLen`, whose new bytes are zero.
        let grows = |held: &Operation| matches!(held, Operation::SetLen(_));
        if in_file < out.len() && !held.operations.iter().any(grows) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out[in_file..].fill(0);
        for operation in &held.operations {
            if let Operation::Write { offset: start, bytes } = operation {
                overlay(out, offset, bytes, *start);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let operation = || Operation::SetLen(len);
        if self.hold(operation) {
            return Ok(());
        }
        self.unless_short(self.0.file.set_len(len), operation).map(drop)
    }

    fn sync_data(&self) -> io::Result<()> {
        let operation = || Operation::Sync;
        if self.hold(operation) {
            return Ok(());
        }
        match self.unless_short(self.0.file.write_out(), operation)? {
            true => self.0.file.sync(),
            false => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let operation = || Operation::Write { offset, bytes: data.to_vec() };
        if self.hold(operation) {
            return Ok(());
        }
        self.unless_short(self.0.file.write(offset, data), operation).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use redb::StorageBackend;

    use super::*;
    use crate::embedded::disk::{BLOCK, Caching, DiskFile};
    use crate::embedded::store::FILE;
    use crate::embedded::store::tests::Dir;

    #[test]
    fn what_is_held_is_read_back_and_reaches_the_file_when_it_is_released() {
        let dir = Dir::new();
        std::fs::write(dir.file(), [1; 100]).unwrap();
        let file = dir.handle().open(FILE, Caching::Buffered).unwrap();
        let backend = Backend::held(StoreFile::open(&*dir.handle(), FILE, file).unwrap());
        let read = |offset, len| {
            let mut bytes = vec![9; len];
            backend.read(offset, &mut bytes).map(|()| bytes).map_err(|error| error.kind())
        };
        assert_eq!(read(90, 20), Err(io::ErrorKind::UnexpectedEof));
        backend.write(95, &[2; 5]).unwrap();
        assert_eq!(read(90, 10), Ok([[1; 5], [2; 5]].concat()));
        backend.set_len(200).unwrap();
        backend.write(105, &[3; 5]).unwrap();
        backend.sync_data().unwrap();
        let expected = [[1; 5], [2; 5], [0; 5], [3; 5], [0; 5]].concat();
        assert_eq!((backend.len().unwrap(), read(90, 25)), (200, Ok(expected.clone())));
        assert_eq!(std::fs::read(dir.file()).unwrap(), [1; 100], "untouched");

        backend.release().unwrap();
        assert_eq!((backend.len().unwrap(), read(90, 25)), (200, Ok(expected)));
        backend.set_len(100).unwrap();
        assert_eq!((backend.len().unwrap(), std::fs::read(dir.file()).unwrap().len()), (100, 100));
    }

    #[test]
    fn what_is_held_is_printed_by_its_length() {
        let held = [Operation::Write { offset: 8, bytes: b"secret".to_vec() }, Operation::Sync];
        assert_eq!(format!("{held:?}"), "[Write(6 bytes at 8), Sync]");
    }

    #[test]
    fn a_held_write_covers_what_it_overlaps_and_nothing_else() {
        for start in 0..12 {
            for len in 0..6 {
                let mut file = [0; 24];
                file[start..start + len].fill(7);
                let mut out = [0; 5];
                overlay(&mut out, 4, &vec![7; len], start as u64);
                assert_eq!(out, file[4..9], "{len} bytes at {start}");
                let held: Vec<u8> = (1..).take(len).collect();
                file[start..start + len].copy_from_slice(&held);
                overlay(&mut out, 4, &held, start as u64);
                assert_eq!(out, file[4..9], "{len} bytes at {start}");
            }
        }
    }

    /// A file on a disk that has space before an offset alone. Remembers the offsets of its writes.
    #[derive(Debug, Default)]
    struct Short {
        space: Mutex<u64>,
        writes: Mutex<Vec<u64>>,
    }

    impl DiskFile for Short {
        fn is_named(&self) -> io::Result<bool> {
            Ok(true)
        }
        fn len(&self) -> io::Result<u64> {
            Ok(1 << 20)
        }
        fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
            buffer.fill(0);
            Ok(())
        }
        fn write_at(&self, offset: u64, _: &[u8]) -> io::Result<()> {
            if offset >= *self.space.lock() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.writes.lock().push(offset);
            Ok(())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_write_that_found_no_space_is_done_later_and_none_is_done_again_behind_a_sync() {
        const PAGE: u64 = BLOCK as u64;
        let disk = Arc::new(Short::default());
        let backend = Backend::held(StoreFile::new(disk.clone(), disk.clone()));
        backend.release().unwrap();
        let write = |page: u64, byte| {
            backend.write(page * PAGE, &[byte; BLOCK]).unwrap();
            backend.sync_data().unwrap();
        };
        let space = |pages: u64| *disk.space.lock() = pages * PAGE;
        let made_up = || backend.make_up().map_err(|unreleased| unreleased.may_be_tried_again);
        let written = || std::mem::take(&mut *disk.writes.lock());

        space(2);
        for (page, byte) in [(0, 1), (2, 2), (1, 3), (3, 4)] {
            write(page, byte);
        }
        assert_eq!((made_up(), written()), (Err(true), vec![0]));
        for (page, byte) in [(2, 2), (1, 3), (3, 4)] {
            let mut seen = [0; BLOCK];
            backend.read(page * PAGE, &mut seen).unwrap();
            assert_eq!(seen, [byte; BLOCK]);
        }
        space(3);
        assert_eq!((made_up(), written()), (Err(true), vec![2 * PAGE, PAGE]));
        space(4);
        assert_eq!((made_up(), written()), (Ok(()), vec![3 * PAGE]));
        write(1, 5);
        assert_eq!((made_up(), written()), (Ok(()), vec![PAGE]));
    }
}
