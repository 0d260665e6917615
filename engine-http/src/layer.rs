//! The layer: an engine, a contract, a policy, and what runs handlers.

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

/// Gives a service idempotency keys. See the [crate] for what that means.
///
/// Clones share the engine and the counters, and so do layers with another [`Contract`] or
/// [`Policy`] made from them. Of two layers around one handler the outer one decides; the inner one
/// lets its requests pass.
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
    /// Its services panic when they are called outside of a tokio runtime, or in one whose timers are not
    /// enabled.
    #[cfg(feature = "tokio")]
    pub fn new(engine: Engine) -> Self {
        // The JoinHandle is not needed: how a task ended comes through its own channel.
        Self::with_spawner(engine, |task| drop(tokio::spawn(task))).timer(tokio::time::sleep)
    }

    /// A layer with the defaults, which hands each handler to `spawn`. The task must be polled until
    /// it ends, whether the client waits or not. One that is dropped before leaves its operation
    /// with an unknown outcome, or frees the key when the handler was not called yet.
    ///
    /// The limit of [`body_idle`](Self::body_idle) needs a [`timer`](Self::timer) too.
    ///
    /// ```
    /// # fn layer(engine: oncekey::Engine) -> oncekey_http::IdempotencyLayer {
    /// // One thread per execution; a thread pool or another runtime does it as well.
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
    /// holds them: from their first byte until their handler is called, or they are answered without it.
    /// Default 256 MiB. A request for whose body nothing is left gets 503 `idempotency_overloaded`, at
    /// once when its `Content-Length` says so, and its key is unused. What a handler does with a body
    /// counts no more.
    ///
    /// Clones share the budget, and so do layers made from them. Setting it makes one that is shared with
    /// those that are made from here on.
    pub fn max_buffered(self, bytes: usize) -> Self {
        self.with(|idempotency| idempotency.max_buffered(bytes))
    }

    /// How long the body of a request with a key may bring nothing before it is refused with 408
    /// `idempotency_body_timeout`; its key is unused. Default 30 s; `Duration::MAX` is never. A sender
    /// that goes on byte by byte is not stopped by it: the server bounds the whole of a request.
    pub fn body_idle(self, at_most: Duration) -> Self {
        self.with(|idempotency| idempotency.body_idle(at_most))
    }

    /// Measures [`body_idle`](Self::body_idle) with another clock than that of tokio, which
    /// `IdempotencyLayer::new` takes. A layer with a spawner of its own has none, and waits for bodies without end,
    /// until it is given one.
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

    /// The engine that the layer stands on.
    pub fn engine(&self) -> &Engine {
        self.idempotency.engine()
    }

    /// The counts of this layer and its clones so far.
    pub fn stats(&self) -> LayerStats {
        self.idempotency.stats()
    }

    /// Waits until no handler runs that this layer or a clone of it started: those whose clients are
    /// gone are not seen by a server that waits for its connections. For shutdown, after the server
    /// has stopped to accept requests and before [`Engine::close`].
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
