//! Opening: an engine, or the store alone.

use std::sync::Arc;
use std::time::Duration;

use oncekey::fleet::store::MAX_MILLIS;
use oncekey::{Engine, Result};

use crate::options::Options;
use crate::store::PostgresStore;

impl Options {
    /// Opens an engine.
    ///
    /// # Errors
    /// `InvalidInput`; `StoreMissing` where no tables are and [`create`](Self::create) was not asked for;
    /// `UnsafeStore`, `StoreNewerFormat`, `StoreUnreadable`, `Unavailable`.
    pub fn open(&self) -> Result<Engine> {
        self.validate()?;
        oncekey::fleet::open(Arc::new(self.store()?), self.engine.clone())
    }

    /// The longest lease among the processes that are silent for longer than theirs and that no process has declared
    /// ended; `None` when there is none. What they had claimed is locked until then, and no listing has it. An engine
    /// declares them ended once it has lived for that lease, and for its own: for tools that live shortly.
    ///
    /// Opens a connection and closes it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn silent(&self) -> Result<Option<Duration>> {
        self.store()?.silent()
    }

    /// The store alone, without an engine.
    ///
    /// # Errors
    /// `InvalidInput`: not a URL, or no certificates.
    #[doc(hidden)]
    pub fn store(&self) -> Result<PostgresStore> {
        self.settings.validate()?;
        let mut settings = self.settings.clone();
        // Five buckets reach beyond the TTL.
        let quarter = u64::try_from(self.engine.ttl.as_millis() / 4).unwrap_or(u64::MAX);
        settings.bucket_ms = quarter.clamp(60_000, MAX_MILLIS);
        PostgresStore::start(settings)
    }
}
