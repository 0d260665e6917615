//! Verifying a whole store: finds all damage that reading it piece by piece would find.

use std::sync::Arc;

use redb::{ReadableTable, ReadableTableMetadata};

use super::catalog::{Catalog, decode_open};
use super::file_set::{COPY_BYTES, Copied, Files, Opener};
use super::leftovers::Listing;
use super::opening::open_held;
use super::record_file::{InOrder, Records};
use super::redb::storage::failed;
use super::redb::tables::Tables;
use super::run::{Entry, RunReader};
use super::schema::{RunMeta, StoreState};
use crate::backend::reports::Verification;
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::embedded::disk::Directory;
use crate::semantics::key::{self, KeyHash};
use crate::semantics::record::{Checkpoint, Record};
use crate::semantics::record_codec;

impl super::Store {
    /// Reads all of the `store.redb` in `dir`, which must not be open, without writing to it.
    /// Checks redb's checksums of every page, and ours of every record, block and row. Notes all
    /// damage in `found`. Returns the state and the listed files, unless they are damaged.
    ///
    /// Only this call finds damage to redb's own bookkeeping of free pages.
    pub(crate) fn verify(
        dir: &Arc<dyn Directory>,
        cache_bytes: usize,
        max_open_files: usize,
        found: &mut Verification,
    ) -> Result<Option<(StoreState, Option<Listing>)>> {
        let database = match open_held(dir, cache_bytes, true) {
            Ok((database, ..)) => database,
            Err(error) if error.kind() == ErrorKind::Corrupted => {
                found.damaged(None, &error);
                // Finds the damaged records: opens the file without redb's check, as the engine
                // does.
                let Ok((database, ..)) = open_held(dir, cache_bytes, false) else {
                    return Ok(None);
                };
                database
            }
            Err(error) => return Err(error),
        };
        let tables = match database.watch().guarded(|| Tables::open(&database)) {
            Ok(tables) => tables,
            Err(error) if found.damage().is_empty() => return Err(error),
            Err(_) => return Ok(None),
        };
        let catalog = match tables.watch.guarded(|| Catalog::load(&tables)) {
            Ok(catalog) => catalog,
            Err(error) if error.kind() == ErrorKind::Corrupted => {
                let state = tables.watch.guarded(|| Catalog::load_state(&tables)).ok();
                let known = found.damage().len();
                if let Some(state) = &state {
                    Walk { tables: &tables, state, found }.open_records();
                }
                if found.damage().len() == known {
                    found.damaged(None, &error);
                }
                return Ok(state.map(|state| (state, None)));
            }
            Err(error) => return Err(error),
        };
        let mut walk = Walk { tables: &tables, state: &catalog.state, found };
        walk.open_records();
        walk.stray_checkpoints(&catalog);
        let mut files = Files::none(Opener::new(dir.clone(), max_open_files));
        for name in catalog.file_names() {
            if let Err(error) = files.add(name) {
                walk.found.damaged(None, &error);
            }
        }
        for run in catalog.runs.values() {
            walk.run(&files, &run.meta);
        }
        let listing = Listing::of(&catalog);
        Ok(Some((catalog.state, Some(listing))))
    }
}

/// Continues after damage.
struct Walk<'a> {
    tables: &'a Tables,
    state: &'a StoreState,
    found: &'a mut Verification,
}

impl Walk<'_> {
    fn open_records(&mut self) {
        let Self { tables, state, found } = self;
        let walked = tables.watch.guarded(|| {
            for row in tables.open.iter().map_err(failed)? {
                let (hash, value) = row.map_err(failed)?;
                let (hash, bytes) = (KeyHash(hash.value()), value.value());
                match decode_open(hash, bytes, state.seed) {
                    Ok(stored) => {
                        found.records += 1;
                        if let Err(error) = check_checkpoint(tables, hash, &stored.record, state) {
                            found.damaged(Some(stored.record.key), &error);
                        }
                    }
                    Err(error) => found.damaged(key_of(bytes, hash, state), &error),
                }
            }
            Ok(())
        });
        self.note(walked);
    }

    /// Counts the checkpoints, to find those that belong to no open record.
    fn stray_checkpoints(&mut self, catalog: &Catalog) {
        let tables = self.tables;
        let counted = tables.watch.guarded(|| {
            let expected =
                catalog.open.values().filter(|entry| entry.has_checkpoint).count() as u64;
            match tables.checkpoints.len().map_err(failed)? {
                found if found == expected => Ok(()),
                found => Err(Error::corrupted(format!(
                    "there are {found} checkpoints, and {expected} records that have one"
                ))),
            }
        });
        self.note(counted);
    }

    /// Checks a run and the records that it lists. A file that cannot be opened is noted already.
    fn run(&mut self, files: &Files, meta: &RunMeta) {
        let Ok(reader) = RunReader::of(files, meta, self.state.seed) else { return };
        self.note(reader.filter().map(drop));
        let starts = reader.starts();
        let mut entries = Vec::new();
        for block in 0..meta.blocks {
            match reader.block(block, starts.as_ref().ok()) {
                Ok(block) => entries.extend(block.entries()),
                Err(error) => self.found.damaged(None, &error),
            }
        }
        self.note(starts.map(drop));
        // In the order in which they lie in the file.
        entries.sort_unstable_by_key(|entry| entry.locator);
        let Ok(records) = Records::of(files, meta.bucket_end, self.state.seed) else { return };
        let mut in_order = InOrder::of(records, meta.end);
        entries.into_iter().for_each(|entry| self.record(&records, &mut in_order, entry));
    }

    fn record(&mut self, records: &Records<'_>, in_order: &mut InOrder<'_>, entry: Entry) {
        let Self { state, found, .. } = self;
        let bytes = match in_order.bytes(entry.locator) {
            Ok(bytes) => bytes,
            Err(error) => return found.damaged(None, &error),
        };
        match check_record(records, &bytes, entry, state) {
            Ok(()) => found.records += 1,
            Err(error) => found.damaged(key_of(&bytes, entry.hash, state), &error),
        }
    }

    fn note(&mut self, walked: Result<()>) {
        if let Err(error) = walked {
            self.found.damaged(None, &error);
        }
    }
}

/// Reads the checkpoint of an open record. The guard of its own keeps damage to one from hitting
/// others.
pub(super) fn check_checkpoint(
    tables: &Tables,
    hash: KeyHash,
    record: &Record,
    state: &StoreState,
) -> Result<Option<SharedBytes>> {
    let attempt = record.attempt();
    let Some(Checkpoint::Stored(stored)) = attempt.and_then(|attempt| attempt.checkpoint.as_ref())
    else {
        return Ok(None);
    };
    let read = tables.watch.guarded(|| tables.checkpoint(hash, *stored, state.seed))?;
    read.ok_or_else(|| Error::corrupted("a checkpoint is not the one that was stored last"))
        .map(Some)
}

fn check_record(
    records: &Records<'_>,
    bytes: &SharedBytes,
    entry: Entry,
    state: &StoreState,
) -> Result<()> {
    let stored = records.decode(bytes, entry.locator)?;
    if KeyHash::of(&stored.record.key, &state.secret) != entry.hash {
        return Err(Error::corrupted("a run lists a record under another key"));
    }
    Ok(())
}

/// The key of a record that fails its checksum, if that key still gives the hash.
fn key_of(bytes: &[u8], hash: KeyHash, state: &StoreState) -> Option<key::Key> {
    record_codec::peek_key(bytes).filter(|key| KeyHash::of(key, &state.secret) == hash)
}

/// Reads and verifies every block and every listed record, and reports the bytes that it read. Records
/// are read in the order in which they lie in their file: read at random, they would keep the disk
/// from the journal.
pub(super) fn check_records(catalog: &Catalog, files: &Files, read: &mut Copied<'_>) -> Result<()> {
    /// The entries that are held and sorted at once: 32 MiB.
    const MOST: usize = 1 << 20;
    let state = &catalog.state;
    for run in catalog.runs.values() {
        let reader = RunReader::of(files, &run.meta, state.seed)?;
        let records = Records::of(files, run.meta.bucket_end, state.seed)?;
        let mut entries = Vec::new();
        for block in 0..run.meta.blocks {
            entries.extend(reader.block(block, None)?.entries());
            // Nothing to count, but the copy may have to end.
            read(0)?;
            if entries.len() >= MOST || block + 1 == run.meta.blocks {
                entries.sort_unstable_by_key(|entry: &Entry| entry.locator);
                let in_order = InOrder::of(records, run.meta.end);
                check_in_order(&records, in_order, entries.drain(..), state, read)?;
            }
        }
    }
    Ok(())
}

fn check_in_order(
    records: &Records<'_>,
    mut in_order: InOrder<'_>,
    entries: impl Iterator<Item = Entry>,
    state: &StoreState,
    read: &mut Copied<'_>,
) -> Result<()> {
    let mut bytes = 0;
    for entry in entries {
        check_record(records, &in_order.bytes(entry.locator)?, entry, state)?;
        bytes += entry.locator.len() as u64;
        if bytes >= COPY_BYTES {
            read(std::mem::take(&mut bytes))?;
        }
    }
    read(bytes)
}
