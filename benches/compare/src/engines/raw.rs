//! The raw limit: as many bytes appended by the simplest group commit there can be. No keys, no
//! index, no answer but "it is durable": what the disk and the wake-ups leave to everybody.

use std::path::Path;
use std::sync::Arc;

use oncekey_benches::Result;
use oncekey_benches::raw::RawLog;
use oncekey_benches::side::{claim_bytes, complete_bytes, noise};

use crate::rival::{Answer, Rival};
use crate::work::{Id, Work};

/// The log and what is appended to it.
pub struct Raw {
    log: RawLog,
    claim: Arc<[u8]>,
    complete: Arc<[u8]>,
}

impl Raw {
    /// Creates the log in the directory `dir`.
    ///
    /// # Errors
    /// Those of [`RawLog::create`].
    pub fn create(dir: &Path, work: &Work) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self {
            log: RawLog::create(&dir.join("log"))?,
            claim: noise(claim_bytes()),
            complete: noise(complete_bytes(work.response().len())),
        })
    }

    /// Appends a claim.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn begin(&self) -> Result<()> {
        Ok(self.log.append((&*self.claim).into()).await??)
    }

    /// Appends a record.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn complete(&self, record: &[u8]) -> Result<()> {
        Ok(self.log.append(record.into()).await??)
    }
}

impl Rival for Raw {
    fn pair_blocking(&self, _id: Id) -> Result<()> {
        self.log.append((&*self.claim).into()).recv()??;
        self.log.append((&*self.complete).into()).recv()??;
        Ok(())
    }

    fn pair(&self, _id: Id) -> Answer<'_> {
        Box::pin(async move {
            self.begin().await?;
            self.complete(&self.complete).await
        })
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }
}
