//! LMDB, through heed.
//!
//! - One write transaction for each group. Neither `MDB_NOSYNC` nor `MDB_NOMETASYNC`: a commit is
//!   durable when it returns. No `MDB_WRITEMAP`, whose msync(2) is not cheaper here and which lets a
//!   stray pointer damage the file.
//! - Alone, callers wait for LMDB's one writer lock and commit one at a time.
//! - `MDB_NORDAHEAD`: keys are random. Readers have a thread-local slot (no `MDB_NOTLS`), which saves
//!   looking for one with every transaction.
//! - The map is as large as it may ever get: it costs address space only.

use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, PutFlags};
use oncekey_benches::Result;

use crate::grouped::{Change, Store};
use crate::rival::Reader;
use crate::work::{Id, Work};

const MAP_BYTES: usize = 256 << 30;

/// An open environment with one database.
pub struct Lmdb {
    env: Env,
    records: Database<Bytes, Bytes>,
    work: Work,
}

impl Lmdb {
    /// Opens the environment in `dir` or creates it.
    ///
    /// # Errors
    /// Those of LMDB.
    #[allow(unsafe_code, reason = "a memory map is only as safe as its file")]
    pub fn open(dir: &Path, work: &Work) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_readers(1024);
        // SAFETY: the file lies in the program's own directory; nobody else opens or changes it.
        // The flag only leaves out reading ahead.
        let env = unsafe { options.flags(EnvFlags::NO_READ_AHEAD).open(dir)? };
        let mut transaction = env.write_txn()?;
        let records = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Self { env, records, work: work.clone() })
    }
}

impl Store for Lmdb {
    fn commit(&self, group: &mut [Change]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for change in group {
            let row = change.id.row();
            if change.complete {
                self.records.put(&mut transaction, &row, &self.work.record)?;
            } else {
                // Looks the key up and inserts in one descent; an existing key is an error.
                let flags = PutFlags::NO_OVERWRITE;
                self.records.put_with_flags(&mut transaction, flags, &row, &self.work.claim)?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Nothing is ever left to be done.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Appended in order, which fills pages.
    fn load(&self, ids: &[Id]) -> Result<()> {
        for chunk in ids.chunks(500_000) {
            let mut transaction = self.env.write_txn()?;
            for id in chunk {
                let (flags, record) = (PutFlags::APPEND, &*self.work.record);
                self.records.put_with_flags(&mut transaction, flags, &id.row(), record)?;
            }
            transaction.commit()?;
        }
        Ok(())
    }

    fn reader(&self) -> Result<Reader> {
        let (env, records, work) = (self.env.clone(), self.records, self.work.clone());
        Ok(Box::new(move |id, out| {
            let transaction = env.read_txn()?;
            let value = records.get(&transaction, &id.row())?;
            work.replay(value.ok_or("a record is missing")?, out)
        }))
    }
}
