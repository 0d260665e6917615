//! RocksDB.
//!
//! - One `WriteBatch` for each group, written with `sync = true` (fdatasync). Alone, callers are
//!   grouped by RocksDB's write groups, with pipelined writes.
//! - The WAL is recycled, so that syncs do not have to allocate blocks (RocksDB preallocates new
//!   ones by itself); `manual_wal_flush` stays off. Point-in-time recovery, the default, is what
//!   recycling asks for.
//! - Two background jobs for two cores. Memtables of 64 MiB, as much as oncekey keeps in memory.
//! - Responses go to blob files, so that compactions move keys only. Nothing is compressed:
//!   responses do not compress.
//! - Bloom filters of 10 bits per key, whole keys; HyperClock block cache for index, filter and
//!   data; blobs are read through the page cache and the same block cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oncekey_benches::Result;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, SstFileWriter, WaitForCompactOptions,
    WriteBatch, WriteOptions,
};

use crate::engines::cache_bytes;
use crate::grouped::{Change, Store};
use crate::rival::Reader;
use crate::work::{Id, Work};

/// An open database.
pub struct RocksDb {
    db: Arc<DB>,
    options: Options,
    dir: PathBuf,
    work: Work,
}

impl RocksDb {
    /// Opens the database in `dir` or creates it; `alone` when callers write by themselves.
    ///
    /// # Errors
    /// Those of RocksDB.
    pub fn open(dir: &Path, work: &Work, alone: bool) -> Result<Self> {
        let cache = Cache::new_hyper_clock_cache(cache_bytes() as usize, 0);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_format_version(6);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_blob_cache(&cache);
        options.set_compression_type(DBCompressionType::None);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(512);
        options.set_enable_blob_gc(true);
        options.set_recycle_log_file_num(4);
        options.set_max_background_jobs(2);
        options.set_write_buffer_size(64 << 20);
        options.set_max_write_buffer_number(4);
        options.set_enable_pipelined_write(alone);
        options.set_max_open_files(-1);
        let db = Arc::new(DB::open(&options, dir)?);
        Ok(Self { db, options, dir: dir.to_owned(), work: work.clone() })
    }
}

impl Store for RocksDb {
    fn commit(&self, group: &mut [Change]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for change in group {
            let row = change.id.row();
            if change.complete {
                batch.put(row, &self.work.record);
            } else if self.db.get_pinned(row)?.is_some() {
                return Err("a fresh key was not new".into());
            } else {
                batch.put(row, &self.work.claim);
            }
        }
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        Ok(self.db.write_opt(batch, &durable)?)
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        Ok(self.db.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    /// A sorted table, built outside and taken in whole.
    fn load(&self, ids: &[Id]) -> Result<()> {
        // One file for each million: tables of the size that compactions would make are no use.
        let mut files = Vec::new();
        for (number, chunk) in ids.chunks(1_000_000).enumerate() {
            let file = self.dir.join(format!("load-{number}.sst"));
            let mut writer = SstFileWriter::create(&self.options);
            writer.open(&file)?;
            for id in chunk {
                writer.put(id.row(), &self.work.record)?;
            }
            writer.finish()?;
            files.push(file);
        }
        let mut ingest = rocksdb::IngestExternalFileOptions::default();
        ingest.set_move_files(true);
        self.db.ingest_external_file_opts(&ingest, files)?;
        self.settle()
    }

    fn reader(&self) -> Result<Reader> {
        let (db, work) = (self.db.clone(), self.work.clone());
        Ok(Box::new(move |id, out| {
            work.replay(&db.get_pinned(id.row())?.ok_or("a record is missing")?, out)
        }))
    }
}
