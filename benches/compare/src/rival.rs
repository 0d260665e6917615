//! What every side of the comparison can do, and how the callers drive it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use oncekey_benches::Result;
use oncekey_benches::drive::Callers;
use oncekey_benches::side::Pairs;
use oncekey_benches::usage::Usage;
use parking_lot::Mutex;

use crate::disk::Disk;
use crate::work::{Id, Ids};

/// Not `Send`: all tasks run on one thread.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Answers replays on one thread: copies the response recorded under a key out.
pub type Reader = Box<dyn FnMut(&Id, &mut Vec<u8>) -> Result<()> + Send>;

/// One side of the comparison, on an open store.
pub trait Rival: Send + Sync {
    /// Begin and complete of a fresh key, each answered when it is durable.
    ///
    /// # Errors
    /// Those of the rival; a key that was not new.
    fn pair_blocking(&self, id: Id) -> Result<()>;

    /// The same for a task, where the rival does not need a thread for each caller.
    fn pair(&self, id: Id) -> Answer<'_> {
        Box::pin(async move { self.pair_blocking(id) })
    }

    /// Whether each caller needs a thread of its own.
    fn needs_threads(&self) -> bool {
        false
    }

    /// Ends what pairs leave to be done later: folds, flushes, compactions, checkpoints.
    ///
    /// # Errors
    /// Those of the rival.
    fn settle(&self) -> Result<()>;

    /// CPU time that processes other than this one spent.
    ///
    /// # Errors
    /// A process that is gone.
    fn servers(&self) -> Result<Usage> {
        Ok(Usage::default())
    }

    /// Stores a completed record under each key, in the fastest way there is. Keys are sorted.
    ///
    /// # Errors
    /// Those of the rival; a server that takes no part in replays.
    fn load(&self, _ids: &[Id]) -> Result<()> {
        Err("this side takes no part in replays".into())
    }

    /// For one thread that replays.
    ///
    /// # Errors
    /// Those of the rival; a server that takes no part in replays.
    fn reader(&self) -> Result<Reader> {
        Err("this side takes no part in replays".into())
    }
}

/// A rival with keys, as the callers drive it.
#[derive(Clone)]
pub struct Side {
    rival: Arc<dyn Rival>,
    ids: Arc<Ids>,
    disk: Arc<Disk>,
    /// Keys that were answered, for a later look at them.
    answered: Option<Arc<Mutex<Vec<Id>>>>,
}

impl Side {
    /// Drives `rival` with fresh keys.
    pub fn new(rival: Arc<dyn Rival>, ids: Arc<Ids>, disk: Arc<Disk>) -> Self {
        Self { rival, ids, disk, answered: None }
    }

    /// The same, remembering every key that was answered.
    pub fn recording(self, answered: Arc<Mutex<Vec<Id>>>) -> Self {
        Self { answered: Some(answered), ..self }
    }

    /// So many callers, as this rival needs them.
    pub fn callers(&self, count: usize) -> Callers {
        if count == 1 || self.rival.needs_threads() {
            Callers::Threads(count)
        } else {
            Callers::Tasks(count)
        }
    }

    fn answered(&self, id: Id) {
        if let Some(answered) = &self.answered {
            answered.lock().push(id);
        }
    }
}

impl Pairs for Side {
    async fn pair(&self) -> Result<()> {
        let id = self.ids.fresh();
        self.rival.pair(id).await?;
        self.answered(id);
        Ok(())
    }

    fn pair_blocking(&self) -> Result<()> {
        let id = self.ids.fresh();
        self.rival.pair_blocking(id)?;
        self.answered(id);
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.rival.settle()
    }

    fn usage(&self) -> Result<Usage> {
        let cpu = (Usage::now()? + self.rival.servers()?).cpu;
        // What was settled is to reach the disk too. The clock does not run here.
        self.disk.sync()?;
        Ok(Usage { cpu, written: self.disk.written()? })
    }
}
