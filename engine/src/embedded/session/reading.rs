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
    /// The record in the store file, when neither the lock table nor recent knows the key.
    ///
    /// The view is taken after recent was looked into: records leave recent only after the view
    /// that holds them was published.
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
        // ORDER: recent before the view, as every reader does; recent knows the newer record.
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

    /// The durable records behind `after` in the order of their hashes. Those whose last change is
    /// unsettled are seen as they were before it.
    pub(crate) fn scan(&self, after: Option<KeyHash>, most: usize) -> Result<ScanPage> {
        // ORDER: recent before the view, as every reader does; recent knows the newer record.
        let (recent, through) = self.table.recent_behind(after, most);
        let stored = self.view().scan(after, through, most, self.now());
        Ok(stored.map_err(|error| self.unreadable(error))?.under(recent, most))
    }

    /// The result of a reader of the store file. The file is closed while the engine is reopened, and
    /// stays closed when that fails; neither closes the engine.
    pub(crate) fn unreadable(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Closed { self.refusal() } else { error }
    }
}
