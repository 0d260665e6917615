//! The segments that are not in use: prepared ahead, full, and folded ones that are used again.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::segment::{Segment, file_name, fill_with_zeros, grow, write_header};
use super::{JournalId, Position};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Condvar, Instant, Mutex};
use crate::embedded::disk::{Caching, Directory};

/// Segments kept ready ahead of the one in use.
const READY: usize = 2;
/// How many times as large as a filled segment the next one may be.
const GROWTH: u64 = 4;

/// The segments that are not in use. The committer takes ready ones and hands full ones in. The
/// fold worker recycles folded ones and prepares ahead.
#[derive(Debug)]
pub(crate) struct SegmentPool {
    dir: Arc<dyn Directory>,
    id: JournalId,
    /// The size of the largest segments.
    most_bytes: u64,
    queues: Mutex<Queues>,
    changed: Condvar,
}

/// The sizes of segments, in bytes, multiples of the block size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentSizes {
    pub(crate) first: u64,
    pub(crate) most: u64,
}

#[derive(Debug, Default)]
struct Queues {
    /// The size of the next segment. Never shrinks.
    next_bytes: u64,
    /// Prepared, in the order of their use numbers.
    ready: VecDeque<Segment>,
    /// Full, and perhaps not yet folded, in the order of their use numbers.
    full: VecDeque<Segment>,
    /// Folded: to be prepared again.
    free: Vec<Segment>,
    /// A segment whose header may or may not have been written. It may have the next use number on
    /// disk, so no other file may get that number: a store with two files of one number cannot be
    /// opened.
    numbered: Option<NumberedSegment>,
    next_use: u64,
    next_slot: u32,
    /// Why the last preparation failed; `None` once one succeeded again.
    failure: Option<Error>,
}

/// A segment that is about to get its header.
#[derive(Debug)]
struct NumberedSegment {
    segment: Segment,
    /// Whether the name of its file is yet to be made durable.
    new: bool,
}

impl SegmentPool {
    pub(super) fn new(
        dir: Arc<dyn Directory>,
        id: JournalId,
        sizes: SegmentSizes,
        found: Found,
    ) -> Self {
        let held = found.ready.iter().chain(&found.full).chain(&found.free);
        let largest = held.map(|segment| segment.bytes).fold(found.current_bytes, u64::max);
        let queues = Queues {
            next_bytes: sizes.first.max(largest).min(sizes.most),
            ready: found.ready.into(),
            full: found.full.into(),
            free: found.free,
            numbered: None,
            next_use: found.next_use,
            next_slot: found.next_slot,
            failure: None,
        };
        let most_bytes = sizes.most;
        Self { dir, id, most_bytes, queues: Mutex::new(queues), changed: Condvar::new() }
    }

    /// Whether too few segments are ready.
    pub(crate) fn wants_segment(&self) -> bool {
        self.queues.lock().ready.len() < READY
    }

    /// Why no segment could be prepared, if that failed. No new claim should be granted then.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.queues.lock().failure.clone()
    }

    /// Lets a preparation that failed be tried again.
    pub(crate) fn forget_failure(&self) {
        self.queues.lock().failure = None;
    }

    /// Bytes of all segments, the one in use not counted.
    pub(crate) fn bytes(&self) -> u64 {
        let queues = self.queues.lock();
        let numbered = queues.numbered.iter().map(|numbered| &numbered.segment);
        let held = queues.ready.iter().chain(&queues.full).chain(numbered).chain(&queues.free);
        held.map(|segment| segment.bytes).sum()
    }

    /// Prepares one segment: a folded one gets a new use number, else a new file is written with
    /// zeros. After recovery only the fold worker calls this, so that use numbers become ready in
    /// order.
    ///
    /// When this returns Ok, the segment's header and its directory entry are durable.
    pub(crate) fn prepare(&self) -> Result<()> {
        let prepared = self.next_numbered().and_then(|numbered| {
            self.number(&numbered).map(|()| numbered.segment.clone()).inspect_err(|_| {
                self.queues.lock().numbered = Some(numbered);
            })
        });
        let mut queues = self.queues.lock();
        let result = match prepared {
            Ok(segment) => {
                queues.next_use += 1;
                queues.ready.push_back(segment);
                queues.failure = None;
                Ok(())
            }
            Err(error) => {
                let error = Error::io("preparing a journal segment", error);
                queues.failure = Some(error.clone());
                Err(error)
            }
        };
        self.changed.notify_all();
        result
    }

    /// The segment that gets the next use number: the one that may have the number already, else a
    /// folded one, else a new file.
    fn next_numbered(&self) -> io::Result<NumberedSegment> {
        let (use_number, slot, bytes, folded) = {
            let mut queues = self.queues.lock();
            if let Some(numbered) = queues.numbered.take() {
                return Ok(numbered);
            }
            let folded = queues.free.pop();
            (queues.next_use, queues.next_slot, queues.next_bytes, folded)
        };
        if let Some(folded) = folded {
            let grown = grow(&folded, bytes).inspect_err(|_| {
                self.queues.lock().free.push(folded.clone());
            })?;
            let segment = Segment { use_number, bytes: grown, ..folded };
            return Ok(NumberedSegment { segment, new: false });
        }
        let name = file_name(slot);
        // The zeros are durable before the header: a segment with a header has its whole length.
        let created = self.dir.create(&name, Caching::Direct).and_then(|file| {
            let name = Arc::from(name.as_str());
            let segment = Segment { name, file, use_number, bytes };
            fill_with_zeros(&*segment.file, 0, bytes)?;
            segment.file.sync()?;
            Ok(NumberedSegment { segment, new: true })
        });
        // Half a segment takes space that others need. If it cannot be removed now, recovery
        // removes it, because it has no header.
        let removed = created.is_err()
            && match self.dir.remove(&name) {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            };
        if !removed {
            self.queues.lock().next_slot += 1;
        }
        created
    }

    fn number(&self, numbered: &NumberedSegment) -> io::Result<()> {
        write_header(&numbered.segment, self.id)?;
        if numbered.new { self.dir.sync() } else { Ok(()) }
    }

    /// The segments that the journal needs: full ones that are not folded, and ready ones.
    pub(super) fn needed(&self) -> Vec<Segment> {
        let queues = self.queues.lock();
        queues.full.iter().chain(&queues.ready).cloned().collect()
    }

    /// The next segment to write to, if one is ready.
    pub(super) fn take(&self) -> Option<Segment> {
        self.queues.lock().ready.pop_front()
    }

    /// No segment is prepared any more. Threads that wait for one get an error.
    pub(crate) fn end(&self) {
        let mut queues = self.queues.lock();
        let ended =
            || Error::new(ErrorKind::Unavailable, "no journal segment is prepared any more");
        queues.failure.get_or_insert_with(ended);
        self.changed.notify_all();
    }

    /// Waits until a segment is ready or preparing one has failed.
    pub(super) fn wait(&self, deadline: Instant) -> Result<()> {
        let mut queues = self.queues.lock();
        while queues.ready.is_empty() {
            if let Some(failure) = &queues.failure {
                return Err(failure.clone());
            }
            if self.changed.wait_until(&mut queues, deadline).timed_out() {
                let message = "no journal segment became ready in time";
                return Err(Error::new(ErrorKind::StoreFull, message));
            }
        }
        Ok(())
    }

    pub(super) fn hand_in(&self, segment: Segment) {
        let mut queues = self.queues.lock();
        let next = segment.bytes.saturating_mul(GROWTH).min(self.most_bytes);
        queues.next_bytes = queues.next_bytes.max(next);
        queues.full.push_back(segment);
    }

    /// The smallest size that the next segment to write to may have.
    pub(super) fn least_next(&self) -> u64 {
        let queues = self.queues.lock();
        let ready = queues.ready.iter().map(|segment| segment.bytes);
        ready.fold(queues.next_bytes, u64::min)
    }

    /// Frees the segments whose groups all lie before `replay_from`. Called only after the fold
    /// that wrote `replay_from` was committed.
    pub(crate) fn recycle(&self, replay_from: Position) {
        let mut queues = self.queues.lock();
        while queues.full.front().is_some_and(|full| full.use_number < replay_from.segment) {
            if let Some(segment) = queues.full.pop_front() {
                queues.free.push(segment);
            }
        }
    }
}

/// The segments that recovery found besides the one in use.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) ready: Vec<Segment>,
    pub(super) full: Vec<Segment>,
    pub(super) free: Vec<Segment>,
    pub(super) current_bytes: u64,
    pub(super) next_use: u64,
    pub(super) next_slot: u32,
}

/// Writes the first segment of a store that is being created, durably.
pub(super) fn create_first(
    dir: &Arc<dyn Directory>,
    id: JournalId,
    sizes: SegmentSizes,
) -> Result<()> {
    let found = Found { next_use: 1, ..Found::default() };
    SegmentPool::new(dir.clone(), id, sizes, found).prepare()
}
