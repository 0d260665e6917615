//! One file: the bytes that reads see, the durable bytes, and the changes between them.

use std::ops::Range;

use super::contents::{Contents, Page};
use super::crash::Fate;

/// A file that may be open, linked, both, or linked only durably.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    /// The bytes that a read returns: the page cache, or for direct files the cache of the device.
    pub(super) seen: Contents,
    /// The bytes after a power loss in which every unsynced change is lost.
    pub(super) durable: Contents,
    /// The changes that the next sync makes durable, in order.
    unsynced: Vec<Change>,
    /// A sync failed and dropped its changes: `seen` has more than `durable` and `unsynced`.
    dropped: bool,
    /// How often the file is open.
    pub(super) handles: usize,
}

#[derive(Clone, Debug)]
enum Change {
    Write { range: Range<u64>, pages: Vec<Page> },
    SetLen(u64),
}

impl File {
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.seen.write(offset, bytes);
        let range = offset..offset + bytes.len() as u64;
        self.unsynced.push(Change::Write { pages: self.seen.pages(range.clone()), range });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.seen.set_len(len);
        self.unsynced.push(Change::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        if self.dropped {
            unsynced.iter().for_each(|change| change.apply(&mut self.durable));
        } else {
            self.durable = self.seen.clone();
        }
    }

    /// Does what Linux does when writing back fails: the pages become clean without having been
    /// written. Reads still find them, but no later sync writes them.
    pub(super) fn drop_unsynced(&mut self) {
        self.dropped |= !self.unsynced.is_empty();
        self.unsynced.clear();
    }

    /// Evicts clean pages from the cache: reads find the bytes of the device and the unsynced
    /// changes.
    pub(super) fn evict_clean(&mut self) {
        if self.dropped {
            self.seen = self.durable.clone();
            self.unsynced.iter().for_each(|change| change.apply(&mut self.seen));
            self.dropped = false;
        }
    }

    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// The file after a power loss. `fate` decides about each unsynced change.
    pub(super) fn after_power_loss(&self, fate: &mut Fate) -> Self {
        let mut durable = self.durable.clone();
        for change in &self.unsynced {
            match change {
                Change::Write { range, pages } => fate.write(range.clone(), pages, &mut durable),
                Change::SetLen(len) if fate.keeps() => durable.set_len(*len),
                Change::SetLen(_) => {}
            }
        }
        Self { seen: durable.clone(), durable, ..Self::default() }
    }

    /// Changes the bytes as rot does, outside the operations: no sync undoes the damage.
    pub(super) fn corrupt(&mut self, change: impl Fn(&mut Contents)) {
        change(&mut self.seen);
        change(&mut self.durable);
    }
}

impl Change {
    fn apply(&self, contents: &mut Contents) {
        match self {
            Self::Write { range, pages } => contents.put(range.clone(), range.start, pages),
            Self::SetLen(len) => contents.set_len(*len),
        }
    }
}
