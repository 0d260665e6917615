//! The storage adapter of redb, which can hold operations back.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::base::bytes::Hidden;
use crate::embedded::store::redb::write_buffer::StoreFile;

/// The storage that redb runs on. It starts *held*: writes are kept in memory and reads see them,
/// so that redb can open, and if need be repair, a file that the open has not decided to touch yet.
/// [`release`](Self::release) does the held operations. From then on everything passes through.
///
/// The lock methods keep redb's default, unsupported, which leaves locking to the caller: the locks
/// of the store directory do it.
#[derive(Clone, Debug)]
pub(crate) struct Backend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: StoreFile,
    /// Never goes back to false. Set while `held` is locked, after the last held operation.
    released: AtomicBool,
    held: Mutex<Vec<Held>>,
}

/// An operation that redb takes as done.
enum Held {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
    Sync,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, bytes } => write!(f, "Write({:?} at {offset})", Hidden(bytes)),
            Self::SetLen(len) => write!(f, "SetLen({len})"),
            Self::Sync => f.write_str("Sync"),
        }
    }
}

impl Backend {
    pub(crate) fn held(file: StoreFile) -> Self {
        Self(Arc::new(Inner {
            file,
            released: AtomicBool::new(false),
            held: Mutex::new(Vec::new()),
        }))
    }

    pub(crate) fn released(file: StoreFile) -> Self {
        let backend = Self::held(file);
        backend.0.released.store(true, Ordering::Release);
        backend
    }

    /// Does the held operations in their order, syncs included. So a crash on the way leaves the
    /// file as a crash of redb itself would have left it.
    pub(crate) fn release(&self) -> io::Result<()> {
        let mut held = self.0.held.lock();
        for operation in held.iter() {
            match operation {
                Held::Write { offset, bytes } => self.0.file.write(*offset, bytes)?,
                Held::SetLen(len) => self.0.file.set_len(*len)?,
                Held::Sync => self.0.file.sync()?,
            }
        }
        *held = Vec::new();
        self.0.released.store(true, Ordering::Release);
        Ok(())
    }

    /// Keeps `operation` if the backend is held, else returns `false`.
    fn hold(&self, operation: impl FnOnce() -> Held) -> bool {
        if self.0.released.load(Ordering::Acquire) {
            return false;
        }
        let mut held = self.0.held.lock();
        let holding = !self.0.released.load(Ordering::Acquire);
        if holding {
            held.push(operation());
        }
        holding
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        if !self.0.released.load(Ordering::Acquire) {
            let held = self.0.held.lock();
            let set = held.iter().rev().find_map(|operation| match operation {
                Held::SetLen(len) => Some(*len),
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
        if in_file < out.len() && !held.iter().any(|held| matches!(held, Held::SetLen(_))) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out[in_file..].fill(0);
        for operation in held.iter() {
            if let Held::Write { offset: start, bytes } = operation {
                overlay(out, offset, bytes, *start);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.hold(|| Held::SetLen(len)) { Ok(()) } else { self.0.file.set_len(len) }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.hold(|| Held::Sync) { Ok(()) } else { self.0.file.sync() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.hold(|| Held::Write { offset, bytes: data.to_vec() }) {
            Ok(())
        } else {
            self.0.file.write(offset, data)
        }
    }
}

/// Copies the part of `bytes`, at `start`, that overlaps `out`, at `out_start`, into `out`.
fn overlay(out: &mut [u8], out_start: u64, bytes: &[u8], start: u64) {
    let from = start.max(out_start);
    let to = (start + bytes.len() as u64).min(out_start + out.len() as u64);
    if from < to {
        let len = (to - from) as usize;
        let (target, source) = ((from - out_start) as usize, (from - start) as usize);
        out[target..target + len].copy_from_slice(&bytes[source..source + len]);
    }
}

#[cfg(test)]
mod tests {
    use redb::StorageBackend;

    use super::*;
    use crate::embedded::disk::Caching;
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
        let held = [Held::Write { offset: 8, bytes: b"secret".to_vec() }, Held::Sync];
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
}
