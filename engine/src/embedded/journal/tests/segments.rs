//! Segments are used again, and grow.

use super::*;

#[test]
fn a_segment_is_recycled_only_when_nothing_in_it_is_replayed() {
    let dir = Dir::new();
    let mut journal = new_journal(&dir);
    let replay_from = append(&mut journal, &[10]);
    let ended = append(&mut journal, &[10]);
    while journal.position().segment == replay_from.segment {
        append(&mut journal, &[9000]);
    }
    journal.pool().recycle(ended);
    let count = journal.next_sequence() - 1;
    for _ in 0..3 {
        journal.pool().prepare().unwrap();
    }
    assert_eq!(journal.pool().bytes(), 4 * SEGMENT, "all but the one in use");
    drop(journal);
    assert_eq!(reopened(&dir).len() as u64, count);
}

#[test]
fn a_segment_has_its_length_whatever_it_is() {
    let dir = Dir::new();
    let bytes = 3 << 19;
    create(&dir.handle(), ID, SegmentSizes { first: bytes, most: bytes }).unwrap();
    assert_eq!(std::fs::metadata(dir.segment(0)).unwrap().len(), bytes);
}

/// A file whose writes fail with this error after half of their bytes.
#[derive(Debug)]
struct Failing(Arc<dyn DiskFile>, std::io::ErrorKind);

impl DiskFile for Failing {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_at(offset, &bytes[..bytes.len() / 2])?;
        Err(self.1.into())
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }
    fn sync(&self) -> std::io::Result<()> {
        self.0.sync()
    }
    fn is_named(&self) -> std::io::Result<bool> {
        self.0.is_named()
    }
}

#[test]
fn a_folded_segment_grows_or_stays_as_it_was() {
    let dir = Dir::new();
    create(&dir.handle(), ID, FIXED).unwrap();
    let name: Arc<str> = "journal-0000.seg".into();
    let file = dir.handle().open(&name, Caching::Buffered).unwrap();
    let mut segment = Segment { name, file: file.clone(), use_number: 1, bytes: SEGMENT };
    segment.file = Arc::new(Failing(file.clone(), std::io::ErrorKind::Other));
    segment::grow(&segment, 4 * SEGMENT).unwrap_err();
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    for kind in [StorageFull, QuotaExceeded, FileTooLarge] {
        segment.file = Arc::new(Failing(file.clone(), kind));
        assert_eq!(segment::grow(&segment, 4 * SEGMENT).unwrap(), SEGMENT, "{kind}");
        assert_eq!(file.len().unwrap(), SEGMENT, "{kind}: the space taken in vain is given back");
    }
    segment.file = file.clone();
    assert_eq!(segment::grow(&segment, SEGMENT / 2).unwrap(), SEGMENT);
    assert_eq!(segment::grow(&segment, 4 * SEGMENT).unwrap(), 4 * SEGMENT);
    assert_eq!(file.len().unwrap(), 4 * SEGMENT);
}

#[test]
fn a_recycled_segment_is_as_large_as_a_new_one() {
    let dir = Dir::new();
    let sizes = SegmentSizes { first: SEGMENT, most: 4 * SEGMENT };
    create(&dir.handle(), ID, sizes).unwrap();
    let inspected = inspect(&dir.handle(), ID, sizes, START, &mut |_, _, _| Ok(())).unwrap();
    let (mut journal, unfinished) = inspected.settle().unwrap();
    assert!(!unfinished.remove(&*dir.handle()).unwrap());
    while journal.position().segment < 2 {
        append(&mut journal, &[9000]);
    }
    let mut needed = journal.file_names();
    needed.sort();
    assert_eq!(needed, dir.image().into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    let before = journal.pool().bytes();
    journal.pool().recycle(Position { segment: 2, offset: FIRST_GROUP });
    journal.pool().prepare().unwrap();
    assert!(journal.pool().bytes() > before);
}

#[test]
fn nothing_waits_for_a_segment_once_none_is_prepared_any_more() {
    let dir = Dir::new();
    let journal = new_journal(&dir);
    let now = Instant::now();
    assert_eq!(journal.wait_for_segment(now).unwrap_err().kind(), ErrorKind::StoreFull);
    journal.pool().end();
    assert_eq!(journal.wait_for_segment(now).unwrap_err().kind(), ErrorKind::Unavailable);
}

/// The store file says how far the journal was durable.
#[test]
fn a_journal_that_lacks_its_last_group_or_epoch_is_refused() {
    let dir = Dir::new();
    let mut journal = new_journal(&dir);
    append(&mut journal, &[10, 10]);
    drop(journal);
    let reaching = |sequence, epoch| {
        let reaches = Reached { sequence, epoch };
        recover_from(&dir, Start { reaches, ..START }).map(|(_, found)| found.len())
    };
    assert_eq!(reaching(2, 1).unwrap(), 2);
    for (sequence, epoch) in [(3, 1), (2, 2)] {
        assert_eq!(reaching(sequence, epoch).unwrap_err().kind(), ErrorKind::Corrupted);
    }
}
