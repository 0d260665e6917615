//! Segments: files that are written with zeros once and used again and again.
//!
//! The first segments of a store are small. Each filled one lets the next be larger, up to a bound.
//!
//! ```text
//! journal-0000.seg   block 0: header, then groups, each from the start of a block
//! header: magic [8] | format version u32 | zero u32 | identity u64 | use number u64 | bytes u64 | checksum u64
//! ```
//!
//! A sync of a small write is fastest on blocks that were written before, hence the zeros. The
//! header is durable before a segment is used. So a damaged header of a segment in use is rot, not
//! the trace of a crash.

use std::io;
use std::sync::Arc;

use super::JournalId;
use crate::base::codec::{Decoder, Encode, checksum};
use crate::base::error::{Error, ErrorKind, Result, is_lack_of_space};
use crate::embedded::disk::{AlignedBuffer, BLOCK, Caching, Directory, DiskFile};

const MAGIC: &[u8; 8] = b"oncekeyJ";
const FORMAT_VERSION: u32 = 1;
const HEADER_LEN: usize = 48;

/// No segment is larger, whatever the options.
pub(crate) const MOST_BYTES: u64 = u32::MAX as u64;

/// Where the groups of a segment begin.
pub(super) const FIRST_GROUP: u64 = BLOCK as u64;

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) name: Arc<str>,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) use_number: u64,
    pub(super) bytes: u64,
}

/// The header in the first block of a segment file.
pub(super) enum SegmentHeader {
    Valid {
        use_number: u64,
        bytes: u64,
    },
    /// The preparation never finished, or the header is damaged.
    Invalid,
}

pub(super) fn file_name(slot: u32) -> String {
    format!("journal-{slot:04}.seg")
}

/// The slot of a segment file, if `name` is the name of one.
pub(super) fn slot_of(name: &str) -> Option<u32> {
    name.strip_prefix("journal-")?.strip_suffix(".seg")?.parse().ok()
}

pub(super) fn read_header(file: &dyn DiskFile, id: JournalId, name: &str) -> Result<SegmentHeader> {
    let mut block = AlignedBuffer::zeroed(BLOCK);
    match file.read_at(0, &mut block) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(SegmentHeader::Invalid);
        }
        Err(error) => return Err(Error::io(format!("reading {name}"), error)),
    }
    let mut decoder = Decoder::new(&block);
    if decoder.take(8)? != MAGIC {
        return Ok(SegmentHeader::Invalid);
    }
    let version = decoder.u32()?;
    decoder.u32()?;
    let identity = decoder.u64()?;
    let use_number = decoder.u64()?;
    let bytes = decoder.u64()?;
    let sum = decoder.u64()?;
    // Seeded with the identity in the header, so that a foreign or newer header is not taken for
    // damage.
    if sum != checksum(identity, &block[..HEADER_LEN - 8]) {
        return Ok(SegmentHeader::Invalid);
    }
    if version > FORMAT_VERSION {
        let message = format!("{name} has format {version}, this build knows {FORMAT_VERSION}");
        return Err(Error::new(ErrorKind::StoreNewerFormat, message));
    }
    if identity != id.identity {
        let message = format!("{name} belongs to another store");
        return Err(Error::new(ErrorKind::StoreForeign, message));
    }
    Ok(SegmentHeader::Valid { use_number, bytes })
}

/// Whether any byte behind the header is not zero, or the file is longer than any segment.
pub(super) fn holds_groups(dir: &dyn Directory, name: &str) -> Result<bool> {
    const STEP: u64 = 256 << 10;
    let failed = |error| Error::io(format!("reading {name}"), error);
    let file = dir.open(name, Caching::Direct).map_err(failed)?;
    let end = file.len().map_err(failed)? / BLOCK as u64 * BLOCK as u64;
    if end > MOST_BYTES {
        return Ok(true);
    }
    let mut offset = FIRST_GROUP;
    while offset < end {
        let mut bytes = AlignedBuffer::zeroed((end - offset).min(STEP) as usize);
        file.read_at(offset, &mut bytes).map_err(failed)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(true);
        }
        offset += bytes.len() as u64;
    }
    Ok(false)
}

/// Writes the header of a segment. It is durable when this returns `Ok`.
pub(super) fn write_header(segment: &Segment, id: JournalId) -> io::Result<()> {
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.put(MAGIC);
    header.put_u32(FORMAT_VERSION);
    header.put_u32(0);
    header.put_u64(id.identity);
    header.put_u64(segment.use_number);
    header.put_u64(segment.bytes);
    header.put_u64(checksum(id.identity, &header));
    let mut block = AlignedBuffer::default();
    block.extend(&header);
    block.pad();
    segment.file.write_at(0, &block)?;
    segment.file.sync()
}

/// Grows a folded segment to `bytes`, if it is smaller, and returns its size. The zeros are durable
/// before a header counts them. A disk without space for them leaves the segment as it was.
pub(super) fn grow(folded: &Segment, bytes: u64) -> io::Result<u64> {
    if folded.bytes >= bytes {
        return Ok(folded.bytes);
    }
    let grown =
        fill_with_zeros(&*folded.file, folded.bytes, bytes).and_then(|()| folded.file.sync());
    match grown {
        Ok(()) => Ok(bytes),
        Err(error) if is_lack_of_space(&error) => {
            // The space taken so far is given back. Recovery reads no further than the header says.
            folded.file.set_len(folded.bytes)?;
            Ok(folded.bytes)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn fill_with_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    /// Small, because the journal waits behind each write.
    const STEP: usize = 256 << 10;
    let zeros = AlignedBuffer::zeroed(STEP);
    let mut offset = from;
    while offset < to {
        let len = (to - offset).min(STEP as u64) as usize;
        file.write_at(offset, &zeros[..len])?;
        offset += len as u64;
    }
    Ok(())
}
