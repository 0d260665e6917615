//! The journal: append-only segments that make a group of changes durable with one sync.
//!
//! `frame` is a group as it lies on disk, `entry` one change in it, `segment` the files,
//! `segment_pool` their recycling, `recovery` the way to read them back.

mod entry;
mod frame;
mod recovery;
mod segment;
mod segment_pool;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use entry::Entry;
pub(crate) use frame::Group;
pub(crate) use recovery::{Inspected, Reached, Start, inspect};
pub(crate) use segment::MOST_BYTES;
use segment::{FIRST_GROUP, Segment};
pub(crate) use segment_pool::{SegmentPool, SegmentSizes};

use crate::base::codec::checksum;
use crate::base::error::{Error, Result};
use crate::base::sync::Instant;
use crate::embedded::disk::Directory;
use crate::semantics::secret::Secret;
use crate::semantics::time::Time;

/// A place in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The use number of the segment: counts segments in the order in which they were used.
    pub(crate) segment: u64,
    /// Bytes from the start of the segment's file, a multiple of the block size.
    pub(crate) offset: u64,
}

impl Position {
    /// Where the first group of a new store goes.
    pub(crate) const FIRST: Self = Self { segment: 1, offset: FIRST_GROUP };
}

/// The values that tie a journal to its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalId {
    /// Readable in every segment, to tell a foreign segment from a damaged one.
    pub(crate) identity: u64,
    /// Seeds the checksums of groups.
    pub(crate) seed: u64,
}

impl JournalId {
    pub(crate) fn new(identity: u64, secret: &Secret) -> Self {
        Self { identity, seed: checksum(identity, &secret.0) }
    }
}

/// Writes the first segment of a store that is being created. Durable when this returns.
pub(crate) fn create(dir: &Arc<dyn Directory>, id: JournalId, sizes: SegmentSizes) -> Result<()> {
    segment_pool::create_first(dir, id, sizes)
}

/// Whether `name` is the name of a journal segment.
pub(crate) fn is_segment(name: &str) -> bool {
    segment::slot_of(name).is_some()
}

/// Whether the segment file `name` is the one that creation writes, and was never used. A store
/// that was opened once has groups in it.
pub(crate) fn is_unused_first(dir: &dyn Directory, name: &str) -> Result<bool> {
    Ok(segment::slot_of(name) == Some(0) && !segment::holds_groups(dir, name)?)
}

/// The end of the journal, where groups are appended. Owned by the committer.
#[derive(Debug)]
pub(crate) struct Journal {
    id: JournalId,
    current: Segment,
    offset: u64,
    next_sequence: u64,
    least: u64,
    pool: Arc<SegmentPool>,
}

/// Where there is room for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Here,
    NextSegment,
    /// The current segment is full, and no other is ready.
    None,
}

impl Journal {
    fn resume(
        id: JournalId,
        current: Segment,
        offset: u64,
        next_sequence: u64,
        pool: Arc<SegmentPool>,
    ) -> Self {
        let least = current.bytes.min(pool.least_next());
        Self { id, current, offset, next_sequence, least, pool }
    }

    /// The sequence of the first entry of the next group.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Where the next group goes, unless it needs more room than is left there.
    pub(crate) fn position(&self) -> Position {
        Position { segment: self.current.use_number, offset: self.offset }
    }

    pub(crate) fn pool(&self) -> &Arc<SegmentPool> {
        &self.pool
    }

    /// The size of the segment in use or of the next one, whichever is smaller: a group must fit in
    /// both.
    pub(crate) fn least_segment_bytes(&self) -> u64 {
        self.least
    }

    /// Makes room for `group`: moves on to a ready segment when too little of the current one is
    /// left. Returns where the room is. Without a ready segment nothing changes.
    pub(crate) fn make_room(&mut self, group: &Group) -> Room {
        if self.offset + group.frame_len() <= self.current.bytes {
            return Room::Here;
        }
        let Some(next) = self.pool.take() else { return Room::None };
        self.pool.hand_in(std::mem::replace(&mut self.current, next));
        self.offset = FIRST_GROUP;
        self.least = self.current.bytes.min(self.pool.least_next());
        Room::NextSegment
    }

    /// Fails when the segment in use, or with `all` any needed segment, has lost its name: the
    /// groups in it would be lost.
    pub(crate) fn check_named(&self, all: bool) -> Result<()> {
        let check = |segment: &Segment| {
            let named = segment.file.is_named();
            let named =
                named.map_err(|error| Error::io(format!("asking for {}", segment.name), error))?;
            if named { Ok(()) } else { Err(Error::gone(&segment.name)) }
        };
        check(&self.current)?;
        if all {
            self.pool.needed().iter().try_for_each(check)?;
        }
        Ok(())
    }

    /// The files that the journal needs.
    pub(crate) fn file_names(&self) -> Vec<String> {
        let needed = self.pool.needed();
        [&self.current].into_iter().chain(&needed).map(|segment| segment.name.to_string()).collect()
    }

    /// Waits until [`make_room`](Self::make_room) can succeed. Fails when it will not.
    pub(crate) fn wait_for_segment(&self, deadline: Instant) -> Result<()> {
        self.pool.wait(deadline)
    }

    /// Writes the group, for which [`make_room`](Self::make_room) made room. The group is durable
    /// after the next [`sync`](Self::sync), and recovery finds all of it or nothing. After an error
    /// the group may be there in part or whole, and the journal must be recovered.
    pub(crate) fn append(&mut self, group: &mut Group, epoch: u64, time: Time) -> Result<()> {
        let (entries, frame_len) = (group.entries(), group.frame_len());
        let position = self.position();
        debug_assert!(position.offset + frame_len <= self.current.bytes);
        let frame = group.seal(self.id.seed, position, self.next_sequence, epoch, time)?;
        self.current
            .file
            .write_at(position.offset, frame)
            .map_err(|error| Error::io("writing the journal", error))?;
        self.offset += frame_len;
        self.next_sequence += entries;
        Ok(())
    }

    /// Makes everything appended durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.current.file.sync().map_err(|error| Error::io("syncing the journal", error))
    }
}

#[cfg(fuzzing)]
pub(crate) fn fuzz_entry(decoder: &mut crate::base::codec::Decoder<'_>) -> Result<()> {
    entry::decode(decoder).map(drop)
}
