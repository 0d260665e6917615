//! A group as it lies in a segment: one header, the entries, zeros to the end of the block.
//!
//! ```text
//! magic u32 | payload length u32 | first sequence u64 | entries u32 | zero u32 | epoch u64 | time u64
//!   | payload checksum u64 | header checksum u64 | payload
//! ```
//!
//! Both checksums are seeded with the journal's identity, the segment's use number and the offset
//! of the block, so that a frame of an earlier use of the segment, of another place or of another
//! store never validates. The header has a checksum of its own, so that recovery can recognise a
//! newer group behind a damaged one.

use super::{Position, entry};
use crate::base::codec::{Decoder, Encode, checksum};
use crate::base::error::{Error, Result};
use crate::embedded::disk::{AlignedBuffer, BLOCK};
use crate::semantics::command::Change;
use crate::semantics::key::KeyHash;
use crate::semantics::time::Time;

const MAGIC: u32 = u32::from_le_bytes(*b"1KG1");
pub(super) const HEADER_LEN: usize = 56;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) payload_len: u32,
    pub(crate) first_sequence: u64,
    pub(crate) entries: u32,
    pub(crate) epoch: u64,
    pub(crate) time: Time,
    payload_checksum: u64,
}

impl Header {
    /// The length of the whole frame in its segment.
    pub(crate) fn frame_len(&self) -> u64 {
        (HEADER_LEN as u64 + u64::from(self.payload_len)).next_multiple_of(BLOCK as u64)
    }

    /// The header at `position`, if the bytes there are one.
    pub(super) fn decode(bytes: &[u8], id: u64, position: Position) -> Option<Self> {
        let fields = bytes.get(..HEADER_LEN)?;
        let mut decoder = Decoder::new(fields);
        // The magic first: recovery looks at every block behind the last group.
        if decoder.u32().ok()? != MAGIC {
            return None;
        }
        let payload_len = decoder.u32().ok()?;
        let first_sequence = decoder.u64().ok()?;
        let entries = decoder.u32().ok()?;
        decoder.u32().ok()?;
        let epoch = decoder.u64().ok()?;
        let time = Time(decoder.u64().ok()?);
        let payload_checksum = decoder.u64().ok()?;
        let sum = decoder.u64().ok()?;
        (sum == checksum(seed(id, position), &fields[..HEADER_LEN - 8])).then_some(Self {
            payload_len,
            first_sequence,
            entries,
            epoch,
            time,
            payload_checksum,
        })
    }

    /// The payload behind the header, if it is whole.
    pub(super) fn payload<'a>(
        &self,
        frame: &'a [u8],
        id: u64,
        position: Position,
    ) -> Option<&'a [u8]> {
        let payload = frame.get(HEADER_LEN..)?.get(..self.payload_len as usize)?;
        (checksum(seed(id, position), payload) == self.payload_checksum).then_some(payload)
    }
}

fn seed(id: u64, position: Position) -> u64 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&position.segment.to_le_bytes());
    place[8..].copy_from_slice(&position.offset.to_le_bytes());
    checksum(id, &place)
}

/// A group while it is put together. Reused from group to group.
#[derive(Debug, Default)]
pub(crate) struct Group {
    bytes: AlignedBuffer,
    entries: u32,
}

impl Group {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.extend(&[0; HEADER_LEN]);
        self.entries = 0;
    }

    pub(crate) fn push(&mut self, hash: KeyHash, change: &Change) {
        entry::encode_change(&mut self.bytes, hash, change);
        self.entries += 1;
    }

    pub(crate) fn push_epoch(&mut self, ended: Time, incarnation: u64) {
        entry::encode_epoch(&mut self.bytes, ended, incarnation);
        self.entries += 1;
    }

    #[cfg(fuzzing)]
    pub(crate) fn push_raw(&mut self, payload: &[u8], entries: u32) {
        self.bytes.extend(payload);
        self.entries += entries;
    }

    pub(crate) fn entries(&self) -> u64 {
        u64::from(self.entries)
    }

    /// Bytes so far, header included, padding not.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The length of the frame that this group becomes.
    pub(super) fn frame_len(&self) -> u64 {
        self.bytes.len().next_multiple_of(BLOCK) as u64
    }

    /// Writes the header and the padding: the whole frame for `position`.
    pub(super) fn seal(
        &mut self,
        id: u64,
        position: Position,
        first_sequence: u64,
        epoch: u64,
        time: Time,
    ) -> Result<&[u8]> {
        let payload_len = u32::try_from(self.bytes.len() - HEADER_LEN)
            .map_err(|_| Error::invalid("a group of 4 GiB or more"))?;
        let seed = seed(id, position);
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.put_u32(MAGIC);
        header.put_u32(payload_len);
        header.put_u64(first_sequence);
        header.put_u32(self.entries);
        header.put_u32(0);
        header.put_u64(epoch);
        header.put_u64(time.0);
        header.put_u64(checksum(seed, &self.bytes[HEADER_LEN..]));
        header.put_u64(checksum(seed, &header));
        self.bytes[..HEADER_LEN].copy_from_slice(&header);
        self.bytes.pad();
        Ok(&self.bytes)
    }
}
