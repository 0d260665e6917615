//! The engine itself, with its default options.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::try_join_all;
use oncekey::{Begin, Engine, Fingerprint, Key, Options};
use oncekey_benches::Result;
use oncekey_benches::side::{SCOPE, fingerprint};

use crate::rival::{Answer, Reader, Rival};
use crate::work::{Id, Work};

/// Pairs at a time while a store is filled.
const FILLERS: usize = 512;

/// The engine on an open store.
pub struct Oncekey {
    engine: Engine,
    fingerprint: Fingerprint,
    response: Arc<[u8]>,
}

impl Oncekey {
    /// Opens the store in `dir` or creates it.
    ///
    /// # Errors
    /// Those of [`Options::open`].
    pub fn open(dir: &Path, work: &Work) -> Result<Self> {
        Ok(Self::over(Options::new().open(dir)?, work))
    }

    /// The engine, wherever its store is.
    pub fn over(engine: Engine, work: &Work) -> Self {
        Self { engine, fingerprint: fingerprint(), response: work.response().into() }
    }

    /// A begin that is answered by what another begin recorded.
    ///
    /// # Errors
    /// Those of the engine; another answer.
    pub async fn replay(&self, id: Id) -> Result<()> {
        let key = Key::new(SCOPE, id.as_bytes())?;
        match self.engine.begin(&key, self.fingerprint.clone()).await? {
            Begin::Replay(recorded) if recorded.response() == Some(&*self.response) => Ok(()),
            other => Err(format!("not replayed: {other:?}").into()),
        }
    }
}

impl Rival for Oncekey {
    fn pair_blocking(&self, id: Id) -> Result<()> {
        let key = Key::new(SCOPE, id.as_bytes())?;
        let Begin::Claimed(claim) = self.engine.begin(&key, self.fingerprint.clone()).wait()?
        else {
            return Err("a fresh key was not claimed".into());
        };
        claim.complete(&self.response).wait().map_err(oncekey::Error::from)?;
        Ok(())
    }

    fn pair(&self, id: Id) -> Answer<'_> {
        Box::pin(async move {
            let key = Key::new(SCOPE, id.as_bytes())?;
            let Begin::Claimed(claim) = self.engine.begin(&key, self.fingerprint.clone()).await?
            else {
                return Err("a fresh key was not claimed".into());
            };
            claim.complete(&self.response).await.map_err(oncekey::Error::from)?;
            Ok(())
        })
    }

    /// Folds, and waits for the merges that follow: what the others call compaction.
    fn settle(&self) -> Result<()> {
        self.engine.fold()?;
        self.engine.sweep()?;
        Ok(())
    }

    /// There is no other way in than the one for requests.
    fn load(&self, ids: &[Id]) -> Result<()> {
        for chunk in ids.chunks(FILLERS) {
            futures_executor::block_on(try_join_all(chunk.iter().map(|id| self.pair(*id))))?;
        }
        self.settle()
    }

    /// A begin, as a server would do it, and not the cheaper [`Engine::get`].
    fn reader(&self) -> Result<Reader> {
        let (engine, fingerprint) = (self.engine.clone(), self.fingerprint.clone());
        Ok(Box::new(move |id, out| {
            let key = Key::new(SCOPE, id.as_bytes())?;
            let Begin::Replay(recorded) = engine.begin(&key, fingerprint.clone()).wait()? else {
                return Err("a completed record was not replayed".into());
            };
            out.clear();
            out.extend_from_slice(recorded.response().ok_or("a replay without a response")?);
            Ok(())
        }))
    }
}
