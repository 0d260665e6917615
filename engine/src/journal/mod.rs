//! The journal: append-only segments that make a group of changes durable with one sync.

/// A place in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The use number of the segment: counts segments in the order in which they were used.
    pub(crate) segment: u64,
    /// Bytes from the start of the segment's file, a multiple of the block size.
    pub(crate) offset: u64,
}
