//! The layer: an engine, a contract, a policy, and what runs handlers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use oncekey::Engine;
use tower_layer::Layer;

use crate::contract::Contract;
use crate::policy::Policy;
use crate::running::Running;
use crate::service::IdempotencyService;
use crate::stats::{Counters, LayerStats};

/// A task that runs one handler to its end.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

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
    config: Arc<Config>,
}

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) engine: Engine,
    pub(crate) spawn: Arc<dyn Fn(Task) + Send + Sync>,
    pub(crate) contract: Contract,
    pub(crate) policy: Policy,
    pub(crate) counters: Arc<Counters>,
    pub(crate) running: Running,
}

impl IdempotencyLayer {
    /// A layer with the defaults, which runs handlers in tokio tasks.
    ///
    /// Its services panic when they are called outside of a tokio runtime.
    #[cfg(feature = "tokio")]
    pub fn new(engine: Engine) -> Self {
        // The JoinHandle is not needed: how a task ended comes through its own channel.
        Self::with_spawner(engine, |task| drop(tokio::spawn(task)))
    }

    /// A layer with the defaults, which hands each handler to `spawn`. The task must be polled until
    /// it ends, whether the client waits or not. One that is dropped before leaves its operation
    /// with an unknown outcome, or frees the key when the handler was not called yet.
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
        Self {
            config: Arc::new(Config {
                engine,
                spawn: Arc::new(spawn),
                contract: Contract::default(),
                policy: Policy::default(),
                counters: Arc::default(),
                running: Running::default(),
            }),
        }
    }

    /// What clients see. Default [`Contract::default`].
    pub fn contract(self, contract: Contract) -> Self {
        self.with(|config| config.contract = contract)
    }

    /// What holds for the requests of this layer. Default [`Policy::new`].
    pub fn policy(self, policy: Policy) -> Self {
        self.with(|config| config.policy = policy)
    }

    /// The engine that the layer stands on.
    pub fn engine(&self) -> &Engine {
        &self.config.engine
    }

    /// What this layer and its clones did so far.
    pub fn stats(&self) -> LayerStats {
        self.config.counters.snapshot(self.config.running.count())
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
        self.config.running.drained()
    }

    #[cfg(test)]
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService::new(inner, self.config.clone())
    }
}

impl fmt::Debug for IdempotencyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency")
            .field("engine", &self.engine)
            .field("contract", &self.contract)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
