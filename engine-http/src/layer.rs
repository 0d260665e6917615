//! The layer, and every option of it with its default.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::HeaderName;
use http::request::Parts;
use oncekey::Engine;
use tower_layer::Layer;

use crate::fingerprint::Fingerprinter;
use crate::running::Running;
use crate::service::IdempotencyService;
use crate::stats::{Counters, LayerStats};

/// What becomes of a request whose key an earlier attempt left behind without saying how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// It is refused with 409 `idempotency_outcome_unknown`, until somebody resolves the orphan
    /// ([`Engine::orphans`]) or it expires. The handler runs at most once.
    #[default]
    Hold,
    /// It takes the operation over and runs the handler again, which learns from its
    /// [`Attempt`](crate::Attempt) that it is not the first: **at least once**, for handlers that can
    /// find out what an earlier attempt did.
    Retry,
}

/// A task that runs one handler to its end.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Gives a service idempotency keys. See the [crate] for what that means.
///
/// Every method changes an option and returns the layer; clones share the engine and the counters.
/// Several layers, say of routes with other options, may share one engine.
///
/// ```no_run
/// use oncekey_http::{IdempotencyLayer, Recovery};
/// # #[derive(Clone)] struct Tenant(String);
/// # fn layer(engine: oncekey::Engine) -> IdempotencyLayer {
/// IdempotencyLayer::new(engine)
///     .required(true)
///     .recovery(Recovery::Retry)
///     .scope(|request| match request.extensions.get::<Tenant>() {
///         Some(Tenant(name)) => name.clone(),
///         None => String::new(),
///     })
/// # }
/// ```
#[derive(Clone)]
pub struct IdempotencyLayer {
    config: Arc<Config>,
}

type Scope = dyn Fn(&Parts) -> Vec<u8> + Send + Sync;

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) engine: Engine,
    pub(crate) spawn: Arc<dyn Fn(Task) + Send + Sync>,
    pub(crate) header: HeaderName,
    pub(crate) required: bool,
    pub(crate) recovery: Recovery,
    pub(crate) fingerprinter: Fingerprinter,
    /// `None`: all keys share the empty scope.
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) max_request_body: usize,
    pub(crate) max_response: usize,
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
    /// it ends, whether the client waits or not; one that is dropped before leaves its operation
    /// with an unknown outcome.
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
                header: HeaderName::from_static("x-idempotency-key"),
                required: false,
                recovery: Recovery::Hold,
                fingerprinter: Fingerprinter::default(),
                scope: None,
                max_request_body: 2 << 20,
                max_response: 1 << 20,
                counters: Arc::default(),
                running: Running::default(),
            }),
        }
    }

    /// The header that carries the key. Default `X-Idempotency-Key`.
    pub fn header(self, name: HeaderName) -> Self {
        self.with(|config| config.header = name)
    }

    /// Whether a request without a key is refused, safe methods excepted. Default `false`: it passes
    /// through, neither buffered nor stored.
    pub fn required(self, required: bool) -> Self {
        self.with(|config| config.required = required)
    }

    /// What becomes of an operation whose outcome is unknown. Default [`Recovery::Hold`].
    pub fn recovery(self, recovery: Recovery) -> Self {
        self.with(|config| config.recovery = recovery)
    }

    /// Which headers make a request another one, besides method, target and body. Default
    /// Content-Type, Authorization and X-API-Key. A header that some retries lack or that changes
    /// between them (a refreshed token) turns them into mismatches, and so does a change of this
    /// list, for keys that were used before it.
    ///
    /// # Panics
    /// With more than 61 headers.
    pub fn fingerprint_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        let fingerprinter = Fingerprinter::new(names);
        self.with(|config| config.fingerprinter = fingerprinter)
    }

    /// Who a key belongs to: a tenant, a principal, an API key; at most 255 bytes, else the request
    /// is refused with 400. The same key in two scopes is two operations. Default: one scope for
    /// all.
    ///
    /// The closure sees the request without its body, with the extensions that layers outside of
    /// this one set: authenticate there, and take the scope from what they found, not from what the
    /// client claims.
    pub fn scope<T: AsRef<[u8]>>(
        self,
        scope: impl Fn(&Parts) -> T + Send + Sync + 'static,
    ) -> Self {
        let scope = move |request: &Parts| scope(request).as_ref().to_vec();
        self.with(|config| config.scope = Some(Arc::new(scope)))
    }

    /// The longest body of a request with a key, in bytes. Default 2 MiB. A longer one is refused
    /// with 413, and its key is unused.
    pub fn max_request_body(self, bytes: usize) -> Self {
        self.with(|config| config.max_request_body = bytes)
    }

    /// The longest response that is stored, in bytes with status and headers. Default 1 MiB. A longer
    /// one is sent but not stored. The engine's [`max_response`](oncekey::Options::max_response) is
    /// a limit of its own: raise both.
    pub fn max_response(self, bytes: usize) -> Self {
        self.with(|config| config.max_response = bytes)
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
            .field("header", &self.header)
            .field("required", &self.required)
            .field("recovery", &self.recovery)
            .field("max_request_body", &self.max_request_body)
            .field("max_response", &self.max_response)
            .finish_non_exhaustive()
    }
}
