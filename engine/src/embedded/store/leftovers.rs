//! Files that no commit lists: which of them interrupted work may have left, and which not.
//!
//! A fold or merge writes files before the commit that lists them, and a sweep or merge removes
//! files after the commit that no longer lists them. Any other file was written on top of a later
//! commit. Then `store.redb` is an earlier version of itself, or another store's, and removing the
//! file would lose its records.

use std::collections::BTreeMap;
use std::io;

use super::catalog::Catalog;
use super::file_set::FileName;
use super::record_file::{UNIT, record_seed};
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, Result};
use crate::embedded::disk::{BLOCK, Caching, Directory, DiskFile};
use crate::semantics::record_codec::{self, Stored};

/// The files that a commit lists.
pub(crate) struct Listing {
    /// The listed files, for record files with the end of their records.
    ends: BTreeMap<FileName, u64>,
    /// Every run that was begun on top of this commit has a smaller number.
    end_of_runs: u64,
    time: u64,
    seed: u64,
}

/// Files that may be removed.
pub(crate) struct Leftovers(Vec<FileName>);

impl Listing {
    pub(super) fn of(catalog: &Catalog) -> Self {
        let records = catalog.buckets().into_iter();
        let records = records.map(|(bucket_end, end)| (FileName::Records(bucket_end), end));
        let runs = catalog.runs.keys().map(|run| (FileName::Run(*run), 0));
        Self {
            ends: records.chain(runs).collect(),
            end_of_runs: catalog.state.end_of_runs(),
            time: catalog.state.time.0,
            seed: catalog.state.seed,
        }
    }

    /// The unlisted files in `dir`, whose journal ends with `last_sequence`.
    ///
    /// # Errors
    /// `Corrupted` for a file, or a part of one, that interrupted work does not explain.
    pub(crate) fn leftovers(&self, dir: &dyn Directory, last_sequence: u64) -> Result<Leftovers> {
        let names = dir.list().map_err(|error| Error::io("the store's directory", error))?;
        let mut unlisted = Vec::new();
        for name in names.iter().filter_map(|name| FileName::parse(name)) {
            let end = self.ends.get(&name).copied();
            let explained = match name {
                FileName::Run(run) => run < self.end_of_runs,
                // Swept. The removal of the file may not have been durable.
                FileName::Records(bucket_end) if bucket_end <= self.time => true,
                FileName::Records(bucket_end) => {
                    let newest = self.newest(dir, bucket_end, end.unwrap_or(0))?;
                    // A fold writes only records that the journal has.
                    newest.is_none_or(|sequence| sequence <= last_sequence)
                }
            };
            if !explained {
                return Err(Error::corrupted(format!(
                    "{name} holds what neither store.redb nor the journal knows of: they are an \
                     earlier version, or another store's"
                )));
            }
            if end.is_none() {
                // A directory of this name could not be removed later, when the open has written.
                let len = dir.file_len(&name.to_string());
                len.map_err(|error| Error::io(format!("measuring {name}"), error))?;
                unlisted.push(name);
            }
        }
        Ok(Leftovers(unlisted))
    }

    /// The greatest sequence of the records of a bucket that lie at `offset` or behind it.
    fn newest(&self, dir: &dyn Directory, bucket_end: u64, mut offset: u64) -> Result<Option<u64>> {
        let name = FileName::Records(bucket_end);
        let failed = |error| Error::io(format!("reading {name}"), error);
        let file = dir.open(&name.to_string(), Caching::Buffered).map_err(failed)?;
        let end = file.len().map_err(failed)?;
        let mut newest = None;
        while offset < end {
            let stored = self.record_at(&*file, bucket_end, offset, end).map_err(failed)?;
            offset = match stored {
                Some(stored) => {
                    newest = newest.max(Some(stored.sequence));
                    offset + (stored.len as u64).next_multiple_of(UNIT as u64)
                }
                // Torn, or behind the last record of a fold: the next fold begins at a block.
                None => {
                    let next = offset / BLOCK as u64 * BLOCK as u64 + BLOCK as u64;
                    let data = file.skip_hole(next).map_err(failed)?;
                    next.max(data / BLOCK as u64 * BLOCK as u64)
                }
            };
        }
        Ok(newest)
    }

    /// The record at `offset`, if there is a whole one before `end`.
    fn record_at(
        &self,
        file: &dyn DiskFile,
        bucket_end: u64,
        offset: u64,
        end: u64,
    ) -> io::Result<Option<Stored>> {
        /// Checksum and length.
        const HEAD: u64 = 12;
        /// The length of the longest record that a locator can express.
        const LONGEST: u64 = 256 << 20;
        let room = (end - offset).min(LONGEST);
        if room < HEAD {
            return Ok(None);
        }
        let mut head = [0; HEAD as usize];
        file.read_at(offset, &mut head)?;
        let body = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        let len = HEAD + u64::from(body);
        if body == 0 || len > room {
            return Ok(None);
        }
        let bytes = SharedBytes::filled(len as usize, |bytes| file.read_at(offset, bytes))?;
        Ok(record_codec::decode(&bytes, record_seed(self.seed, bucket_end, offset)).ok())
    }
}

impl Leftovers {
    /// Removes the files. Returns whether there were any. The removal is durable after a sync of
    /// the directory.
    pub(crate) fn remove(self, dir: &dyn Directory) -> Result<bool> {
        let any = !self.0.is_empty();
        for name in self.0 {
            dir.remove(&name.to_string())
                .map_err(|error| Error::io(format!("removing {name}"), error))?;
        }
        Ok(any)
    }
}
