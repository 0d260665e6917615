//! Routers for operators: show unresolved operations and the state of the engine, and act on them.

mod access;
mod audit;
mod backups;
mod caller;
mod console;
pub mod describe;
mod desk;
mod gate;
mod health;
mod jobs;
mod refusal;
mod reports;
pub mod resolution;
mod resolving;
mod secret;
mod series;
mod sessions;
mod signing;
mod socket;
mod text;
mod upkeep;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::IntoResponse;
use axum::routing::{Route, delete, get, post};
use http::StatusCode;
use oncekey::Engine;
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

use crate::layer::IdempotencyLayer;
use audit::Audit;
use console::Place;
use desk::{Common, Desk, Settings};
use refusal::Refusal;

pub use access::Access;
pub use caller::Caller;
pub use socket::ControlSocket;

/// The longest body of a request, in bytes: enough for a response of 16 MiB in base64.
const MAX_BODY: usize = 32 << 20;

/// The path from the root: the process may change its directory later.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The requests of an operator: list and resolve orphans, look up a key, read the statistics, take a backup.
/// docs/operations.md lists the requests.
///
/// The router cannot be had without a layer around it that authenticates the operator.
///
/// ```
/// use axum::{Router, extract::Request, http::StatusCode, middleware::{Next, from_fn}};
/// use axum::response::Response;
/// use oncekey_http::{Admin, IdempotencyLayer};
///
/// async fn operators_only(request: Request, next: Next) -> Result<Response, StatusCode> {
///     # fn is_operator(_: &http::HeaderMap) -> bool { false }
///     if is_operator(request.headers()) {
///         Ok(next.run(request).await)
///     } else {
///         Err(StatusCode::UNAUTHORIZED)
///     }
/// }
///
/// # fn app(layer: IdempotencyLayer) -> Router {
/// Router::new().nest("/admin", Admin::new(layer).router(from_fn(operators_only)))
/// # }
/// ```
#[derive(Clone)]
pub struct Admin {
    common: Arc<Common>,
    settings: Settings,
    beside: Router,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("engine", &self.common.engine).finish_non_exhaustive()
    }
}

impl Admin {
    /// Serves the engine of `layer`, and the counters of the layer and its clones. Clones share sessions,
    /// jobs and the series of the statistics.
    pub fn new(layer: IdempotencyLayer) -> Self {
        Self::of(layer.engine().clone(), Some(layer))
    }

    /// Serves an engine whose operations do not go through a layer of this crate. Like [`new`](Self::new),
    /// but the counters of a layer are absent from the answers.
    pub fn without_layer(engine: Engine) -> Self {
        Self::of(engine, None)
    }

    fn of(engine: Engine, layer: Option<IdempotencyLayer>) -> Self {
        let common = Common {
            engine,
            layer,
            started: SystemTime::now(),
            sessions: Default::default(),
            jobs: Default::default(),
            series: Default::default(),
        };
        Self { common: Arc::new(common), settings: Settings::default(), beside: Router::new() }
    }

    /// Lets operators take backups, each into a new directory below this one. A relative path starts at the
    /// present directory of the process, whatever that is later. Default: no backups.
    pub fn backups(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.backups = Some(absolute(directory.into()));
        self
    }

    /// Writes two lines of JSON to this file for each change that is requested below `/api/v1`: one before
    /// the change, synced, and one after it with the result. A change whose first line cannot be written is
    /// not made. A relative path starts at the present directory of the process. Default: the lines are logged.
    pub fn audit_log(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.audit = Audit(Some(absolute(file.into())));
        self
    }

    /// Whether all changes below `/api/v1` are refused. Default `false`.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.settings.read_only = read_only;
        self
    }

    /// Whether operators may read stored responses. Default `false`.
    pub fn show_responses(mut self, shown: bool) -> Self {
        self.settings.show_responses = shown;
        self
    }

    /// Adds a member to `GET info`: `store` is the place of the store, `contract` is the contract of the
    /// clients, `console` is the URL of the console.
    pub fn about(mut self, member: impl Into<String>, value: impl Into<Value>) -> Self {
        self.settings.about.insert(member.into(), value.into());
        self
    }

    /// The answer to `GET config`. It must not contain secrets. Default: 404.
    pub fn configuration(mut self, tell: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        self.settings.configuration = Some(Arc::new(tell));
        self
    }

    /// The action of `POST reload`. `Err` holds the reasons of a failure, one per line. Default: 501.
    pub fn on_reload<F>(mut self, reload: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Vec<String>>> + Send + 'static,
    {
        self.settings.reload = Some(Arc::new(move || Box::pin(reload())));
        self
    }

    /// The action of `POST drain`, which ends this process in order. `Err` holds the reasons of a failure,
    /// one per line. Default: 501.
    pub fn on_drain<F>(mut self, drain: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Vec<String>>> + Send + 'static,
    {
        self.settings.drain = Some(Arc::new(move || Box::pin(drain())));
        self
    }

    /// Adds a figure to `GET series`. `read` runs each second on a thread of the runtime, so it must not
    /// block.
    pub fn measure(
        self,
        name: &'static str,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        self.common.series.add(name, Box::new(read));
        self
    }

    /// Why this server should get no requests at the moment, for `/readyz` and for `health` of `GET info`:
    /// `draining`, `store_failed`, `upstream_down`. `None` means `ok`. Default: `store_full` while the engine
    /// takes no new claims.
    pub fn unready(
        mut self,
        reason: impl Fn() -> Option<&'static str> + Send + Sync + 'static,
    ) -> Self {
        self.settings.unready = Some(Arc::new(reason));
        self
    }

    /// Also serves the console for browsers: at `/` of the [guarded](Self::guarded) router, and at
    /// `/console/` of the [router](Self::router), there behind the authentication of the embedder, page
    /// included. The page requests only paths below the `/api/v1` beside it, by relative URLs, so it works
    /// under any prefix. Default: no console.
    pub fn console(mut self) -> Self {
        self.settings.console = true;
        self
    }

    /// Adds routes that need no authentication, such as `/metrics`, to the
    /// [guarded](Self::guarded) router and the [control socket](Self::control_socket).
    pub fn beside(mut self, routes: Router) -> Self {
        self.beside = self.beside.merge(routes);
        self
    }

    /// The router, to be nested at a path of the embedder. `authentication` is around all of it, also for
    /// paths that do not exist; it may put a [`Caller`] into the extensions.
    ///
    /// Needs a tokio runtime: its threads for blocking work read the engine's files.
    pub fn router<L>(self, authentication: L) -> Router
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        // Without randomness the value stays empty: no request can match it, so no browser can change
        // anything.
        let csrf = secret::random().unwrap_or_default();
        let desk = self.desk(Some(csrf));
        Router::new()
            .route("/stats", get(reports::stats))
            .route("/orphans", get(reports::orphans))
            .route("/orphans/release", post(resolving::release))
            .route("/orphans/complete", post(resolving::complete))
            .route("/keys", get(reports::look_up))
            .route("/backups", post(backups::back_up))
            .nest("/api/v1", api().layer(from_fn_with_state(desk.clone(), gate::behind)))
            .merge(self.pages(Place::Below))
            .fallback(async || StatusCode::NOT_FOUND)
            .layer(authentication)
            .with_state(desk)
    }

    /// The router with an authentication of its own, for a listener of its own. It serves everything below
    /// `/api/v1` and the [console](Self::console), whose page asks for a token. Without authentication it
    /// serves `/healthz`, `/readyz` and the routes of [`beside`](Self::beside). The server must put
    /// `axum::extract::ConnectInfo<SocketAddr>` into the extensions of requests; without it, nothing slows
    /// down clients that guess tokens.
    ///
    /// Needs a tokio runtime, as [`router`](Self::router) does.
    pub fn guarded(self, access: Access) -> Router {
        let desk = self.desk(None);
        let guarded = (desk.clone(), access);
        let signing = Router::new()
            .route("/api/v1/session", delete(signing::sign_out))
            .layer(from_fn_with_state(guarded.clone(), gate::guard))
            .route("/api/v1/session", post(signing::sign_in))
            .with_state(guarded.clone());
        let pages = self.pages(Place::Root);
        let pages = pages.layer(from_fn_with_state(guarded.1.clone(), gate::at_this_host));
        let api = api().layer(from_fn_with_state(guarded, gate::guard)).with_state(desk.clone());
        let open = health::routes(desk).merge(self.beside);
        Router::new().nest("/api/v1", api).merge(signing).merge(pages).merge(open)
    }

    /// Serves the same routes on a Unix socket with mode 0600 at `path`, until the returned value is dropped.
    /// The user that runs this process and root are operators; other users are refused.
    ///
    /// The command line finds the socket through the store: the pid and the path are the owner note of the
    /// engine ([`Engine::set_owner_note`]) until then. With several sockets the note names the last one. A
    /// store that several processes share has no such note; there the command line asks the server of the
    /// store. [`ControlSocket::default_path`] is a good path.
    ///
    /// ```no_run
    /// # async fn run(layer: oncekey_http::IdempotencyLayer) -> std::io::Result<()> {
    /// use oncekey_http::{Admin, ControlSocket};
    /// let path = ControlSocket::default_path("./idempotency")?;
    /// let socket = Admin::new(layer).control_socket(path)?;
    /// # drop(socket); Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the socket cannot be bound, when the engine is closed, or when its note cannot be written.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn control_socket(self, path: impl Into<PathBuf>) -> io::Result<ControlSocket> {
        let engine = self.common.engine.clone();
        let desk = self.desk(None);
        let open = health::routes(desk.clone()).merge(self.beside);
        let router = Router::new().nest("/api/v1", api().with_state(desk)).merge(open);
        ControlSocket::serve(path.into(), router, engine)
    }

    /// The routes of the console, if there is one.
    fn pages<S: Clone + Send + Sync + 'static>(&self, place: Place) -> Router<S> {
        if self.settings.console { console::routes(place) } else { Router::new() }
    }

    fn desk(&self, csrf: Option<String>) -> Arc<Desk> {
        let desk = Desk { common: self.common.clone(), settings: self.settings.clone(), csrf };
        desk.begin_sampling();
        Arc::new(desk)
    }
}

/// Everything below `/api/v1`; docs/operations.md lists the requests.
fn api() -> Router<Arc<Desk>> {
    Router::new()
        .route("/info", get(reports::info))
        .route("/stats", get(reports::stats))
        .route("/series", get(reports::series))
        .route("/orphans", get(reports::orphans))
        .route("/orphans/checkpoint", get(reports::checkpoint))
        .route("/orphans/release", post(resolving::release_for_a_reason))
        .route("/orphans/complete", post(resolving::complete_for_a_reason))
        .route("/orphans/resolve", post(resolving::resolve_many))
        .route("/keys", get(reports::look_up))
        .route("/keys/list", get(reports::list))
        .route("/keys/response", get(reports::response))
        .route("/backups", get(backups::list).post(backups::begin))
        .route("/backups/{name}/verify", post(backups::verify))
        .route("/jobs/{id}", get(backups::job))
        .route("/fold", post(upkeep::fold))
        .route("/sweep", post(upkeep::sweep))
        .route("/reopen", post(upkeep::reopen))
        .route("/reload", post(upkeep::reload))
        .route("/drain", post(upkeep::drain))
        .route("/expiry", get(reports::expiry))
        .route("/config", get(reports::configuration))
        .route("/session/link", post(signing::link))
        .fallback(async || Refusal::not_found("there is no such request"))
        .method_not_allowed_fallback(async || {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Refusal::new(status, "invalid", "this path takes another method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(map_response(console::unkept))
}
