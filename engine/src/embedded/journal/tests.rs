//! The rules of the journal, each with a test that fails when the rule is broken.

mod preparing;
mod segments;

use crate::base::bytes::SharedBytes;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::ErrorKind;
use crate::embedded::disk::{BLOCK, Caching, Disk, DiskFile, OsDisk};
use crate::semantics::command::Change;
use crate::semantics::key::KeyHash;

const ID: JournalId = JournalId { identity: 7, seed: 11 };
const SEGMENT: u64 = 64 << 10;
const FIXED: SegmentSizes = SegmentSizes { first: SEGMENT, most: SEGMENT };

/// A directory that is removed when the test ends.
struct Dir(PathBuf);

impl Dir {
    fn handle(&self) -> Arc<dyn Directory> {
        OsDisk.open_dir(&self.0).unwrap()
    }

    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "oncekey-journal-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// The file of the segment with a slot, which is its use number less one until it is recycled.
    fn segment(&self, slot: u32) -> PathBuf {
        self.0.join(format!("journal-{slot:04}.seg"))
    }

    fn flip(&self, slot: u32, offset: u64) {
        let mut bytes = std::fs::read(self.segment(slot)).unwrap();
        bytes[offset as usize] ^= 1;
        std::fs::write(self.segment(slot), bytes).unwrap();
    }

    fn image(&self) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let bytes = std::fs::read(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), bytes)
            })
            .collect();
        files.sort();
        files
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn new_journal(dir: &Dir) -> Journal {
    create(&dir.handle(), ID, FIXED).unwrap();
    let (journal, found) = recover_from(dir, START).unwrap();
    assert_eq!(found, []);
    journal
}

const START: Start = start(Position::FIRST, 1);

const fn start(position: Position, next_sequence: u64) -> Start {
    let reaches = Reached { sequence: 0, epoch: 0 };
    Start { position, next_sequence, epoch: 1, reaches }
}

/// Everything that an open does with a journal.
fn recover(
    dir: &Arc<dyn Directory>,
    id: JournalId,
    start: Start,
    visit: &mut dyn FnMut(&frame::Header, u64, Entry) -> Result<()>,
) -> Result<Journal> {
    let (journal, unfinished) = inspect(dir, id, FIXED, start, visit)?.settle()?;
    unfinished.remove(&**dir)?;
    Ok(journal)
}

/// The journal, and for each entry found its sequence and the length of its data.
fn recover_from(dir: &Dir, start: Start) -> Result<(Journal, Vec<(u64, usize)>)> {
    let mut found = Vec::new();
    let journal = recover(&dir.handle(), ID, start, &mut |_, sequence, entry| {
        let Entry::Change(_, Change::Checkpoint { data }) = entry else { panic!("{entry:?}") };
        found.push((sequence, data.len()));
        Ok(())
    })?;
    Ok((journal, found))
}

fn reopened(dir: &Dir) -> Vec<(u64, usize)> {
    recover_from(dir, START).unwrap().1
}

/// Appends a group with entries of these lengths and syncs it. Returns where it begins.
fn append(journal: &mut Journal, lengths: &[usize]) -> Position {
    append_at_epoch(journal, lengths, 1)
}

fn append_at_epoch(journal: &mut Journal, lengths: &[usize], epoch: u64) -> Position {
    let mut group = Group::default();
    group.clear();
    for len in lengths {
        group.push(
            KeyHash(1),
            &Change::Checkpoint { data: SharedBytes::copy_of(&vec![0xa5; *len]) },
        );
    }
    while journal.make_room(&group) == Room::None {
        journal.pool().prepare().unwrap();
    }
    let position = journal.position();
    journal.append(&mut group, epoch, Time(5)).unwrap();
    journal.sync().unwrap();
    position
}

fn kind(result: Result<(Journal, Vec<(u64, usize)>)>) -> ErrorKind {
    result.map(|(_, found)| found).unwrap_err().kind()
}

#[test]
fn groups_come_back_in_sequence_and_the_journal_goes_on_behind_them() {
    let dir = Dir::new();
    let mut journal = new_journal(&dir);
    append(&mut journal, &[10, 20]);
    append(&mut journal, &[5000]);
    let end = journal.position();
    // A segment that is ready changes nothing.
    journal.pool().prepare().unwrap();
    drop(journal);
    let (mut journal, found) = recover_from(&dir, START).unwrap();
    assert_eq!(found, [(1, 10), (2, 20), (3, 5000)]);
    assert_eq!((journal.position(), journal.next_sequence()), (end, 4));
    append(&mut journal, &[30]);
    assert_eq!(reopened(&dir), [(1, 10), (2, 20), (3, 5000), (4, 30)]);
}

#[test]
fn groups_start_on_a_block_and_never_cross_a_segment() {
    let dir = Dir::new();
    let mut journal = new_journal(&dir);
    let mut segments = 0;
    for _ in 0..40 {
        let position = append(&mut journal, &[9000]);
        assert_eq!(position.offset % BLOCK as u64, 0);
        assert!(position.offset + 9000 <= SEGMENT);
        segments = segments.max(position.segment);
    }
    assert!(segments > 3, "several segments were used");
    drop(journal);
    assert_eq!(reopened(&dir), (1..=40).map(|sequence| (sequence, 9000)).collect::<Vec<_>>());
}

#[test]
fn a_damaged_last_group_vanishes_whole_and_is_written_over() {
    let offsets = [0, 8, 30, 60, 3000, 4096 + 50];
    for damaged in offsets {
        let dir = Dir::new();
        let mut journal = new_journal(&dir);
        append(&mut journal, &[10]);
        let last = append(&mut journal, &[2500, 2500]);
        drop(journal);
        dir.flip(0, last.offset + damaged);
        let (mut journal, found) = recover_from(&dir, START).unwrap();
        assert_eq!(found, [(1, 10)], "byte {damaged}");
        assert_eq!(journal.position(), last);
        append(&mut journal, &[77]);
        assert_eq!(reopened(&dir), [(1, 10), (2, 77)]);
    }
}

#[test]
fn damage_before_the_last_group_is_corruption_and_nothing_is_written() {
    for damaged in [0, 8, 30, 60, 3000] {
        let dir = Dir::new();
        let mut journal = new_journal(&dir);
        let first = append(&mut journal, &[3500]);
        append(&mut journal, &[10]);
        drop(journal);
        dir.flip(0, first.offset + damaged);
        let before = dir.image();
        assert_eq!(kind(recover_from(&dir, START)), ErrorKind::Corrupted, "byte {damaged}");
        assert!(dir.image() == before, "left untouched");
    }
}

#[test]
fn damage_is_found_by_a_newer_group_in_a_later_segment_too() {
    let dir = Dir::new();
    let mut journal = new_journal(&dir);
    let mut last_of_first = START.position;
    loop {
        let position = append(&mut journal, &[9000]);
        if position.segment > 1 {
            break;
        }
        last_of_first = position;
    }
    drop(journal);
    dir.flip(0, last_of_first.offset);
    assert_eq!(kind(recover_from(&dir, START)), ErrorKind::Corrupted);
}

#[test]
fn frames_of_an_earlier_use_never_validate() {
    let dir = Dir::new();
    let mut journal = new_journal(&dir);
    // Fill the first segment with one-block groups, so that stale frames lie at every block.
    let mut position = journal.position();
    while position.segment == 1 {
        position = append(&mut journal, &[10]);
    }
    let replay_from = journal.position();
    let folded = journal.next_sequence() - 1;
    journal.pool().recycle(replay_from);
    // Recycled segments are used again before new ones are made.
    while journal.position().segment == replay_from.segment {
        append(&mut journal, &[10]);
    }
    append(&mut journal, &[10]);
    let expected = journal.next_sequence() - 1 - folded;
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 2, "the first segment was recycled");
    drop(journal);
    let start = start(replay_from, folded + 1);
    let (_, found) = recover_from(&dir, start).unwrap();
    assert_eq!(found.len() as u64, expected);

    // A torn last group in the recycled segment: the stale frames behind it are not "newer".
    dir.flip(0, FIRST_GROUP + BLOCK as u64);
    let (_, found) = recover_from(&dir, start).unwrap();
    assert_eq!(found.len() as u64, expected - 1);
}

#[test]
fn a_missing_or_damaged_segment_is_an_error() {
    let filled = || {
        let dir = Dir::new();
        let mut journal = new_journal(&dir);
        while journal.position().segment < 4 {
            append(&mut journal, &[9000]);
        }
        dir
    };
    for slot in 0..4 {
        let dir = filled();
        dir.flip(slot, 20);
        assert_eq!(kind(recover_from(&dir, START)), ErrorKind::Corrupted, "slot {slot} header");
    }
    // Nothing would reveal that the last one is missing: no segment was prepared behind it.
    for slot in 0..3 {
        let dir = filled();
        std::fs::remove_file(dir.segment(slot)).unwrap();
        assert_eq!(kind(recover_from(&dir, START)), ErrorKind::Corrupted, "slot {slot} missing");
        let dir = filled();
        let file = std::fs::File::options().write(true).open(dir.segment(slot)).unwrap();
        file.set_len(SEGMENT / 2).unwrap();
        assert_eq!(kind(recover_from(&dir, START)), ErrorKind::StoreTruncated, "slot {slot} cut");
    }
}

#[test]
fn a_missing_segment_is_missed_by_the_one_prepared_behind_it() {
    let dir = Dir::new();
    let mut journal = new_journal(&dir);
    while journal.position().segment < 2 {
        append(&mut journal, &[9000]);
    }
    journal.pool().prepare().unwrap();
    drop(journal);
    // The last acknowledged groups were only in this segment.
    std::fs::remove_file(dir.segment(1)).unwrap();
    assert_eq!(kind(recover_from(&dir, START)), ErrorKind::Corrupted);
}

#[test]
fn a_frame_validates_only_in_its_place() {
    let mut group = Group::default();
    group.clear();
    group.push(KeyHash(1), &Change::Remove);
    let place = Position { segment: 3, offset: 8192 };
    let frame = group.seal(11, place, 1, 1, Time(5)).unwrap().to_vec();
    let header = frame::Header::decode(&frame, 11, place).unwrap();
    assert!(header.payload(&frame, 11, place).is_some());
    for (id, segment, offset) in [(12, 3, 8192), (11, 4, 8192), (11, 3, 4096)] {
        let elsewhere = Position { segment, offset };
        assert_eq!(frame::Header::decode(&frame, id, elsewhere), None);
        assert!(header.payload(&frame, id, elsewhere).is_none());
    }
}

#[test]
fn a_gap_in_the_sequence_is_an_error() {
    let dir = Dir::new();
    let mut journal = new_journal(&dir);
    append(&mut journal, &[10]);
    append(&mut journal, &[10]);
    drop(journal);
    // As if the fold had only reached a sequence before those that the journal still has.
    let start = Start { next_sequence: 0, ..START };
    assert_eq!(kind(recover_from(&dir, start)), ErrorKind::Corrupted);
}

#[test]
fn an_epoch_that_goes_back_is_an_error() {
    let dir = Dir::new();
    let mut journal = new_journal(&dir);
    append_at_epoch(&mut journal, &[10], 3);
    append_at_epoch(&mut journal, &[10], 2);
    drop(journal);
    assert_eq!(kind(recover_from(&dir, START)), ErrorKind::Corrupted);
}

#[test]
fn a_foreign_or_newer_segment_is_refused() {
    let dir = Dir::new();
    drop(new_journal(&dir));
    let foreign = JournalId { identity: 8, seed: 11 };
    let refused = recover(&dir.handle(), foreign, START, &mut |_, _, _| Ok(()));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::StoreForeign);

    let mut bytes = std::fs::read(dir.segment(0)).unwrap();
    bytes[8] = 2;
    let sum = checksum(ID.identity, &bytes[..40]);
    bytes[40..48].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(dir.segment(0), &bytes).unwrap();
    assert_eq!(kind(recover_from(&dir, START)), ErrorKind::StoreNewerFormat);
}

#[test]
fn a_segment_that_was_never_finished_is_removed() {
    let dir = Dir::new();
    let mut journal = new_journal(&dir);
    append(&mut journal, &[10]);
    drop(journal);
    std::fs::write(dir.segment(1), vec![0; SEGMENT as usize / 2]).unwrap();
    std::fs::write(dir.segment(2), vec![0; SEGMENT as usize]).unwrap();
    let (mut journal, _) = recover_from(&dir, START).unwrap();
    while journal.position().segment < 3 {
        append(&mut journal, &[9000]);
    }
    let count = journal.next_sequence() - 1;
    drop(journal);
    assert_eq!(reopened(&dir).len() as u64, count);
    for slot in [1, 2] {
        assert!(!dir.segment(slot).exists(), "the zeros of {slot} may not be durable");
    }
}
