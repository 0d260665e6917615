//! Verifying a store as a whole: what reading it piece by piece would find out, found out now.

use std::path::Path;
use std::sync::Arc;

use redb::{Key, ReadOnlyTable, ReadableTable};

use super::backend::failed;
use super::catalog::{Catalog, decode_open};
use super::records::{RecordFile, RecordFiles};
use super::run::{Block, Entry};
use super::schema::{Bytes, StoreState};
use super::view::{Tables, View};
use super::{Store, open_held, record};
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{self, KeyHash};
use crate::verify::Verification;

impl Store {
    /// Reads all of the `store.redb` in `dir`, which must not be open, without writing to it:
    /// redb's checksums of every page, and ours of every record, block and row. Notes every damage
    /// in `found` and gives the state, unless that is damaged.
    ///
    /// Damage to redb's own bookkeeping of free pages is found by this alone.
    pub(crate) fn verify(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        cache_bytes: usize,
        found: &mut Verification,
    ) -> Result<Option<StoreState>> {
        let database = match open_held(disk, dir, cache_bytes, true) {
            Ok((database, ..)) => database,
            Err(error) if error.kind() == ErrorKind::Corrupted => {
                found.damaged(None, &error);
                // Which records it hit: without redb's check, as the engine opens the file.
                let Ok((database, ..)) = open_held(disk, dir, cache_bytes, false) else {
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
                return Ok(state);
            }
            Err(error) => return Err(error),
        };
        let mut walk = Walk { tables: &tables, state: &catalog.state, found };
        walk.open_records();
        walk.blocks(&catalog);
        for bucket_end in catalog.buckets().into_keys() {
            match RecordFiles::open(&**disk, dir, [bucket_end].into_iter()) {
                Ok(files) => walk.records(&catalog, files.get(bucket_end)?, bucket_end),
                Err(error) => walk.found.damaged(None, &error),
            }
        }
        Ok(Some(catalog.state))
    }
}

/// Reads on behind every damage.
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
                    Ok(_) => found.records += 1,
                    Err(error) => found.damaged(key_of(bytes, hash, state), &error),
                }
            }
            Ok(())
        });
        self.note(walked);
    }

    /// Blocks and filters, those of runs that are not read any more included.
    fn blocks(&mut self, catalog: &Catalog) {
        for run in catalog.live_runs() {
            let Self { tables, state, .. } = &*self;
            let filter = tables.watch.guarded(|| tables.filter(&run.meta, state.seed).map(drop));
            self.note(filter);
        }
        let checks = Checks { catalog };
        let Self { tables, .. } = self;
        let walked = (tables.watch)
            .guarded(|| each_row(&tables.blocks, |key, bytes| checks.known_run(key, bytes)));
        self.note(walked);
    }

    /// The records of one bucket by way of its live runs.
    fn records(&mut self, catalog: &Catalog, file: &RecordFile, bucket_end: u64) {
        let of_bucket = catalog.live_runs().filter(|run| run.meta.bucket_end == bucket_end);
        for run in of_bucket {
            let mut entries = Vec::new();
            for block in 0..run.meta.blocks {
                let Self { tables, state, .. } = &*self;
                match tables.watch.guarded(|| tables.block(&run.meta, block, state.seed)) {
                    Ok(block) => entries.extend(block),
                    Err(error) => self.found.damaged(None, &error),
                }
            }
            // From the front of the file to its end.
            entries.sort_unstable_by_key(|entry| entry.locator);
            for entry in entries {
                self.record(file, entry);
            }
        }
    }

    fn record(&mut self, file: &RecordFile, entry: Entry) {
        let Self { state, found, .. } = self;
        let bytes = match file.bytes(entry.locator) {
            Ok(bytes) => bytes,
            Err(error) => return found.damaged(None, &error),
        };
        match check_record(file, &bytes, entry, state) {
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

fn check_record(file: &RecordFile, bytes: &[u8], entry: Entry, state: &StoreState) -> Result<()> {
    let stored = file.decode(bytes, entry.locator, state.seed)?;
    if KeyHash::of(&stored.record.key, &state.secret) != entry.hash {
        return Err(Error::corrupted("a run lists a record under another key"));
    }
    Ok(())
}

/// The key of a record that fails its checksum, if its key is still what its hash was made of.
fn key_of(bytes: &[u8], hash: KeyHash, state: &StoreState) -> Option<key::Key> {
    record::peek_key(bytes).filter(|key| KeyHash::of(key, &state.secret) == hash)
}

fn each_row<K: Key + 'static>(
    table: &ReadOnlyTable<K, Bytes>,
    mut check: impl for<'a> FnMut(K::SelfType<'a>, &[u8]) -> Result<()>,
) -> Result<()> {
    for row in table.iter().map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        check(key.value(), value.value())?;
    }
    Ok(())
}

/// What every row of a snapshot must satisfy, by its catalog.
pub(super) struct Checks<'a> {
    pub(super) catalog: &'a Catalog,
}

impl Checks<'_> {
    /// Reads and verifies every record that a live run lists.
    pub(super) fn records(&self, view: &View) -> Result<()> {
        let state = &self.catalog.state;
        for run in self.catalog.live_runs() {
            let file = view.files.get(run.meta.bucket_end)?;
            for block in 0..run.meta.blocks {
                for entry in view.tables.block(&run.meta, block, state.seed)? {
                    check_record(file, &file.bytes(entry.locator)?, entry, state)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn block(&self, (id, block): (u64, u32), bytes: &[u8]) -> Result<()> {
        let run = self.catalog.runs.get(&id);
        let run = run.ok_or_else(|| Error::corrupted(format!("run {id} is not listed")))?;
        Block::decode(bytes, &run.meta, block, self.catalog.state.seed).map(drop)
    }

    fn known_run(&self, (id, block): (u64, u32), bytes: &[u8]) -> Result<()> {
        // Blocks of live runs were read.
        let live = self.catalog.live_runs().any(|run| run.meta.id == id);
        if live { Ok(()) } else { self.block((id, block), bytes) }
    }
}
