//! Reads of keys that change nothing.

use std::sync::Arc;

use super::{Session, checkpoint};
use crate::backend::{ScanPage, Seen};
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::semantics::key::{HashMap, Key, KeyHash};
use crate::semantics::record::{Record, Versioned};
use crate::semantics::token::Token;

impl Session {
    /// The record in the store file, when neither the slots nor the recent records have the key.
    ///
    /// The view is taken after the look into the recent records: a record leaves them only after
    /// the view that holds it was published.
    pub(super) fn look_up(&self, hash: KeyHash, key: &Key) -> Result<Option<Arc<Record>>> {
        let found = self.views.load().get(hash, key).map_err(|error| self.unreadable(error))?;
        Ok(found.and_then(|versioned| versioned.record))
    }

    /// The durable record of a key, for readers that change nothing.
    pub(crate) fn peek(&self, hash: KeyHash, key: &Key) -> Result<Option<Arc<Record>>> {
        {
            let shard = self.table.shard(hash);
            if shard.slots.is_unknown(hash) {
                let message = "the last change of this key is unsettled; reopen the engine";
                return Err(Error::new(ErrorKind::OutcomeUnknown, message));
            }
            if let Some(live) = shard.slots.live(hash) {
                return Ok(Some(live.clone()));
            }
            if let Some(recent) = shard.recent(hash) {
                return Ok(recent.record.clone());
            }
        }
        self.look_up(hash, key)
    }

    /// The checkpoint of the attempt that has the token.
    pub(crate) fn checkpoint(
        &self,
        hash: KeyHash,
        key: &Key,
        token: Token,
    ) -> Result<Option<SharedBytes>> {
        let look = || {
            let record = self.peek(hash, key)?;
            checkpoint::of(record.as_deref(), token, self.now())
        };
        checkpoint::read(look, |stored| self.view().checkpoint(hash, stored))
    }

    /// The newest durable record of each key that may be in flight or an orphan.
    pub(crate) fn open_records(&self) -> Result<Vec<Seen>> {
        // ORDER: recent records before the view, as in every reader. A recent record is the newer
        // one.
        let mut records: HashMap<_> = HashMap::default();
        for shard in self.table.shards() {
            records.extend(shard.recents().map(|(hash, versioned)| (*hash, versioned.clone())));
        }
        let stored = self.view().open_records().map_err(|error| self.unreadable(error))?;
        for (hash, versioned) in stored {
            records.entry(hash).or_insert(versioned);
        }
        let seen = |(hash, versioned): (KeyHash, Versioned)| {
            versioned.record.map(|record| Seen { hash, record })
        };
        Ok(records.into_iter().filter_map(seen).collect())
    }

    /// The durable records after `after`, in the order of their hashes. A record whose last change
    /// is unsettled appears as it was before that change.
    pub(crate) fn scan(&self, after: Option<KeyHash>, most: usize) -> Result<ScanPage> {
        // ORDER: recent records before the view, as in every reader. A recent record is the newer
        // one.
        let (recent, through) = self.table.recent_behind(after, most);
        let stored = self.view().scan(after, through, most, self.now());
        Ok(stored.map_err(|error| self.unreadable(error))?.under(recent, most))
    }

    /// The error of a reader of the store file, as its caller gets it. The file is closed while the
    /// engine is reopened, and stays closed when the reopen fails. Neither closes the engine.
    pub(crate) fn unreadable(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Closed { self.refusal() } else { error }
    }
}
