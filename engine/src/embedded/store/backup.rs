//! Copying a store while it is in use.

use std::sync::Arc;

use redb::{Key, ReadOnlyTable, ReadableTable, TableDefinition};

use super::catalog::{Catalog, decode_open};
use super::file_set::{Copied, FileName, Files};
use super::redb::storage::{Handle, failed};
use super::redb::tables::Tables;
use super::run::RunReader;
use super::schema::{Bytes, CHECKPOINTS, OPEN, RUNS, StoreState};
use super::verify::{check_checkpoint, check_records};
use super::{View, create_file, transact, write_state};
use crate::base::error::{Error, Result};
use crate::embedded::disk::Directory;
use crate::semantics::key::KeyHash;

/// The least that one transaction of a copy writes.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// The page cache of the copy while it is written.
const COPY_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// The size of a copy of a view, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopySize {
    /// The bytes that are read, verified and written.
    pub(crate) bytes: u64,
    /// The most space that the copy needs, without its journal.
    pub(crate) on_disk: u64,
}

impl View {
    /// The size of a copy of the view.
    pub(crate) fn size(&self) -> Result<CopySize> {
        /// The space that redb takes for an empty file and for the tables that are being written.
        const REDB_BYTES: u64 = 1 << 20;
        self.tables.watch.guarded(|| {
            let catalog = Catalog::load(&self.tables)?;
            let (files, open) = (catalog.file_bytes(), catalog.open_bytes);
            // redb gives a value a power of two of bytes, and leaves that are filled in order stay half
            // empty. Rows are at least as long as a record in flight with its key.
            Ok(CopySize { bytes: files + open, on_disk: files + 2 * open + REDB_BYTES })
        })
    }

    /// Copies the view into a new `store.redb` in `target`, with the state as `state_change`
    /// changes it. Fails when a record or a block fails its checksum: a copy is complete, or there
    /// is none.
    ///
    /// The checksums keep their seed, so rows are copied unchanged. They are copied first: until
    /// then the store file keeps the pages of the commit.
    pub(crate) fn copy_to(
        self: Arc<Self>,
        target: &Arc<dyn Directory>,
        copied: &mut Copied<'_>,
        state_change: impl FnOnce(&mut StoreState) -> Result<()>,
    ) -> Result<()> {
        create_file(target, COPY_CACHE_BYTES, |database| {
            // The watch of the original, since damage that is found here is in the original.
            let watch = self.tables.watch.clone();
            let (mut catalog, files) = watch.guarded(|| {
                // Verifies the catalog and the open records.
                let catalog = Catalog::load(&self.tables)?;
                copy_rows(&self.tables.runs, database, RUNS)?;
                copy_rows(&self.tables.open, database, OPEN)?;
                copy_checkpoints(&self.tables, &catalog, database, copied)?;
                Ok((catalog, self.files.clone()))
            })?;
            drop(self);
            watch.guarded(|| copy_files(&catalog, &files, &**target, copied))?;
            let named = target.sync();
            named.map_err(|error| Error::io("naming the copies of the store's files", error))?;
            state_change(&mut catalog.state)?;
            transact(database, |transaction| write_state(transaction, &catalog.state))
        })
    }
}

/// Verifies all records of the listed files, then copies the files.
fn copy_files(
    catalog: &Catalog,
    files: &Files,
    target: &dyn Directory,
    copied: &mut Copied<'_>,
) -> Result<()> {
    check_records(catalog, files, copied)?;
    // Damaged filters and starts are noticed when they are loaded, and cost no answer.
    for run in catalog.runs.values() {
        RunReader::of(files, &run.meta, catalog.state.seed)?.copy_to(target, copied)?;
    }
    for (bucket_end, end) in catalog.buckets() {
        files.get(FileName::Records(bucket_end))?.copy_to(target, end, copied)?;
    }
    Ok(())
}

/// Copies the checkpoints of the open records, each verified.
fn copy_checkpoints(
    tables: &Tables,
    catalog: &Catalog,
    target: &Handle,
    copied: &mut Copied<'_>,
) -> Result<()> {
    let mut hashes: Vec<_> = (catalog.open.iter())
        .filter(|(_, entry)| entry.has_checkpoint)
        .map(|(hash, _)| hash.0)
        .collect();
    hashes.sort_unstable();
    let mut hashes = hashes.into_iter().map(KeyHash).peekable();
    while hashes.peek().is_some() {
        transact(target, |transaction| {
            let mut rows = transaction.open_table(CHECKPOINTS).map_err(failed)?;
            let mut bytes = 0;
            while bytes < BATCH_BYTES
                && let Some(hash) = hashes.next()
            {
                let row = tables.open.get(hash.0).map_err(failed)?;
                let row = row.ok_or_else(|| Error::corrupted("an open record is missing"))?;
                let record = decode_open(hash, row.value(), catalog.state.seed)?.record;
                let data = check_checkpoint(tables, hash, &record, &catalog.state)?;
                let Some(data) = data else { continue };
                rows.insert(hash.0, &data[..]).map_err(failed)?;
                bytes += data.len();
            }
            // Counts twice: verified and copied.
            copied(2 * bytes as u64)
        })?;
    }
    Ok(())
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
