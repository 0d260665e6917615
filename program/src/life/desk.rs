//! Health, metrics and the actions of operators, over TCP and on the control socket.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use oncekey_http::{Access, Admin, ControlSocket, IdempotencyLayer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tower_service::Service;

use super::reload::Reloader;
use crate::base::exit::Failure;
use crate::config::{Config, Socket};
use crate::front::serve::Current;
use crate::report::metrics::{self as report, Measured};

/// The largest number of connections to the listener for operators.
const MAX_CONNECTIONS: usize = 256;

/// The state that health depends on.
pub(crate) struct Health {
    pub(crate) layer: IdempotencyLayer,
    pub(crate) proxy: Arc<Current>,
    pub(crate) draining: AtomicBool,
    pub(crate) store_failed: AtomicBool,
    /// The metrics; `None` when they have no reader.
    pub(crate) measured: Option<Measured>,
}

impl Health {
    /// Why this server should get no requests; `None` when it should.
    fn unready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            Some("draining")
        } else if self.store_failed.load(Ordering::Relaxed) {
            Some("store_failed")
        } else if self.layer.engine().stats().full {
            Some("store_full")
        } else if self.proxy.get().upstreams.all_down() {
            Some("upstream_down")
        } else {
            None
        }
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    // This call sets the gauges of the engine.
    let _ = health.layer.engine().stats();
    report::buffered_requests(health.layer.stats().buffered_bytes);
    let text = health.measured.as_ref().map(|measured| measured.prometheus.render());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text.unwrap_or_default())
        .into_response()
}

/// The ways in which operators reach the process. Dropping it removes the control socket.
pub(crate) struct Desk {
    pub(crate) socket: Option<ControlSocket>,
}

impl Desk {
    /// Listens at the configured address, and on the control socket at `socket`.
    pub(crate) async fn open(
        config: &Config,
        layer: &IdempotencyLayer,
        health: Arc<Health>,
        reloader: Arc<Reloader>,
        end: Arc<Notify>,
        entrance: Entrance,
    ) -> io::Result<Self> {
        let Entrance { access, socket } = entrance;
        let admin = admin(config, layer, &health, &reloader, &end);
        if let Some(address) = config.admin.listen {
            let listener = TcpListener::bind(address).await?;
            let router = admin.clone().console().guarded(access);
            tokio::spawn(serve(listener, router));
        }
        let socket = socket.map(|path| control_socket(admin, path)).transpose()?;
        Ok(Self { socket: socket.flatten() })
    }
}

/// The control socket; `None` when the store cannot record it, for example because a disk is full. Requests
/// still work.
fn control_socket(admin: Admin, path: std::path::PathBuf) -> io::Result<Option<ControlSocket>> {
    let named = path.display().to_string();
    match admin.control_socket(path) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.get_ref().is_some_and(|cause| cause.is::<oncekey::Error>()) => {
            tracing::warn!(%error, "no control socket: the store cannot note where it is");
            Ok(None)
        }
        Err(error) => Err(io::Error::new(error.kind(), format!("{named}: {error}"))),
    }
}

fn admin(
    config: &Config,
    layer: &IdempotencyLayer,
    health: &Arc<Health>,
    reloader: &Arc<Reloader>,
    end: &Arc<Notify>,
) -> Admin {
    let (unready, told, reloaded, end) =
        (health.clone(), reloader.clone(), reloader.clone(), end.clone());
    let mut admin = Admin::new(layer.clone())
        .read_only(config.admin.read_only)
        .show_responses(config.admin.show_responses)
        .about("store", config.store.to_string())
        .about("contract", contract(config))
        .unready(move || unready.unready())
        .configuration(move || json!({ "toml": told.printed() }))
        .on_reload(move || {
            let reloaded = reloaded.clone();
            async move { reloaded.reload().await }
        })
        .on_drain(move || {
            end.notify_one();
            async { Ok(()) }
        })
        .beside(Router::new().route("/metrics", get(metrics)).with_state(health.clone()));
    if let Some(address) = config.admin.listen {
        admin = admin.about("console", format!("http://{address}/"));
    }
    if let Some(directory) = &config.admin.backups {
        admin = admin.backups(directory);
    }
    if let Some(file) = &config.admin.audit_log {
        admin = admin.audit_log(file);
    }
    if let Some(directory) = config.store.directory() {
        let directory = directory.to_owned();
        admin = admin.measure("freeBytes", move || free_bytes(&directory));
    }
    if let Some(measured) = &health.measured {
        let millis = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1000.0);
        for (names, latency) in [
            (("requestP50Ms", "requestP99Ms"), measured.requests.clone()),
            (("syncP50Ms", "syncP99Ms"), measured.syncs.clone()),
        ] {
            // The first of the two reads takes both percentiles; they are read in this order.
            let last = Arc::new(parking_lot::Mutex::new(None));
            let later = last.clone();
            admin = admin
                .measure(names.0, move || {
                    let taken = latency.take();
                    *last.lock() = taken.p99;
                    millis(taken.p50)
                })
                .measure(names.1, move || millis(later.lock().take()));
        }
    }
    admin
}

/// The free bytes on the volume of the store, for users other than root.
fn free_bytes(directory: &std::path::Path) -> Option<f64> {
    let volume = rustix::fs::statvfs(directory).ok()?;
    Some(volume.f_bavail as f64 * volume.f_frsize as f64)
}

/// The contract of the clients, for the developers who write them.
fn contract(config: &Config) -> Value {
    let contract = config.contract();
    let names = |names: &[http::HeaderName]| -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    };
    let methods = match &contract.methods {
        oncekey_http::Methods::Only(methods) => {
            json!(methods.iter().map(ToString::to_string).collect::<Vec<_>>())
        }
        _ => Value::Null,
    };
    let statuses = &contract.statuses;
    json!({
        "name": config.contract.as_str(),
        "headers": names(&contract.headers),
        "methods": methods,
        "statuses": {
            "locked": statuses.locked.as_u16(),
            "mismatch": statuses.mismatch.as_u16(),
            "unknown": statuses.outcome_unknown.as_u16(),
            "notStored": statuses.response_not_stored.as_u16(),
        },
    })
}

/// The tokens and the path by which operators come in.
pub(crate) struct Entrance {
    access: Access,
    socket: Option<std::path::PathBuf>,
}

/// # Errors
/// When a token cannot be read or made, or the control socket has no place.
pub(crate) fn entrance(config: &Config) -> Result<Entrance, Failure> {
    let access = access(config).map_err(|error| Failure::usage(error.to_string()))?;
    let socket = socket_path(config).map_err(|error| {
        Failure::failed(format!("cannot listen on the control socket: {error}"))
    })?;
    Ok(Entrance { access, socket })
}

/// Reads the tokens of operators and viewers, and makes those whose file does not exist.
fn access(config: &Config) -> io::Result<Access> {
    let mut access = Access::new().hosts(&config.admin.hosts);
    if let Some(file) = &config.admin.token_file {
        access = access.operator_token_file(file)?;
    }
    if let Some(file) = &config.admin.viewer_token_file {
        access = access.viewer_token_file(file)?;
    }
    Ok(access)
}

/// The path of the control socket; `None` when it is turned off.
fn socket_path(config: &Config) -> io::Result<Option<std::path::PathBuf>> {
    match &config.control.socket {
        Socket::Off => Ok(None),
        Socket::Path(path) => Ok(Some(path.clone())),
        Socket::Auto => {
            let path = match config.store.directory() {
                Some(directory) => ControlSocket::default_path(directory),
                // Several processes of one machine may share a database.
                None => {
                    ControlSocket::default_path(format!("{}-{}", config.store, std::process::id()))
                }
            };
            path.map(Some)
        }
    }
}

/// Serves until the process ends.
async fn serve(listener: TcpListener, router: Router) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            let service = service_fn(|mut request: http::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer));
                let answer = router.clone().call(request);
                async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
            });
            let mut builder = http1::Builder::new();
            let connection =
                builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            // The client may go away at any time.
            let _ = connection.await;
            drop(permit);
        });
    }
}
