//! One group committer for every engine that has none: one thread drains a queue, makes all of it
//! durable with one commit and wakes everybody. The same queue as that of the raw limit.

use std::sync::Arc;
use std::thread::JoinHandle;

use oncekey_benches::Result;
use oncekey_benches::queue::Queue;

use crate::rival::{Answer, Reader, Rival};
use crate::work::Id;

/// An engine that commits a group of changes at once.
pub trait Store: Send + Sync + 'static {
    /// Makes all of `group` durable, with one commit.
    ///
    /// # Errors
    /// Those of the engine; a key that was not new.
    fn commit(&self, group: &mut [Change]) -> Result<()>;

    /// As [`Rival::settle`].
    ///
    /// # Errors
    /// Those of the engine.
    fn settle(&self) -> Result<()>;

    /// As [`Rival::load`].
    ///
    /// # Errors
    /// Those of the engine.
    fn load(&self, ids: &[Id]) -> Result<()>;

    /// As [`Rival::reader`].
    ///
    /// # Errors
    /// Those of the engine.
    fn reader(&self) -> Result<Reader>;
}

/// What a caller wants to be durable.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Of which record.
    pub id: Id,
    /// Whether the claim is to be replaced with the record.
    pub complete: bool,
    /// Where the engine put the claim, if that helps it to find it again.
    pub place: i64,
}

impl Change {
    fn begin(id: Id) -> Self {
        Self { id, complete: false, place: 0 }
    }

    fn complete(id: Id, place: i64) -> Self {
        Self { id, complete: true, place }
    }
}

/// Each caller commits by itself, on its own thread; whatever the engine groups, it groups.
#[cfg(feature = "engines")]
pub struct Alone<S>(pub S);

#[cfg(feature = "engines")]
impl<S: Store> Rival for Alone<S> {
    fn pair_blocking(&self, id: Id) -> Result<()> {
        let mut begin = [Change::begin(id)];
        self.0.commit(&mut begin)?;
        self.0.commit(&mut [Change::complete(id, begin[0].place)])
    }

    fn needs_threads(&self) -> bool {
        true
    }

    fn settle(&self) -> Result<()> {
        self.0.settle()
    }

    fn load(&self, ids: &[Id]) -> Result<()> {
        self.0.load(ids)
    }

    fn reader(&self) -> Result<Reader> {
        self.0.reader()
    }
}

/// Callers queue, one thread commits.
pub struct Grouped<S> {
    store: Arc<S>,
    queue: Arc<Queue<Queued>>,
    committer: Option<JoinHandle<()>>,
}

type Answered = std::result::Result<i64, String>;

struct Queued {
    change: Change,
    caller: oneshot::Sender<Answered>,
}

impl<S: Store> Grouped<S> {
    /// Starts the committer.
    ///
    /// # Errors
    /// No thread.
    pub fn new(store: S) -> Result<Self> {
        let store = Arc::new(store);
        let queue = Arc::new(Queue::default());
        let committer = std::thread::Builder::new().name("group-commit".to_owned()).spawn({
            let (store, queue) = (store.clone(), queue.clone());
            move || run(&*store, &queue)
        })?;
        Ok(Self { store, queue, committer: Some(committer) })
    }

    fn submit(&self, change: Change) -> oneshot::Receiver<Answered> {
        let (caller, receiver) = oneshot::channel();
        self.queue.push(Queued { change, caller });
        receiver
    }
}

impl<S: Store> Rival for Grouped<S> {
    fn pair_blocking(&self, id: Id) -> Result<()> {
        let place = self.submit(Change::begin(id)).recv()??;
        self.submit(Change::complete(id, place)).recv()??;
        Ok(())
    }

    fn pair(&self, id: Id) -> Answer<'_> {
        Box::pin(async move {
            let place = self.submit(Change::begin(id)).await??;
            self.submit(Change::complete(id, place)).await??;
            Ok(())
        })
    }

    fn settle(&self) -> Result<()> {
        self.store.settle()
    }

    fn load(&self, ids: &[Id]) -> Result<()> {
        self.store.load(ids)
    }

    fn reader(&self) -> Result<Reader> {
        self.store.reader()
    }
}

impl<S> Drop for Grouped<S> {
    fn drop(&mut self) {
        self.queue.stop();
        if let Some(committer) = self.committer.take() {
            // A committer that panicked has dropped its senders: every caller knows.
            drop(committer.join());
        }
    }
}

fn run<S: Store>(store: &S, queue: &Queue<Queued>) {
    let (mut queued, mut changes, mut callers) = (Vec::new(), Vec::new(), Vec::new());
    while queue.take(&mut queued) {
        for Queued { change, caller } in queued.drain(..) {
            changes.push(change);
            callers.push(caller);
        }
        let result = store.commit(&mut changes).map_err(|error| error.to_string());
        for (change, caller) in changes.drain(..).zip(callers.drain(..)) {
            // A caller that went away needs no answer.
            drop(caller.send(result.clone().map(|()| change.place)));
        }
    }
}
