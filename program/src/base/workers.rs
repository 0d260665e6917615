//! The threads that serve connections, each with a runtime of its own.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// A thread for each processor. A connection stays on one of them, with its requests and the connections to
/// upstreams that they open: a request without a key wakes no other thread.
#[derive(Clone)]
pub(crate) struct Workers {
    threads: Arc<[Handle]>,
    next: Arc<AtomicUsize>,
    /// The threads end when the last clone is dropped.
    _running: Arc<watch::Sender<()>>,
}

impl Workers {
    /// # Errors
    /// When the system gives no thread, or no descriptor for a runtime.
    pub(crate) fn start() -> io::Result<Self> {
        let (running, ended) = watch::channel(());
        let start = |number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let mut ended = ended.clone();
            thread::Builder::new().name(format!("oncekey-{number}")).spawn(move || {
                WORKER.set(number);
                // Resolves when the sender is dropped.
                drop(runtime.block_on(ended.changed()));
                runtime.shutdown_background();
            })?;
            Ok(handle)
        };
        let threads = (0..count()).map(start).collect::<io::Result<_>>()?;
        Ok(Self { threads, next: Arc::default(), _running: Arc::new(running) })
    }

    /// Runs a task on the next thread in turn.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.threads[turn % self.threads.len()].spawn(task);
    }
}

/// Spreads the requests of one connection of HTTP/2 over all threads.
impl<F> hyper::rt::Executor<F> for Workers
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// The number of threads.
pub(crate) fn count() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// The number of this thread, from 0; 0 also for a thread that serves no connection.
pub(crate) fn number() -> usize {
    WORKER.get()
}
