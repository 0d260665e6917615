//! The tables of the redb file, and the rows that describe the store itself.
//!
//! | table | key | value |
//! |---|---|---|
//! | `state` | 0 | [`StoreState`] |
//! | `runs` | run | [`RunMeta`] |
//! | `open` | hash | a record in flight or orphaned ([`crate::semantics::record_codec`]) |
//! | `checkpoints` | hash | the bytes of the checkpoint of that record, if it has one |
//!
//! redb does not verify the bytes that it reads. So every value carries a checksum, and verified
//! data decides every absence: the state row counts the runs and the open rows, the row of a run
//! counts its blocks. A record has the length and the checksum of its checkpoint, so that a
//! checkpoint is read only when a caller asks for it.

use redb::TableDefinition;

use crate::base::codec::{Decoder, Encode, checksum};
use crate::base::error::{Error, ErrorKind, Result};
use crate::embedded::journal::{JournalId, Position, Reached, Start};
use crate::semantics::secret::Secret;
use crate::semantics::time::Time;

pub(super) type Bytes = &'static [u8];

pub(super) const STATE: TableDefinition<'_, u64, Bytes> = TableDefinition::new("state");
pub(super) const RUNS: TableDefinition<'_, u64, Bytes> = TableDefinition::new("runs");
pub(super) const OPEN: TableDefinition<'_, u128, Bytes> = TableDefinition::new("open");
pub(super) const CHECKPOINTS: TableDefinition<'_, u128, Bytes> =
    TableDefinition::new("checkpoints");

/// The key of the only row of `state`.
pub(super) const STATE_KEY: u64 = 0;

/// The format that this build writes. A build reads all formats up to its own.
const FORMAT: u32 = 1;
/// Seeds the state row, which must be read before the store's own seed is known.
const STATE_SEED: u64 = 0x6f6e_6365_6b65_7901;
/// Keeps the checksums of catalog rows apart from those of other values.
const RUN_SEED: u64 = 0x7275_6e73;

/// The state row of the store.
///
/// ```text
/// format u32 | identity u64 | checksum seed u64 | secret [64] | incarnation u64 | epoch u64 | time u64
/// | folded through u64 | replay from (segment u64, offset u64) | journal reached (sequence u64, epoch u64)
/// | next run u64
/// | runs (count u64, sum u64) | open (count u64, sum u64) | checksum u64
/// ```
/// Every later format must start with its number and end with this checksum.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoreState {
    /// Random: ties the journal's segments to the store. A backup gets another.
    pub(crate) identity: u64,
    pub(crate) secret: Secret,
    /// The incarnation of the tokens that the journal issues from `replay_from` on, until an epoch
    /// begins there.
    pub(crate) incarnation: u64,
    /// The epoch in which `replay_from` lies.
    pub(crate) epoch: u64,
    pub(crate) time: Time,
    /// Every change up to this journal sequence is in the store.
    pub(crate) folded_through: u64,
    /// The position of the journal after that sequence.
    pub(crate) replay_from: Position,
    /// How far the journal was durable when this row was written. A journal that ends before it is
    /// damaged.
    pub(crate) reached: Reached,
    /// Seeds all other checksums. A backup keeps it, and gets another identity.
    pub(super) seed: u64,
    /// The number of the next run. Until the next commit all runs have numbers below
    /// [`Self::end_of_runs`].
    pub(super) next_run: u64,
    pub(super) runs: Tally,
    pub(super) open: Tally,
}

/// A count of rows and the wrapping sum of their checksums. Rows that vanished, or came back from
/// an earlier page, change the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    count: u64,
    sum: u64,
}

impl Tally {
    pub(super) fn add(&mut self, checksum: u64) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(checksum);
    }

    pub(super) fn remove(&mut self, checksum: u64) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(checksum);
    }
}

impl StoreState {
    pub(crate) fn new(identity: u64, secret: Secret, replay_from: Position, time: Time) -> Self {
        Self {
            identity,
            secret,
            incarnation: 0,
            epoch: 0,
            time,
            folded_through: 0,
            replay_from,
            reached: Reached::default(),
            seed: identity,
            next_run: 1,
            runs: Tally::default(),
            open: Tally::default(),
        }
    }

    pub(crate) fn journal_id(&self) -> JournalId {
        JournalId::new(self.identity, &self.secret)
    }

    /// Where the journal is to be read from.
    pub(crate) fn journal_start(&self) -> Start {
        Start {
            position: self.replay_from,
            next_sequence: self.folded_through + 1,
            epoch: self.epoch,
            reaches: self.reached,
        }
    }

    /// The end of the range of run numbers that a commit begins. A run beyond the present range was
    /// written on top of a later commit.
    pub(super) fn end_of_runs(&self) -> u64 {
        /// More than a fold has buckets; a fold or merge that failed gives its numbers back.
        const RANGE: u64 = 1 << 16;
        (self.next_run / RANGE + 1) * RANGE
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(224);
        bytes.put_u32(FORMAT);
        bytes.put_u64(self.identity);
        bytes.put_u64(self.seed);
        bytes.put(&self.secret.0);
        bytes.put_u64(self.incarnation);
        bytes.put_u64(self.epoch);
        bytes.put_u64(self.time.0);
        bytes.put_u64(self.folded_through);
        bytes.put_u64(self.replay_from.segment);
        bytes.put_u64(self.replay_from.offset);
        bytes.put_u64(self.reached.sequence);
        bytes.put_u64(self.reached.epoch);
        bytes.put_u64(self.next_run);
        for tally in [self.runs, self.open] {
            bytes.put_u64(tally.count);
            bytes.put_u64(tally.sum);
        }
        bytes.put_u64(checksum(STATE_SEED, &bytes));
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let (body, _) = unseal_tail(bytes, STATE_SEED, "the state row")?;
        let mut decoder = Decoder::new(body);
        let format = decoder.u32()?;
        if format > FORMAT {
            let context = format!("format {format}, this build knows formats up to {FORMAT}");
            return Err(Error::new(ErrorKind::StoreNewerFormat, context));
        }
        let (identity, seed) = (decoder.u64()?, decoder.u64()?);
        let mut secret = Secret([0; Secret::LEN]);
        secret.0.copy_from_slice(decoder.take(Secret::LEN)?);
        let state = Self {
            identity,
            seed,
            secret,
            incarnation: decoder.u64()?,
            epoch: decoder.u64()?,
            time: Time(decoder.u64()?),
            folded_through: decoder.u64()?,
            replay_from: Position { segment: decoder.u64()?, offset: decoder.u64()? },
            reached: Reached { sequence: decoder.u64()?, epoch: decoder.u64()? },
            next_run: decoder.u64()?,
            runs: Tally { count: decoder.u64()?, sum: decoder.u64()? },
            open: Tally { count: decoder.u64()?, sum: decoder.u64()? },
        };
        decoder.finish()?;
        Ok(state)
    }
}

/// A row of the catalog.
///
/// ```text
/// run u64 | bucket end u64 | entries u32 | end u64 | blocks u32 | filter lines u32 | level u8 | checksum u64
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RunMeta {
    pub(super) id: u64,
    /// The end of the expiry bucket of all its records. Each of them is absent from then on.
    pub(super) bucket_end: u64,
    pub(super) entries: u32,
    /// The length of the bucket's record file as of this run, in bytes.
    pub(super) end: u64,
    pub(super) blocks: u32,
    pub(super) lines: u32,
    /// How often its entries were merged, at most.
    pub(super) level: u8,
}

impl RunMeta {
    /// The row and its checksum.
    pub(super) fn encode(&self, seed: u64) -> (Vec<u8>, u64) {
        let mut bytes = Vec::with_capacity(56);
        bytes.put_u64(self.id);
        bytes.put_u64(self.bucket_end);
        bytes.put_u32(self.entries);
        bytes.put_u64(self.end);
        bytes.put_u32(self.blocks);
        bytes.put_u32(self.lines);
        bytes.put_u8(self.level);
        let checksum = checksum(seed ^ RUN_SEED, &bytes);
        bytes.put_u64(checksum);
        (bytes, checksum)
    }

    pub(super) fn decode(bytes: &[u8], seed: u64, id: u64) -> Result<(Self, u64)> {
        let (body, checksum) = unseal_tail(bytes, seed ^ RUN_SEED, "a run's catalog row")?;
        let mut decoder = Decoder::new(body);
        let meta = Self {
            id: decoder.u64()?,
            bucket_end: decoder.u64()?,
            entries: decoder.u32()?,
            end: decoder.u64()?,
            blocks: decoder.u32()?,
            lines: decoder.u32()?,
            level: decoder.u8()?,
        };
        decoder.finish()?;
        if meta.id != id || meta.blocks == 0 || meta.lines == 0 {
            return Err(Error::corrupted(format!("the catalog row of run {id} is another's")));
        }
        Ok((meta, checksum))
    }
}

/// Checks the checksum at the end. Returns the bytes before it, and the checksum.
fn unseal_tail<'a>(bytes: &'a [u8], seed: u64, what: &str) -> Result<(&'a [u8], u64)> {
    let body = &bytes[..bytes.len().saturating_sub(8)];
    let stored = Decoder::new(&bytes[body.len()..]).u64()?;
    if checksum(seed, body) != stored {
        return Err(Error::corrupted(format!("{what} fails its checksum")));
    }
    Ok((body, stored))
}
