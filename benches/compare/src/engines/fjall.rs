//! fjall 3.
//!
//! - One batch for each group, persisted by its commit with `SyncData`: as durable as `SyncAll`,
//!   since the length of a journal file is data that fdatasync(2) writes too, and cheaper.
//! - Responses go to blob files (key-value separation, made for values of this size), so that
//!   compactions move keys only. Nothing is compressed: responses do not compress.
//! - fjall does not group by itself: `persist` holds the journal's lock while it syncs.

use std::path::Path;

use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode,
};
use oncekey_benches::Result;

use crate::engines::cache_bytes;
use crate::grouped::{Change, Store};
use crate::rival::Reader;
use crate::work::{Id, Work};

/// An open database with one keyspace.
pub struct Fjall {
    db: Database,
    records: Keyspace,
    work: Work,
}

impl Fjall {
    /// Opens the database in `dir` or creates it.
    ///
    /// # Errors
    /// Those of fjall.
    pub fn open(dir: &Path, work: &Work) -> Result<Self> {
        let db = Database::builder(dir)
            .journal_compression(CompressionType::None)
            .cache_size(cache_bytes())
            .max_journaling_size(1 << 30)
            .open()?;
        let records = db.keyspace("records", || {
            KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::disabled())
                .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(
                    BloomConstructionPolicy::BitsPerKey(10.0),
                )))
                .max_memtable_size(64 << 20)
                .with_kv_separation(Some(
                    KvSeparationOptions::default()
                        .compression(CompressionType::None)
                        .separation_threshold(512),
                ))
        })?;
        Ok(Self { db, records, work: work.clone() })
    }
}

impl Store for Fjall {
    fn commit(&self, group: &mut [Change]) -> Result<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for change in group {
            let row = change.id.row();
            if change.complete {
                batch.insert(&self.records, row, &*self.work.record);
            } else if self.records.contains_key(row)? {
                return Err("a fresh key was not new".into());
            } else {
                batch.insert(&self.records, row, &*self.work.claim);
            }
        }
        Ok(batch.commit()?)
    }

    fn settle(&self) -> Result<()> {
        self.records.rotate_memtable_and_wait()?;
        while self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }

    /// Sorted ingestion.
    fn load(&self, ids: &[Id]) -> Result<()> {
        let mut ingestion = self.records.start_ingestion()?;
        for id in ids {
            ingestion.write(id.row(), &*self.work.record)?;
        }
        ingestion.finish()?;
        self.settle()
    }

    fn reader(&self) -> Result<Reader> {
        let (records, work) = (self.records.clone(), self.work.clone());
        Ok(Box::new(move |id, out| {
            work.replay(&records.get(id.row())?.ok_or("a record is missing")?, out)
        }))
    }
}
