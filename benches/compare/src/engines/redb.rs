//! redb, one row for each key: what oncekey would be without its journal, runs and chunks.
//!
//! One write transaction for each group, `Durability::Immediate`, one-phase commits, no quick repair:
//! one sync for each commit, the fastest that is durable.

use std::path::Path;
use std::sync::Arc;

use oncekey_benches::Result;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::engines::cache_bytes;
use crate::grouped::{Change, Store};
use crate::rival::Reader;
use crate::work::{Id, Work};

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// An open database.
pub struct Redb {
    db: Arc<Database>,
    work: Work,
}

impl Redb {
    /// Opens the database in `dir` or creates it.
    ///
    /// # Errors
    /// Those of redb.
    pub fn open(dir: &Path, work: &Work) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes() as usize);
        let db = Arc::new(builder.create(dir.join("records.redb"))?);
        let transaction = db.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.commit()?;
        Ok(Self { db, work: work.clone() })
    }
}

impl Store for Redb {
    fn commit(&self, group: &mut [Change]) -> Result<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for change in group {
                let row = change.id.row();
                if change.complete {
                    records.insert(&row[..], &*self.work.record)?;
                } else if records.get(&row[..])?.is_some() {
                    return Err("a fresh key was not new".into());
                } else {
                    records.insert(&row[..], &*self.work.claim)?;
                }
            }
        }
        Ok(transaction.commit()?)
    }

    /// Nothing is ever left to be done.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Inserted in order.
    fn load(&self, ids: &[Id]) -> Result<()> {
        for chunk in ids.chunks(250_000) {
            let transaction = self.db.begin_write()?;
            {
                let mut records = transaction.open_table(RECORDS)?;
                for id in chunk {
                    records.insert(&id.row()[..], &*self.work.record)?;
                }
            }
            transaction.commit()?;
        }
        Ok(())
    }

    fn reader(&self) -> Result<Reader> {
        let (db, work) = (self.db.clone(), self.work.clone());
        Ok(Box::new(move |id, out| {
            let records = db.begin_read()?.open_table(RECORDS)?;
            let value = records.get(&id.row()[..])?.ok_or("a record is missing")?;
            work.replay(value.value(), out)
        }))
    }
}
