//! Verifying a store as a whole: what reading it piece by piece would find out, found out now.

use std::path::Path;
use std::sync::Arc;

use redb::{Key, ReadOnlyTable, ReadableTable};

use super::backend::{failed, guarded};
use super::catalog::Catalog;
use super::run::Block;
use super::schema::Bytes;
use super::view::Tables;
use super::{Store, chunk, open_held};
use crate::disk::Disk;
use crate::error::{Error, Result};

impl Store {
    /// Reads all of the `store.redb` in `dir`, which must not be open, without writing to it:
    /// redb's checksums of every page, and ours of every record, block and row.
    ///
    /// Damage to redb's own bookkeeping of free pages is found by this alone: a write on it may end
    /// the process, since redb can panic twice.
    pub(crate) fn verify(disk: &Arc<dyn Disk>, dir: &Path, cache_bytes: usize) -> Result<()> {
        let (database, ..) = open_held(disk, dir, cache_bytes, true)?;
        guarded(|| {
            let tables = Tables::open(&database)?;
            let catalog = Catalog::load(&tables)?;
            let checks = Checks { catalog: &catalog };
            each_row(&tables.chunks, |key, bytes| checks.chunk(key, bytes))?;
            each_row(&tables.blocks, |key, bytes| checks.block(key, bytes))?;
            checks.no_block_is_missing(&tables)?;
            let seed = catalog.state.seed;
            catalog.live_runs().try_for_each(|run| tables.filter(&run.meta, seed).map(drop))
        })
    }
}

fn each_row<K: Key + 'static>(
    table: &ReadOnlyTable<K, Bytes>,
    check: impl for<'a> Fn(K::SelfType<'a>, &[u8]) -> Result<()>,
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
    pub(super) fn chunk(&self, (_, id): (u64, u64), bytes: &[u8]) -> Result<()> {
        chunk::verify(bytes, id, self.catalog.state.seed)
    }

    pub(super) fn block(&self, (id, block): (u64, u32), bytes: &[u8]) -> Result<()> {
        let run = self.catalog.runs.get(&id);
        let run = run.ok_or_else(|| Error::corrupted(format!("run {id} is not listed")))?;
        Block::decode(bytes, &run.meta, block, self.catalog.state.seed).map(drop)
    }

    pub(super) fn no_block_is_missing(&self, tables: &Tables) -> Result<()> {
        for run in self.catalog.live_runs() {
            let range = (run.meta.id, 0)..(run.meta.id, run.meta.blocks);
            if tables.blocks.range(range).map_err(failed)?.count() != run.meta.blocks as usize {
                return Err(Error::corrupted(format!("run {} lacks a block", run.meta.id)));
            }
        }
        Ok(())
    }
}
