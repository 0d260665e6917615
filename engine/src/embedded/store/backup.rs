//! Copying a store while it is in use.

use std::sync::Arc;

use redb::{Key, ReadOnlyTable, ReadableTable, TableDefinition};

use super::catalog::Catalog;
use super::file_set::FileName;
use super::redb::storage::{Handle, failed};
use super::run::RunReader;
use super::schema::{Bytes, OPEN, RUNS, StoreState};
use super::verify::check_records;
use super::{Store, create_file, transact, write_state};
use crate::base::error::{Error, Result};
use crate::embedded::disk::Directory;

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
        target: &Arc<dyn Directory>,
        state_change: impl FnOnce(&mut StoreState),
    ) -> Result<()> {
        let view = self.view();
        let tables = &view.tables;
        let copy = |database: &Handle| {
            // Verifies the catalog and the open records.
            let mut catalog = Catalog::load(tables)?;
            copy_rows(&tables.runs, database, RUNS)?;
            copy_rows(&tables.open, database, OPEN)?;
            check_records(&catalog, &view.files)?;
            // Damaged filters and starts are noticed when they are loaded, and cost no answer.
            for run in catalog.runs.values() {
                let reader = RunReader::of(&view.files, &run.meta, view.seed)?;
                reader.copy_to(&**target)?;
            }
            for (bucket_end, end) in catalog.buckets() {
                let file = view.files.get(FileName::Records(bucket_end))?;
                file.copy_to(&**target, end)?;
            }
            let named = target.sync();
            named.map_err(|error| Error::io("naming the copies of the store's files", error))?;
            state_change(&mut catalog.state);
            transact(database, |transaction| write_state(transaction, &catalog.state))
        };
        create_file(target, self.cache_bytes, |database| {
            // Damage found on the way is that of the original.
            tables.watch.guarded(|| copy(database))
        })
    }
}

/// Copies a table in order, in transactions of bounded size.
fn copy_rows<K: Key + 'static>(
    source: &ReadOnlyTable<K, Bytes>,
    target: &Handle,
    definition: TableDefinition<'_, K, Bytes>,
) -> Result<()> {
    let mut rows = source.iter().map_err(failed)?.peekable();
    while rows.peek().is_some() {
        transact(target, |transaction| {
            let mut table = transaction.open_table(definition).map_err(failed)?;
            let mut copied = 0;
            while copied < BATCH_BYTES
                && let Some(row) = rows.next()
            {
                let (key, value) = row.map_err(failed)?;
                table.insert(key.value(), value.value()).map_err(failed)?;
                copied += value.value().len();
            }
            Ok(())
        })?;
    }
    Ok(())
}
