//! The tables of the store file, as one snapshot shows them.

use ::redb::{ReadOnlyTable, ReadableDatabase, TableError};

use super::storage::{Handle, Watch, failed};
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::embedded::store::schema::{Bytes, CHECKPOINTS, OPEN, RUNS, STATE};
use crate::semantics::key::KeyHash;
use crate::semantics::record::StoredCheckpoint;
use crate::semantics::record_codec;

/// The tables of one snapshot.
pub(crate) struct Tables {
    pub(crate) state: ReadOnlyTable<u64, Bytes>,
    pub(crate) runs: ReadOnlyTable<u64, Bytes>,
    pub(crate) open: ReadOnlyTable<u128, Bytes>,
    pub(crate) checkpoints: ReadOnlyTable<u128, Bytes>,
    /// Guards every read of the tables.
    pub(crate) watch: Watch,
}

impl Tables {
    pub(crate) fn open(database: &Handle) -> Result<Self> {
        let snapshot = database.begin_read().map_err(failed)?;
        // All tables are created together, so a file without this one is not a store.
        let state = snapshot.open_table(STATE).map_err(|error| match error {
            TableError::Storage(_) => failed(error),
            other => Error::new(ErrorKind::StoreForeign, other.to_string()),
        })?;
        Ok(Self {
            state,
            runs: snapshot.open_table(RUNS).map_err(failed)?,
            open: snapshot.open_table(OPEN).map_err(failed)?,
            checkpoints: snapshot.open_table(CHECKPOINTS).map_err(failed)?,
            watch: database.watch().clone(),
        })
    }

    /// The bytes of a checkpoint. `None` when the key has none here, or another.
    pub(crate) fn checkpoint(
        &self,
        hash: KeyHash,
        expected: StoredCheckpoint,
        seed: u64,
    ) -> Result<Option<SharedBytes>> {
        let row = self.checkpoints.get(hash.0).map_err(failed)?;
        let seed = record_codec::open_seed(seed, hash);
        let found = row.filter(|row| StoredCheckpoint::of(seed, row.value()) == expected);
        Ok(found.map(|row| SharedBytes::copy_of(row.value())))
    }
}
