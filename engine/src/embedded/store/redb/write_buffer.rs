//! Writes of the store file on their way to the disk.
//!
//! redb writes its pages one by one and in no order: thousands of 16 KiB for a fold. The disk needs
//! them only at the next sync. So they are kept until then, sorted, and written past the page cache
//! in few and large pieces: the copy into the page cache took half of the processor time of a fold.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{RwLock, RwLockUpgradableReadGuard};

use crate::embedded::disk::{AlignedBuffer, BLOCK, Caching, Directory, DiskFile};

/// When this many bytes are kept, they are written without a sync.
const KEPT_BYTES: usize = 8 << 20;
/// The largest single write: the journal waits behind it.
const WRITE_BYTES: usize = 256 << 10;

/// The store file: one handle through the page cache, for reads and for writes of partial blocks,
/// and one past it, for all other writes.
///
/// The two never write the same block: redb writes its header, alone in the first page, in part, and
/// all other pages whole.
#[derive(Debug)]
pub(crate) struct StoreFile {
    buffered: Arc<dyn DiskFile>,
    direct: Arc<dyn DiskFile>,
    /// Whether `kept` has anything: lets readers pass without its lock.
    keeping: AtomicBool,
    /// Locked only for reading while it is written to the disk, so that readers do not wait for
    /// that.
    kept: RwLock<Kept>,
}

/// Whole blocks that redb takes as written.
#[derive(Debug, Default)]
struct Kept {
    bytes: AlignedBuffer,
    /// By offset in the file: the place in `bytes`, and the length. No two pieces overlap.
    pieces: BTreeMap<u64, Piece>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    start: usize,
    len: usize,
}

impl StoreFile {
    /// The file `name` in `dir`, on which `buffered` is open.
    pub(crate) fn open(
        dir: &dyn Directory,
        name: &str,
        buffered: Arc<dyn DiskFile>,
    ) -> io::Result<Self> {
        Ok(Self::new(buffered, dir.open(name, Caching::Direct)?))
    }

    pub(super) fn new(buffered: Arc<dyn DiskFile>, direct: Arc<dyn DiskFile>) -> Self {
        let (keeping, kept) = Default::default();
        Self { buffered, direct, keeping, kept }
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        self.buffered.len()
    }

    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.keeping.load(Ordering::Acquire) {
            let kept = self.kept.read();
            if let Some((start, piece)) = kept.overlapping(offset, out.len()) {
                if start == offset && piece.len == out.len() {
                    out.copy_from_slice(kept.bytes_of(piece));
                    return Ok(());
                }
                self.buffered.read_at(offset, out)?;
                kept.overlay(offset, out);
                return Ok(());
            }
        }
        self.buffered.read_at(offset, out)
    }

    /// Keeps whole blocks until the next sync, or until there are many. An error of the disk may
    /// come only then.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.kept.write();
        if let Some((start, piece)) = kept.overlapping(offset, bytes.len()) {
            if start == offset && piece.len == bytes.len() {
                kept.bytes[piece.start..piece.start + piece.len].copy_from_slice(bytes);
                return Ok(());
            }
            drop(kept);
            self.write_out()?;
            kept = self.kept.write();
        }
        if !offset.is_multiple_of(BLOCK as u64) || !bytes.len().is_multiple_of(BLOCK) {
            return self.buffered.write_at(offset, bytes);
        }
        let piece = Piece { start: kept.bytes.len(), len: bytes.len() };
        kept.bytes.extend(bytes);
        kept.pieces.insert(offset, piece);
        self.keeping.store(true, Ordering::Release);
        let many = kept.bytes.len() >= KEPT_BYTES;
        drop(kept);
        if many { self.write_out() } else { Ok(()) }
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.write_out()?;
        self.buffered.set_len(len)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.write_out()?;
        self.buffered.sync()
    }

    /// Writes all kept bytes. After an error they stay, so that no read finds older bytes.
    pub(crate) fn write_out(&self) -> io::Result<()> {
        let kept = self.kept.upgradable_read();
        let mut gathered = AlignedBuffer::default();
        let mut start = 0;
        for (offset, piece) in &kept.pieces {
            let adjacent = start + gathered.len() as u64 == *offset;
            if !adjacent || gathered.len() + piece.len > WRITE_BYTES {
                self.write_direct(start, &gathered)?;
                gathered.clear();
                start = *offset;
            }
            gathered.extend(kept.bytes_of(*piece));
        }
        self.write_direct(start, &gathered)?;
        let mut kept = RwLockUpgradableReadGuard::upgrade(kept);
        kept.pieces.clear();
        kept.bytes.clear();
        self.keeping.store(false, Ordering::Release);
        Ok(())
    }

    fn write_direct(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() { Ok(()) } else { self.direct.write_at(offset, bytes) }
    }
}

impl Kept {
    fn bytes_of(&self, piece: Piece) -> &[u8] {
        &self.bytes[piece.start..piece.start + piece.len]
    }

    /// Copies the parts of all pieces that overlap `out`, at `offset`, into `out`.
    fn overlay(&self, offset: u64, out: &mut [u8]) {
        for (start, piece) in self.pieces.range(..offset + out.len() as u64).rev() {
            if start + piece.len as u64 <= offset {
                break;
            }
            overlay(out, offset, self.bytes_of(*piece), *start);
        }
    }

    /// The last piece that overlaps the `len` bytes from `offset` on.
    fn overlapping(&self, offset: u64, len: usize) -> Option<(u64, Piece)> {
        let (start, piece) = self.pieces.range(..offset + len as u64).next_back()?;
        (start + piece.len as u64 > offset).then_some((*start, *piece))
    }
}

/// Copies the part of `bytes`, at `start`, that overlaps `out`, at `out_start`, into `out`.
pub(super) fn overlay(out: &mut [u8], out_start: u64, bytes: &[u8], start: u64) {
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
    use super::*;

    /// A file in memory that remembers its writes.
    #[derive(Debug, Default)]
    struct Recorder {
        bytes: parking_lot::Mutex<Vec<u8>>,
        writes: parking_lot::Mutex<Vec<(u64, usize)>>,
    }

    impl DiskFile for Recorder {
        fn is_named(&self) -> io::Result<bool> {
            Ok(true)
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().len() as u64)
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            buffer.copy_from_slice(&self.bytes.lock()[offset as usize..][..buffer.len()]);
            Ok(())
        }
        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.writes.lock().push((offset, bytes.len()));
            self.bytes.lock()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.bytes.lock().resize(len as usize, 0);
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    const PAGE: usize = 4 * BLOCK;

    fn file(pages: usize) -> (Arc<Recorder>, StoreFile) {
        let recorder = Arc::new(Recorder::default());
        let file = StoreFile::new(recorder.clone(), recorder.clone());
        file.set_len((pages * PAGE) as u64).unwrap();
        (recorder, file)
    }

    fn read(file: &StoreFile, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        file.read(offset as u64, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn neighbours_are_written_together_when_the_file_is_synced() {
        let (recorder, file) = file(6);
        for page in [4, 1, 2, 0] {
            file.write((page * PAGE) as u64, &[page as u8 + 1; PAGE]).unwrap();
        }
        assert_eq!(*recorder.writes.lock(), []);
        file.sync().unwrap();
        assert_eq!(*recorder.writes.lock(), [(0, 3 * PAGE), (4 * PAGE as u64, PAGE)]);
        for (page, byte) in [1, 2, 3, 0, 5, 0].into_iter().enumerate() {
            assert_eq!(read(&file, page * PAGE, PAGE), vec![byte; PAGE]);
        }
    }

    #[test]
    fn no_write_is_larger_than_its_bound_and_not_much_is_kept() {
        let pages = 2 * KEPT_BYTES / PAGE;
        let (recorder, file) = file(pages);
        for page in 0..pages - 1 {
            file.write((page * PAGE) as u64, &[7; PAGE]).unwrap();
        }
        let written: usize = recorder.writes.lock().iter().map(|(_, len)| len).sum();
        assert_eq!(written, KEPT_BYTES);
        assert!(recorder.writes.lock().iter().all(|(_, len)| *len == WRITE_BYTES));
    }

    #[test]
    fn readers_see_what_is_kept_whatever_they_cut_out_of_it() {
        let (recorder, file) = file(4);
        file.write(PAGE as u64, &[1; PAGE]).unwrap();
        assert_eq!(read(&file, PAGE, PAGE), [1; PAGE]);
        file.write(PAGE as u64, &[2; PAGE]).unwrap();
        assert_eq!(read(&file, PAGE, PAGE), [2; PAGE]);
        assert_eq!(read(&file, 2 * PAGE, PAGE), [0; PAGE]);
        assert_eq!(*recorder.writes.lock(), []);
        let both = read(&file, PAGE / 2, PAGE);
        assert_eq!(both, [vec![0; PAGE / 2], vec![2; PAGE / 2]].concat());
    }

    #[test]
    fn the_later_of_two_overlapping_writes_wins() {
        let (_, file) = file(4);
        file.write(0, &[9; PAGE]).unwrap();
        file.write(0, &[1; 2 * PAGE]).unwrap();
        file.write(PAGE as u64, &[2; PAGE]).unwrap();
        file.write(PAGE as u64 + 5, &[3; 7]).unwrap();
        file.sync().unwrap();
        assert_eq!(read(&file, 0, PAGE), [1; PAGE]);
        let second = [vec![2; 5], vec![3; 7], vec![2; PAGE - 12]].concat();
        assert_eq!(read(&file, PAGE, PAGE), second);
    }

    #[test]
    fn a_shorter_file_stays_short() {
        let (recorder, file) = file(4);
        file.write(3 * PAGE as u64, &[1; PAGE]).unwrap();
        file.set_len(PAGE as u64).unwrap();
        file.sync().unwrap();
        assert_eq!(recorder.len().unwrap(), PAGE as u64);
    }
}
