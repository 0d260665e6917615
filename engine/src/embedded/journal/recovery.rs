//! Reading the journal back after a stop, clean or not.
//!
//! Groups are written one at a time, each synced before the next is written. So after a crash only
//! the last group can be damaged, and nothing valid can lie behind it:
//!
//! 1. Groups are read from `replay_from` on, in sequence, without gaps.
//! 2. At the first place without a whole group of the expected sequence, every later block and
//!    segment is searched for a newer group. One found means that acknowledged groups are damaged:
//!    `Corrupted`. None found means a torn tail, which is cut: the next group is written over it.
//! 3. A journal that ends before the point that the store file states is `Corrupted`, too.
//! 4. Up to here nothing is written: [`inspect`] only reads, so that a refused directory stays as
//!    it is. [`Inspected::settle`] comes after everything else was verified.
//! 5. The last group may have been written without being synced, and a failed sync may have dropped
//!    it although the page cache still shows it. It is written again, the same bytes to the same
//!    place, and synced, before any caller is answered from it. The headers of the ready segments
//!    behind it are written again, too, and all names are synced.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::entry::{self, Entry};
use super::frame::Header;
use super::segment::{self, FIRST_GROUP, Segment, SegmentHeader};
use super::segment_pool::{Found, SegmentPool, SegmentSizes};
use super::{Journal, JournalId, Position};
use crate::base::codec::Decoder;
use crate::base::error::{Error, ErrorKind, Result};
use crate::embedded::disk::{AlignedBuffer, BLOCK, Caching, Directory, DiskFile};

/// Where the journal begins, as the last fold wrote it, and how far it must reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) position: Position,
    pub(crate) next_sequence: u64,
    pub(crate) epoch: u64,
    /// The journal was durable up to here, as far as the store file knows.
    pub(crate) reaches: Reached,
}

/// A point that the journal has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) sequence: u64,
    pub(crate) epoch: u64,
}

/// A journal that was read and verified, and not touched.
pub(crate) struct Inspected {
    dir: Arc<dyn Directory>,
    id: JournalId,
    sizes: SegmentSizes,
    reader: Reader,
    /// Before `current`; perhaps not folded.
    full: Vec<Segment>,
    current: Segment,
    end: u64,
    /// Behind `current`, without a group.
    ready: Vec<Segment>,
    /// Wholly folded.
    free: Vec<Segment>,
    without_header: Vec<Unprepared>,
    next_slot: u32,
}

/// Files that the journal does not use.
pub(crate) struct Unfinished(Vec<Unprepared>);

/// Reads the journal in `dir`, and passes each entry with its group's header and its sequence to
/// `visit`. Writes nothing: after an error, and until [`Inspected::settle`], every file is as it
/// was.
pub(crate) fn inspect(
    dir: &Arc<dyn Directory>,
    id: JournalId,
    sizes: SegmentSizes,
    start: Start,
    visit: &mut dyn FnMut(&Header, u64, Entry) -> Result<()>,
) -> Result<Inspected> {
    let mut files = list(&**dir, id)?;
    let mut segments = files.by_use.split_off(&start.position.segment);
    let first = segments.remove(&start.position.segment);
    let mut current = first.ok_or_else(|| missing(start.position.segment, &files))?;

    let mut reader = Reader { id, expected: start.next_sequence, epoch: start.epoch, last: None };
    let mut end = reader.read(&current, start.position.offset, visit)?;
    let mut behind: Vec<Segment> = segments.into_values().collect();
    let mut full = Vec::new();
    check_contiguous(&current, &behind, &files)?;
    // A group never crosses a segment: the end of a segment is followed by the start of the next.
    while let Some(next) = behind.first() {
        if !reader.continues(next)? {
            break;
        }
        reader.refuse_newer(&current, end)?;
        full.push(std::mem::replace(&mut current, behind.remove(0)));
        end = reader.read(&current, FIRST_GROUP, visit)?;
    }
    reader.refuse_newer(&current, end)?;
    for segment in &behind {
        reader.refuse_newer(segment, FIRST_GROUP)?;
    }
    let after = behind.last().unwrap_or(&current).use_number + 1;
    for Unprepared { name, file, bytes } in &files.without_header {
        for use_number in current.use_number + 1..after + 2 {
            // A header is durable before its segment is used, so a group here means a damaged
            // header.
            let (name, file) = (name.as_str().into(), file.clone());
            let segment = Segment { name, file, use_number, bytes: *bytes };
            reader.refuse_groups(&segment, FIRST_GROUP, false)?;
        }
    }
    reader.refuse_earlier(start.reaches)?;
    let Files { by_use, without_header, next_slot } = files;
    Ok(Inspected {
        dir: dir.clone(),
        id,
        sizes,
        reader,
        full,
        current,
        end,
        ready: behind,
        free: by_use.into_values().collect(),
        without_header,
        next_slot,
    })
}

impl Inspected {
    /// The last sequence.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.reader.expected - 1
    }

    /// Makes all visited groups durable, and returns the journal, ready for appends. Writes only
    /// bytes that are there already, so that an error or a crash on the way loses nothing.
    ///
    /// Files without a header stay until the caller removes them.
    pub(crate) fn settle(mut self) -> Result<(Journal, Unfinished)> {
        self.reader.make_last_durable()?;
        self.remove_small()?;
        // DURABLE: headers and names that a killed process or a failed sync left are visible, but
        // may not be durable. If a power loss took such a segment away, the groups that were synced
        // into it would be lost.
        let preparing = |error| Error::io("making prepared journal segments durable", error);
        for segment in &self.ready {
            segment::write_header(segment, self.id).map_err(preparing)?;
        }
        self.dir.sync().map_err(preparing)?;
        let found = Found {
            next_use: self.ready.last().unwrap_or(&self.current).use_number + 1,
            ready: self.ready,
            full: self.full,
            free: self.free,
            current_bytes: self.current.bytes,
            next_slot: self.next_slot,
        };
        let pool = SegmentPool::new(self.dir, self.id, self.sizes, found);
        let sequence = self.reader.expected;
        let journal = Journal::resume(self.id, self.current, self.end, sequence, Arc::new(pool));
        Ok((journal, Unfinished(self.without_header)))
    }

    /// Removes prepared segments that are too small for a group, because the options now allow
    /// longer responses than at the last open. Larger ones are prepared in their place.
    fn remove_small(&mut self) -> Result<()> {
        let failed = |error| Error::io("removing a small journal segment", error);
        let fitting = self.ready.iter().take_while(|segment| segment.bytes >= self.sizes.first);
        let fitting = fitting.count();
        // DURABLE: the last one first, each removal before the next. A hole would mean a lost
        // segment.
        while self.ready.len() > fitting {
            let Some(Segment { name, file, .. }) = self.ready.pop() else { break };
            drop(file);
            self.dir.remove(&name).map_err(failed)?;
            self.dir.sync().map_err(failed)?;
        }
        Ok(())
    }
}

impl Unfinished {
    /// Removes the files, whose zeros may not be durable. Returns whether there were any. The
    /// removal is durable after a sync of the directory.
    pub(crate) fn remove(self, dir: &dyn Directory) -> Result<bool> {
        let any = !self.0.is_empty();
        for Unprepared { name, file, .. } in self.0 {
            drop(file);
            dir.remove(&name)
                .map_err(|error| Error::io("removing an unfinished journal segment", error))?;
        }
        Ok(any)
    }
}

/// The segment files of a store directory.
struct Files {
    by_use: BTreeMap<u64, Segment>,
    without_header: Vec<Unprepared>,
    next_slot: u32,
}

/// A segment file whose header was never written whole, or is damaged.
struct Unprepared {
    name: String,
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

fn list(dir: &dyn Directory, id: JournalId) -> Result<Files> {
    let mut files = Files { by_use: BTreeMap::new(), without_header: Vec::new(), next_slot: 0 };
    let mut names = dir.list().map_err(|error| Error::io("listing the journal", error))?;
    names.sort();
    for name in names {
        let Some(slot) = segment::slot_of(&name) else { continue };
        files.next_slot = files.next_slot.max(slot.saturating_add(1));
        let file = dir
            .open(&name, Caching::Direct)
            .map_err(|error| Error::io(format!("opening {name}"), error))?;
        let len = file.len().map_err(|error| Error::io(format!("measuring {name}"), error))?;
        match segment::read_header(&*file, id, &name)? {
            SegmentHeader::Valid { use_number, bytes } => {
                if len < bytes {
                    let message = format!("{name} has {len} of its {bytes} bytes");
                    return Err(Error::new(ErrorKind::StoreTruncated, message));
                }
                let segment = Segment { name: name.as_str().into(), file, use_number, bytes };
                if files.by_use.insert(use_number, segment).is_some() {
                    return Err(Error::corrupted(format!(
                        "two journal segments have the use number {use_number}"
                    )));
                }
            }
            SegmentHeader::Invalid => {
                if len > segment::MOST_BYTES {
                    return Err(Error::corrupted(format!(
                        "{name} has {len} bytes and no header; no segment is that long"
                    )));
                }
                let bytes = len / BLOCK as u64 * BLOCK as u64;
                files.without_header.push(Unprepared { name, file, bytes });
            }
        }
    }
    Ok(files)
}

fn missing(use_number: u64, files: &Files) -> Error {
    let damaged = files.without_header.len();
    Error::corrupted(format!(
        "the journal segment with use number {use_number} is missing ({damaged} segments have a \
         damaged header)"
    ))
}

/// Segments are prepared in order, each durably before the next: a hole is a lost file.
fn check_contiguous(current: &Segment, behind: &[Segment], files: &Files) -> Result<()> {
    for (expected, segment) in (current.use_number + 1..).zip(behind) {
        if segment.use_number != expected {
            return Err(missing(expected, files));
        }
    }
    Ok(())
}

struct Reader {
    id: JournalId,
    /// The sequence that the next group must begin with.
    expected: u64,
    epoch: u64,
    /// The last group: its segment, its offset and all its bytes.
    last: Option<(Segment, u64, AlignedBuffer)>,
}

impl Reader {
    /// Visits the groups of one segment from `offset` on; returns where they end.
    fn read(
        &mut self,
        segment: &Segment,
        offset: u64,
        visit: &mut dyn FnMut(&Header, u64, Entry) -> Result<()>,
    ) -> Result<u64> {
        let bytes = read_at(segment, offset, segment.bytes)?;
        let mut at = 0;
        let mut last = None;
        while at < bytes.len() {
            let position = Position { segment: segment.use_number, offset: offset + at as u64 };
            let frame = &bytes[at..];
            let Some(header) = Header::decode(frame, self.id.seed, position) else { break };
            if header.first_sequence != self.expected {
                break;
            }
            let Some(payload) = header.payload(frame, self.id.seed, position) else { break };
            if header.epoch < self.epoch {
                return Err(Error::corrupted("the epoch of the journal goes back"));
            }
            let mut decoder = Decoder::new(payload);
            for sequence in (self.expected..).take(header.entries as usize) {
                visit(&header, sequence, entry::decode(&mut decoder)?)?;
            }
            decoder.finish()?;
            self.epoch = header.epoch;
            self.expected += u64::from(header.entries);
            last = Some((at, header.frame_len() as usize));
            at += header.frame_len() as usize;
        }
        if let Some((at, len)) = last {
            let mut frame = AlignedBuffer::default();
            // The padding of a frame lies in its segment, too: groups never cross a segment.
            frame.extend(&bytes[at..at + len]);
            self.last = Some((segment.clone(), offset + at as u64, frame));
        }
        Ok(offset + at as u64)
    }

    /// Whether the first group of `segment` is the one expected next.
    fn continues(&self, segment: &Segment) -> Result<bool> {
        let position = Position { segment: segment.use_number, offset: FIRST_GROUP };
        // One block first: most segments behind the end are not written to yet.
        let block = read_at(segment, FIRST_GROUP, BLOCK as u64)?;
        let Some(header) = Header::decode(&block, self.id.seed, position) else {
            return Ok(false);
        };
        if header.first_sequence != self.expected {
            return Ok(false);
        }
        let bytes = read_at(segment, FIRST_GROUP, header.frame_len())?;
        Ok(header.payload(&bytes, self.id.seed, position).is_some())
    }

    /// Looks for groups behind the end. At `from` itself a torn group of the expected sequence is
    /// allowed: it was never acknowledged.
    fn refuse_newer(&self, segment: &Segment, from: u64) -> Result<()> {
        self.refuse_groups(segment, from, true)
    }

    fn refuse_groups(&self, segment: &Segment, from: u64, torn_allowed: bool) -> Result<()> {
        const STEP: u64 = 1 << 20;
        let mut offset = from;
        loop {
            let bytes = read_at(segment, offset, STEP)?;
            if bytes.is_empty() {
                return Ok(());
            }
            for (index, block) in bytes.chunks_exact(BLOCK).enumerate() {
                let offset = offset + (index * BLOCK) as u64;
                let position = Position { segment: segment.use_number, offset };
                let Some(header) = Header::decode(block, self.id.seed, position) else { continue };
                let torn = torn_allowed && offset == from && header.first_sequence == self.expected;
                if !torn && header.first_sequence >= self.expected {
                    return Err(Error::corrupted(format!(
                        "the journal is damaged: sequence {} is missing, but {} lies behind it in \
                         segment {} at byte {}",
                        self.expected, header.first_sequence, position.segment, position.offset
                    )));
                }
            }
            offset += bytes.len() as u64;
        }
    }

    /// Fails when the journal ends before `reached`, up to which it was durable: it is an earlier
    /// version of itself, or has lost its end.
    fn refuse_earlier(&self, reached: Reached) -> Result<()> {
        let last = self.expected - 1;
        if last >= reached.sequence && self.epoch >= reached.epoch {
            return Ok(());
        }
        Err(Error::corrupted(format!(
            "the journal ends with sequence {last} of epoch {}, but sequence {} of epoch {} was \
             durable: a segment is an earlier version of itself, or its end is damaged",
            self.epoch, reached.sequence, reached.epoch
        )))
    }

    fn make_last_durable(&self) -> Result<()> {
        let Some((segment, offset, frame)) = &self.last else { return Ok(()) };
        segment
            .file
            .write_at(*offset, frame)
            .and_then(|()| segment.file.sync())
            .map_err(|error| Error::io("making the end of the journal durable", error))
    }
}

/// At most `len` bytes, as far as the segment goes.
fn read_at(segment: &Segment, offset: u64, len: u64) -> Result<AlignedBuffer> {
    let len = len.min(segment.bytes.saturating_sub(offset));
    let mut bytes = AlignedBuffer::zeroed(len as usize);
    if bytes.is_empty() {
        return Ok(bytes);
    }
    segment
        .file
        .read_at(offset, &mut bytes)
        .map_err(|error| Error::io("reading the journal", error))?;
    Ok(bytes)
}
