//! Segments whose preparation fails halfway.

use std::io;

use super::*;
use crate::embedded::disk::Lockable;
use crate::embedded::disk::{Caching, DiskFile};

/// A disk that does an operation and reports that it failed, for the operations that it is told.
#[derive(Clone, Debug, Default)]
struct Lying(Arc<AtomicU32>);

const LIES_HEADER: u32 = 1;
const LIES_SYNC_DIR: u32 = 2;
const REFUSES_REMOVE: u32 = 4;
const LIES_CREATE: u32 = 8;
const REFUSES_READ: u32 = 16;

impl Lying {
    fn tell<T>(&self, lie: u32, result: io::Result<T>) -> io::Result<T> {
        match self.0.load(Ordering::Relaxed) & lie {
            0 => result,
            _ => Err(io::Error::other("injected")),
        }
    }
}

#[derive(Debug)]
struct LyingFile(Arc<dyn DiskFile>, Lying);

#[derive(Debug)]
struct LyingDirectory(Arc<dyn Directory>, Lying);

impl Directory for LyingDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn file_len(&self, name: &str) -> io::Result<u64> {
        self.0.file_len(name)
    }
    fn open(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LyingFile(self.0.open(name, caching)?, self.1.clone())))
    }
    fn create(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.create(name, caching)?;
        self.1.tell(LIES_CREATE, Ok(Arc::new(LyingFile(file, self.1.clone())) as Arc<dyn DiskFile>))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.1.tell(REFUSES_REMOVE, Ok(()))?;
        self.0.remove(name)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.tell(LIES_SYNC_DIR, self.0.sync())
    }
    fn lock(&self, what: Lockable<'_>) -> io::Result<Box<dyn std::any::Any + Send + Sync>> {
        self.0.lock(what)
    }
    fn narrow(&self, names: &[String]) -> io::Result<()> {
        self.0.narrow(names)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
    fn version(&self) -> io::Result<Option<u64>> {
        self.0.version()
    }
}

impl DiskFile for LyingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.1.tell(REFUSES_READ, self.0.read_at(offset, buffer))
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let written = self.0.write_at(offset, bytes);
        let header = offset == 0 && bytes.len() == BLOCK;
        if header { self.1.tell(LIES_HEADER, written) } else { written }
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn is_named(&self) -> io::Result<bool> {
        self.0.is_named()
    }
}

fn lying(lies: &Lying, dir: &Dir) -> Arc<dyn Directory> {
    Arc::new(LyingDirectory(dir.handle(), lies.clone()))
}

fn recover_on(lies: &Lying, dir: &Dir, start: Start) -> Journal {
    recover(&lying(lies, dir), ID, start, &mut |_, _, _| Ok(())).unwrap()
}

/// A use number stays with the file that may have it on disk already: neither a new file nor
/// another one that was folded meanwhile gets it.
#[test]
fn a_preparation_that_failed_halfway_is_retried_on_the_same_file() {
    for lie in [LIES_HEADER, LIES_SYNC_DIR, LIES_CREATE] {
        for lie in [lie, lie | REFUSES_REMOVE] {
            let dir = Dir::new();
            drop(new_journal(&dir));
            let disk = Lying::default();
            let mut journal = recover_on(&disk, &dir, START);
            disk.0.store(lie, Ordering::Relaxed);
            (0..3).for_each(|_| drop(journal.pool().prepare().unwrap_err()));
            let hour = Instant::now() + std::time::Duration::from_secs(3600);
            journal.wait_for_segment(hour).unwrap_err();
            disk.0.store(0, Ordering::Relaxed);
            (0..2).for_each(|_| journal.pool().prepare().unwrap());
            for _ in 0..40 {
                append(&mut journal, &[9000]);
            }
            drop(journal);
            assert_eq!(reopened(&dir).len(), 40, "{lie}");
        }
    }
}

#[test]
fn a_folded_segment_whose_header_may_be_written_is_the_one_that_gets_it_again() {
    let dir = Dir::new();
    drop(new_journal(&dir));
    let disk = Lying::default();
    let mut journal = recover_on(&disk, &dir, START);
    while journal.position().segment < 4 {
        append(&mut journal, &[9000]);
    }
    let used = journal.pool().bytes();
    let folded = |segment| Position { segment, offset: FIRST_GROUP };
    journal.pool().recycle(folded(2));
    disk.0.store(LIES_HEADER, Ordering::Relaxed);
    journal.pool().prepare().unwrap_err();
    assert_eq!(journal.pool().bytes(), used, "the one that is to be retried takes space, too");
    disk.0.store(0, Ordering::Relaxed);
    journal.pool().recycle(folded(3));
    journal.pool().prepare().unwrap();
    let start = start(journal.position(), journal.next_sequence());
    append(&mut journal, &[10]);
    drop(journal);
    assert_eq!(recover_from(&dir, start).unwrap().1.len(), 1);
}

/// A segment that cannot be read must not count as unfinished or empty: it would be removed, or a
/// creation would replace it.
#[test]
fn a_segment_that_can_not_be_read_is_an_error_and_stays() {
    let dir = Dir::new();
    drop(new_journal(&dir));
    let before = dir.image();
    let refusing = lying(&Lying(Arc::new(AtomicU32::new(REFUSES_READ))), &dir);
    let error = recover(&refusing, ID, START, &mut |_, _, _| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(
        segment::holds_groups(&*refusing, "journal-0000.seg").unwrap_err().kind(),
        ErrorKind::Io
    );
    assert!(dir.image() == before, "left untouched");
}

#[test]
fn a_segment_holds_groups_once_one_was_written() {
    let dir = Dir::new();
    let mut journal = new_journal(&dir);
    assert!(!segment::holds_groups(&*dir.handle(), "journal-0000.seg").unwrap());
    append(&mut journal, &[10]);
    assert!(segment::holds_groups(&*dir.handle(), "journal-0000.seg").unwrap());
    std::fs::write(dir.segment(1), [0; BLOCK]).unwrap();
    assert!(
        !segment::holds_groups(&*dir.handle(), "journal-0001.seg").unwrap(),
        "cut behind its header"
    );
    let mut late = vec![0; 1 << 20];
    late[(1 << 20) - 1] = 1;
    std::fs::write(dir.segment(2), late).unwrap();
    assert!(segment::holds_groups(&*dir.handle(), "journal-0002.seg").unwrap());
}
