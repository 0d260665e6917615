//! Copying a store while it is in use.

use std::borrow::Borrow;
use std::path::Path;

use redb::{Database, Key, ReadOnlyTable, ReadableTable, TableDefinition};

use super::backend::failed;
use super::catalog::Catalog;
use super::run::Block;
use super::schema::{BLOCKS, Bytes, CHUNKS, FILTERS, OPEN, RUNS, RunMeta, StoreState};
use super::view::Tables;
use super::{Store, chunk, create_file, transact, write_state};
use crate::error::{Error, Result};

/// What one transaction of a copy writes, at least.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

impl Store {
    /// Copies the last commit into a new `store.redb` in `target`, with a state that
    /// `state_change` has changed. Fails when a record or a block fails its checksum: a copy is whole or none.
    ///
    /// The checksums keep their seed, so that rows are copied as they are. While the copy runs,
    /// the file keeps the pages of the commit that is copied.
    pub(crate) fn copy_to(
        &self,
        target: &Path,
        state_change: impl FnOnce(&mut StoreState),
    ) -> Result<()> {
        let view = self.view();
        let (tables, seed) = (&view.tables, view.seed);
        create_file(&self.disk, target, self.cache_bytes, |database| {
            // Verifies the catalog and the open records.
            let mut catalog = Catalog::load(tables)?;
            copy_rows(&tables.runs, database, RUNS, |_, _| Ok(()))?;
            copy_rows(&tables.open, database, OPEN, |_, _| Ok(()))?;
            copy_rows(&tables.chunks, database, CHUNKS, |(_, id), bytes| {
                chunk::verify(bytes, id, seed)
            })?;
            copy_rows(&tables.blocks, database, BLOCKS, |(id, block), bytes| {
                Block::decode(bytes, meta_of(&catalog, id)?, block, seed).map(drop)
            })?;
            // A damaged filter is noticed when it is loaded, and costs no answer.
            copy_rows(&tables.filters, database, FILTERS, |_, _| Ok(()))?;
            verify_presence(tables, &catalog)?;
            state_change(&mut catalog.state);
            transact(database, |transaction| write_state(transaction, &catalog.state))
        })
    }
}

fn meta_of(catalog: &Catalog, id: u64) -> Result<&RunMeta> {
    let run = catalog.runs.get(&id);
    run.map(|run| &run.meta).ok_or_else(|| Error::corrupted(format!("run {id} is not listed")))
}

/// Every block of a live run is there.
fn verify_presence(tables: &Tables, catalog: &Catalog) -> Result<()> {
    for run in catalog.live_runs() {
        let range = (run.meta.id, 0)..(run.meta.id, run.meta.blocks);
        if tables.blocks.range(range).map_err(failed)?.count() != run.meta.blocks as usize {
            return Err(Error::corrupted(format!("run {} lacks a block", run.meta.id)));
        }
    }
    Ok(())
}

/// Copies a table in order, in transactions of bounded size, verifying each row.
fn copy_rows<K: Key + 'static>(
    source: &ReadOnlyTable<K, Bytes>,
    target: &Database,
    definition: TableDefinition<'_, K, Bytes>,
    verify: impl for<'a> Fn(K::SelfType<'a>, &[u8]) -> Result<()>,
) -> Result<()>
where
    for<'a> K::SelfType<'a>: Borrow<K::SelfType<'a>>,
{
    let mut rows = source.iter().map_err(failed)?.peekable();
    while rows.peek().is_some() {
        transact(target, |transaction| {
            let mut table = transaction.open_table(definition).map_err(failed)?;
            let mut copied = 0;
            while copied < BATCH_BYTES
                && let Some(row) = rows.next()
            {
                let (key, value) = row.map_err(failed)?;
                verify(key.value(), value.value())?;
                table.insert(key.value(), value.value()).map_err(failed)?;
                copied += value.value().len();
            }
            Ok(())
        })?;
    }
    Ok(())
}
