//! The layer: an engine, a contract, a policy, and a spawner for handlers.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use oncekey::Engine;
use tower_layer::Layer;

use crate::contract::Contract;
use crate::detached::{Spawner, Task};
use crate::idempotency::Idempotency;
use crate::policy::Policy;
use crate::service::IdempotencyService;
use crate::stats::LayerStats;

/// Gives a service idempotency keys; the [crate] documents the contract.
///
/// Clones share the engine and the counters. Layers with another [`Contract`] or [`Policy`] made from them
/// share these too. When two layers are around one handler, the outer layer decides and the inner one lets
/// its requests pass.
///
/// ```no_run
/// use oncekey_http::{Contract, IdempotencyLayer, Policy, Recovery};
/// # fn layer(engine: oncekey::Engine) -> IdempotencyLayer {
/// IdempotencyLayer::new(engine)
///     .contract(Contract::ietf())
///     .policy(Policy::new().required(true).recovery(Recovery::Retry))
/// # }
/// ```
#[derive(Clone)]
pub struct IdempotencyLayer {
    idempotency: Idempotency,
    spawn: Spawner,
}

impl IdempotencyLayer {
    /// A layer with the defaults, which runs handlers in tokio tasks.
    ///
    /// Its services panic when they are called outside of a tokio runtime, or in a runtime without timers.
    #[cfg(feature = "tokio")]
    pub fn new(engine: Engine) -> Self {
        // The JoinHandle is not needed: the result of a task comes through its own channel.
        Self::with_spawner(engine, |task| drop(tokio::spawn(task))).timer(tokio::time::sleep)
    }

    /// A layer with the defaults, which hands each handler to `spawn` as a task. The task must be polled
    /// until it ends, whether the client waits or not. A task that is dropped early leaves its operation with
    /// an unknown outcome, or frees the key when the handler was not called yet.
    ///
    /// The limit of [`body_idle`](Self::body_idle) needs a [`timer`](Self::timer) too.
    ///
    /// ```
    /// # fn layer(engine: oncekey::Engine) -> oncekey_http::IdempotencyLayer {
    /// // One thread per execution; a thread pool or another runtime works as well.
    /// oncekey_http::IdempotencyLayer::with_spawner(engine, |task| {
    ///     std::thread::spawn(|| futures_executor::block_on(task));
    /// })
    /// # }
    /// # mod futures_executor { pub fn block_on(_: oncekey_http::Task) {} }
    /// ```
    pub fn with_spawner(engine: Engine, spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        Self { idempotency: Idempotency::new(engine), spawn: Arc::new(spawn) }
    }

    /// The contract that clients see. Default [`Contract::default`].
    pub fn contract(self, contract: Contract) -> Self {
        self.with(|idempotency| idempotency.contract(contract))
    }

    /// The policy for the requests of this layer. Default [`Policy::new`].
    pub fn policy(self, policy: Policy) -> Self {
        self.with(|idempotency| idempotency.policy(policy))
    }

    /// The most memory, in bytes, that the bodies of all requests with a key take together while the layer
    /// holds them: from their first byte until their handler is called, or until they are answered without
    /// it. Default 256 MiB. When the budget has no room for a body, its request gets 503
    /// `idempotency_overloaded` and its key is unused; a `Content-Length` that does not fit is refused at
    /// once. Memory that a handler uses for a body does not count.
    ///
    /// Clones share the budget, and so do layers made from them. This call makes a new budget, shared by the
    /// layers that are made from the result.
    pub fn max_buffered(self, bytes: usize) -> Self {
        self.with(|idempotency| idempotency.max_buffered(bytes))
    }

    /// How long the body of a request with a key may send nothing before the request is refused with 408
    /// `idempotency_body_timeout`; its key is unused. Default 30 s; `Duration::MAX` means no limit. A client
    /// that sends byte by byte is not stopped by this limit: let the server limit the time of a whole
    /// request.
    pub fn body_idle(self, at_most: Duration) -> Self {
        self.with(|idempotency| idempotency.body_idle(at_most))
    }

    /// Measures [`body_idle`](Self::body_idle) with this clock instead of tokio's, which
    /// `IdempotencyLayer::new` uses. A layer made with a spawner has no clock and waits for bodies without a
    /// limit until it is given one.
    ///
    /// ```
    /// # fn layer(engine: oncekey::Engine) -> oncekey_http::IdempotencyLayer {
    /// oncekey_http::IdempotencyLayer::with_spawner(engine, |task| drop(tokio::spawn(task)))
    ///     .timer(tokio::time::sleep)
    /// # }
    /// ```
    pub fn timer<F>(self, sleep: impl Fn(Duration) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.with(|idempotency| idempotency.timer(sleep))
    }

    /// The engine that the layer uses.
    pub fn engine(&self) -> &Engine {
        self.idempotency.engine()
    }

    /// The counts of this layer and its clones so far.
    pub fn stats(&self) -> LayerStats {
        self.idempotency.stats()
    }

    /// Waits until no handler runs that this layer or a clone of it started. A server that waits for its
    /// connections does not see a handler whose client has disconnected. For shutdown: after the server has
    /// stopped accepting requests and before [`Engine::close`].
    ///
    /// ```no_run
    /// # async fn f(server: impl Future<Output = ()>, layer: oncekey_http::IdempotencyLayer)
    /// # -> oncekey::Result<()> {
    /// server.await;
    /// layer.drained().await;
    /// layer.engine().close()?;
    /// # Ok(()) }
    /// ```
    pub fn drained(&self) -> impl Future<Output = ()> + Send + use<> {
        self.idempotency.drained()
    }

    fn with(mut self, change: impl FnOnce(Idempotency) -> Idempotency) -> Self {
        self.idempotency = change(self.idempotency);
        self
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService::new(inner, self.idempotency.clone(), self.spawn.clone())
    }
}

impl fmt::Debug for IdempotencyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.idempotency.fmt(f)
    }
}
