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
    /// `InvalidInput`; `StoreMissing` when there are no tables and [`create`](Self::create) is off;
    /// `UnsafeStore`, `StoreNewerFormat`, `StoreUnreadable`, `Unavailable`.
    pub fn open(&self) -> Result<Engine> {
        self.validate()?;
        oncekey::fleet::open(Arc::new(self.store()?), self.engine.clone())
    }

    /// The longest lease of the processes whose lease is over and that no process has declared
    /// ended. `None` when there are none. Until that declaration their claims are locked, and no
    /// listing has them. An engine declares them ended once it has lived for that lease, and for
    /// its own. For tools that live shortly.
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
