//! The sides of a comparison, all doing the same pairs. Here: the engine and the raw limit.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use oncekey::{Begin, Engine, Fingerprint, Key};

use crate::Result;
use crate::raw::RawLog;
use crate::usage::Usage;

/// The scope of every key.
pub const SCOPE: &str = "tenant-0042";
/// The parts of a request that the HTTP layer would hash, with values that do not matter here.
const PARTS: [&str; 5] =
    ["method", "target", "header content-type", "header authorization", "body"];

/// Bytes of a claim in the engine's journal: kind, hash, TTL, deadline, two lengths, identity
/// (1 + scope + key), fingerprint (18, and 9 + label for each part).
pub fn claim_bytes() -> usize {
    let labels: usize = PARTS.iter().map(|label| 9 + label.len()).sum();
    1 + 16 + 8 + 8 + 4 + (1 + SCOPE.len() + Keys::LEN) + 4 + 18 + labels
}

/// Bytes of a completion in the engine's journal: kind, hash, expiry, kept, length, response.
pub fn complete_bytes(response: usize) -> usize {
    1 + 16 + 8 + 1 + 4 + response
}

/// Gives keys that are unique in this run and among all runs.
#[derive(Clone, Debug)]
pub struct Keys {
    run: u64,
    next: Arc<AtomicU64>,
}

impl Keys {
    /// The length of every key: that of a UUID.
    const LEN: usize = 36;

    /// Starts a sequence of keys.
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { run: since.as_nanos() as u64, next: Arc::default() }
    }

    fn next(&self) -> [u8; Self::LEN] {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut key = [b'-'; Self::LEN];
        hex(self.run, &mut key[..16]);
        hex(number, &mut key[Self::LEN - 16..]);
        key
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

fn hex(mut value: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

/// The request that every begin presents.
pub fn fingerprint() -> Fingerprint {
    let parts = PARTS.iter();
    parts.fold(Fingerprint::builder(), |builder, label| builder.part(*label, b"value")).finish()
}

/// A store or server that callers do pairs on.
pub trait Pairs: Clone + Send + Sync + 'static {
    /// One pair, for a task.
    ///
    /// # Errors
    /// Those of what does the pair; a key that was not new.
    fn pair(&self) -> impl Future<Output = Result<()>>;

    /// One pair, for a thread.
    ///
    /// # Errors
    /// Those of [`pair`](Self::pair).
    fn pair_blocking(&self) -> Result<()>;

    /// Ends the work that the pairs left behind.
    ///
    /// # Errors
    /// Those of what does it.
    fn settle(&self) -> Result<()>;

    /// The cost so far, in this process and in servers.
    ///
    /// # Errors
    /// Those of [`Usage::now`].
    fn usage(&self) -> Result<Usage> {
        Usage::now()
    }

    /// Folds so far.
    fn folds(&self) -> u64 {
        0
    }
}

/// The engine or the raw limit.
#[derive(Clone, Debug)]
pub enum Side {
    /// Begin and complete of a fresh key, each durable when it is answered.
    Engine {
        /// The store.
        engine: Engine,
        /// The request that every begin presents.
        fingerprint: Fingerprint,
        /// The response that every complete records.
        response: Arc<[u8]>,
        /// Where fresh keys come from.
        keys: Keys,
    },
    /// Two appends of as many bytes, each durable when it is answered.
    Raw {
        /// The log.
        log: Arc<RawLog>,
        /// What stands for the begin.
        claim: Arc<[u8]>,
        /// What stands for the complete.
        complete: Arc<[u8]>,
    },
}

impl Side {
    /// The engine on an open store.
    pub fn engine(engine: Engine, response: usize, keys: &Keys) -> Self {
        let (fingerprint, response) = (fingerprint(), noise(response));
        Self::Engine { engine, fingerprint, response, keys: keys.clone() }
    }

    /// The raw limit on a new file at `path`.
    ///
    /// # Errors
    /// Those of [`RawLog::create`].
    pub fn raw(path: &Path, response: usize) -> Result<Self> {
        Ok(Self::Raw {
            log: Arc::new(RawLog::create(path)?),
            claim: noise(claim_bytes()),
            complete: noise(complete_bytes(response)),
        })
    }

    /// Lets work end that is not part of the pairs and would disturb the other side: the engine's
    /// merges, which its sweeper waits for.
    ///
    /// # Errors
    /// Those of [`Engine::sweep`].
    pub fn quiesce(&self) -> Result<()> {
        if let Self::Engine { engine, .. } = self {
            engine.sweep()?;
        }
        Ok(())
    }
}

impl Pairs for Side {
    async fn pair(&self) -> Result<()> {
        match self {
            Self::Engine { engine, fingerprint, response, keys } => {
                let key = Key::new(SCOPE, keys.next())?;
                let Begin::Claimed(claim) = engine.begin(&key, fingerprint.clone()).await? else {
                    return Err("a fresh key was not claimed".into());
                };
                claim.complete(response).await.map_err(oncekey::Error::from)?;
            }
            Self::Raw { log, claim, complete } => {
                log.append((&**claim).into()).await??;
                log.append((&**complete).into()).await??;
            }
        }
        Ok(())
    }

    fn pair_blocking(&self) -> Result<()> {
        match self {
            Self::Engine { engine, fingerprint, response, keys } => {
                let key = Key::new(SCOPE, keys.next())?;
                let Begin::Claimed(claim) = engine.begin(&key, fingerprint.clone()).wait()? else {
                    return Err("a fresh key was not claimed".into());
                };
                claim.complete(response).wait().map_err(oncekey::Error::from)?;
            }
            Self::Raw { log, claim, complete } => {
                log.append((&**claim).into()).recv()??;
                log.append((&**complete).into()).recv()??;
            }
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        if let Self::Engine { engine, .. } = self {
            engine.fold()?;
        }
        Ok(())
    }

    fn folds(&self) -> u64 {
        match self {
            Self::Engine { engine, .. } => engine.stats().folds,
            Self::Raw { .. } => 0,
        }
    }
}

/// Bytes that do not compress.
pub fn noise(len: usize) -> Arc<[u8]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}
