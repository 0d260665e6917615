//! Runs the proxy, from opening its store and its sockets to its end.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oncekey::Engine;
use oncekey_http::IdempotencyLayer;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use super::child;
use super::desk::{self, Desk, Health};
use super::maker::Maker;
use super::reload::{Configure, Reloader};
use super::store;
use crate::base::exit::{Exit, Failure};
use crate::base::say::LOG;
use crate::base::workers::Workers;
use crate::base::{notify, units};
use crate::config::{self, Config, Socket};
use crate::front::listener::{self, Passed};
use crate::front::serve::{Current, Server};
use crate::front::tls::Tls;
use crate::report::metrics::{self, Measured};
use crate::report::spans::{Sink, Spans};
use crate::upstream::Control;

/// Runs the proxy until a signal ends it. `configure` reads the configuration again.
pub(crate) async fn run(
    config: Config,
    json: bool,
    mut passed: Passed,
    configure: Configure,
) -> Result<(), Failure> {
    let measured = measure(&config)?;
    let tls = Tls::new(&config.tls).map_err(Failure::usage)?;
    let entrance = desk::entrance(&config)?;
    let engine = store::open(&config).await?;
    let layer = layer(&config, &engine);
    let counted = measured.as_ref().map(|measured| measured.requests.clone());
    let checkpoints = checkpoints(config.control.listen).await?;
    let sink = sink(&config)?;
    let spans = sink.clone().map(|sink| Spans::new(sink, config.traces.one_in));
    let maker = Maker::new(layer.clone(), json, checkpoints, counted, spans);
    let proxy = Current::new(maker.proxy(&config).map_err(Failure::usage)?);
    let health = Arc::new(Health {
        layer: layer.clone(),
        proxy: proxy.clone(),
        draining: AtomicBool::new(false),
        store_failed: AtomicBool::new(false),
        measured,
    });
    let reloader = Arc::new(Reloader {
        printed: config::print(&config).into(),
        running: config.clone(),
        configure,
        maker,
        proxy: proxy.clone(),
        tls: tls.clone(),
    });
    let (hangup, end) = (listen_for(SignalKind::hangup())?, Arc::new(Notify::new()));
    let mut signals = Signals::new()?;
    let started = child::Server::start(&config.command, &config.upstream.urls);
    let mut behind = tokio::select! {
        started = started => started.map_err(|error| Failure::failed(error.to_string()))?,
        () = signals.first() => return store::close(&engine),
    };
    let desk = Desk::open(&config, &layer, health.clone(), reloader.clone(), end.clone(), entrance);
    let desk = desk.await.map_err(|error| cannot_listen(&"the admin API", &error))?;
    if let Some(tls) = &tls {
        tokio::spawn(tls.clone().keep_fresh());
    }
    let workers = Workers::start();
    let workers =
        workers.map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    let server = Arc::new(server(&config, proxy, tls, workers));
    let (stop, stopped) = watch::channel(false);
    let (accepting, urls) = accept(&config, &server, &mut passed, &stopped).await?;
    tokio::spawn(store::keep_open(layer.clone(), health.clone()));
    tokio::spawn(reloader.at_each(hangup));
    greet(&config, &engine, &urls, &desk, json);
    notify::ready();
    let gone = tokio::select! {
        () = signals.first() => false,
        () = end.notified() => false,
        () = ended(&mut behind) => true,
    };
    let open = Open { layer, health, server, stop, accepting, behind };
    signals.second_ends_the_process(open.close(&config)).await;
    drop(desk);
    store::close(&engine)?;
    close_sink(sink).await;
    match gone {
        true => Err(Failure::failed("the server behind ended".to_owned())),
        false => Ok(()),
    }
}

/// Starts the metrics if they have a reader. This must come before the first counter is made.
fn measure(config: &Config) -> Result<Option<Measured>, Failure> {
    let is_read = config.admin.listen.is_some() || config.control.socket != Socket::Off;
    let measured = is_read.then(metrics::install).transpose();
    measured.map_err(|error| Failure::failed(format!("cannot count: {error}")))
}

/// The destination of spans, if the configuration has one.
#[cfg(feature = "otel")]
fn sink(config: &Config) -> Result<Option<Arc<dyn Sink>>, Failure> {
    let collector = config.traces.collector.as_ref();
    let sink = collector.map(|target| super::collector::Collector::new(target, config));
    let sink = sink.transpose().map_err(Failure::usage)?;
    Ok(sink.map(|sink| Arc::new(sink) as _))
}

/// A configuration with a collector was refused earlier.
#[cfg(not(feature = "otel"))]
fn sink(_: &Config) -> Result<Option<Arc<dyn Sink>>, Failure> {
    Ok(None)
}

fn layer(config: &Config, engine: &Engine) -> IdempotencyLayer {
    IdempotencyLayer::new(engine.clone())
        .max_buffered(config.limits.max_buffered)
        .body_idle(config.limits.request_body_idle)
}

/// Sends the remaining spans.
async fn close_sink(sink: Option<Arc<dyn Sink>>) {
    if let Some(sink) = sink {
        // A blocking thread: the runtime that sends the spans must not be blocked. An error here means a bug
        // that panicked.
        let _ = tokio::task::spawn_blocking(move || sink.close()).await;
    }
}

fn server(config: &Config, proxy: Arc<Current>, tls: Option<Arc<Tls>>, workers: Workers) -> Server {
    Server {
        proxy,
        header_timeout: config.limits.header_timeout,
        connections: Arc::new(Semaphore::new(config.limits.max_connections as usize)),
        max_connections: config.limits.max_connections,
        tls,
        workers,
    }
}

/// A proxy that accepts requests, and the server behind it.
struct Open {
    layer: IdempotencyLayer,
    health: Arc<Health>,
    server: Arc<Server>,
    stop: watch::Sender<bool>,
    accepting: JoinSet<()>,
    behind: Option<child::Server>,
}

impl Open {
    /// Ends the process from the front to the back: clients stop sending, no request is accepted, running
    /// requests end, and then the server behind ends.
    async fn close(self, config: &Config) {
        notify::stopping();
        self.health.draining.store(true, Ordering::Relaxed);
        tokio::time::sleep(config.drain_delay).await;
        // The receivers may have ended already.
        let _ = self.stop.send(true);
        self.accepting.join_all().await;
        drain(&self.server, &self.layer, config.shutdown_timeout).await;
        if let Some(mut behind) = self.behind {
            behind.stop(config.shutdown_timeout).await;
        }
    }
}

/// Listens for clients. Returns the tasks that accept them, and the URLs.
async fn accept(
    config: &Config,
    server: &Arc<Server>,
    passed: &mut Passed,
    stopped: &watch::Receiver<bool>,
) -> Result<(JoinSet<()>, Vec<String>), Failure> {
    let (mut accepting, mut urls) = (JoinSet::new(), Vec::new());
    for listen in &config.listen {
        let bound = listener::bind(listen, passed).await;
        for listener in bound.map_err(|error| cannot_listen(listen, &error))? {
            urls.push(listener.url(server.tls.is_some()));
            accepting.spawn(server.clone().accept(listener, stopped.clone()));
        }
    }
    Ok((accepting, urls))
}

/// Resolves when the server behind has ended by itself; never when there is none.
async fn ended(behind: &mut Option<child::Server>) {
    let Some(behind) = behind else { return std::future::pending().await };
    match behind.ended().await {
        Ok(status) => tracing::error!(%status, "the server behind ended"),
        Err(error) => tracing::error!(%error, "the server behind is lost"),
    }
}

/// The listener for checkpoints, if one is configured.
async fn checkpoints(address: Option<SocketAddr>) -> Result<Option<Arc<Control>>, Failure> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| cannot_listen(&address, &error))?;
    let control = Control::new(&listener).map_err(|error| cannot_listen(&address, &error))?;
    let control = Arc::new(control);
    tokio::spawn(control.clone().serve(listener));
    Ok(Some(control))
}

fn cannot_listen(address: &impl Display, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot listen on {address}: {error}"))
}

/// Logs a summary of the running proxy.
fn greet(config: &Config, engine: &Engine, urls: &[String], desk: &Desk, json: bool) {
    let list = |members: &[String]| members.join(", ");
    let upstreams: Vec<_> = config.upstream.urls.iter().map(ToString::to_string).collect();
    tracing::info!(target: LOG, "listening on {} for {}", list(urls), list(&upstreams));
    let ttl = units::show_duration(config.policy.ttl);
    let unknown = engine.stats().orphans;
    tracing::info!(
        target: LOG,
        "store {}, ttl {ttl}, {unknown} keys with unknown outcome",
        config.store
    );
    let contract = config.contract();
    let headers: Vec<_> = contract.headers.iter().map(ToString::to_string).collect();
    let methods = match &contract.methods {
        oncekey_http::Methods::Only(methods) => {
            list(&methods.iter().map(ToString::to_string).collect::<Vec<_>>())
        }
        _ => "every method but GET, HEAD, OPTIONS, TRACE".to_owned(),
    };
    tracing::info!(target: LOG, "keys in {}; {methods}", headers.join(" or "));
    if let Some(socket) = &desk.socket {
        tracing::info!(target: LOG, "control socket {}", socket.path().display());
    }
    if let Some(address) = config.admin.listen {
        tracing::info!(
            target: LOG,
            "console http://{address}/; `oncekey console` prints a link that signs a browser in"
        );
    }
    if !json {
        invite(config, urls);
    }
}

/// Logs a first request for people to try.
fn invite(config: &Config, urls: &[String]) {
    if let Some(url) = urls.iter().find(|url| url.starts_with("http://")) {
        let headers = config.contract().headers;
        let name = headers.first().map(ToString::to_string).unwrap_or_default();
        let url = url.replace("0.0.0.0", "localhost");
        tracing::info!(target: LOG, "try: curl -i {url}/ -H '{name}: demo-1' -d '{{}}'");
    }
}

fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let terminate = listen_for(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: listen_for(SignalKind::interrupt())? })
    }

    /// Resolves at the first signal.
    async fn first(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {}, _ = self.interrupt.recv() => {} }
    }

    /// Runs `closing`. From now on the next signal ends the process at once. That is safe: the requests that
    /// run then have an unknown outcome at the next start.
    async fn second_ends_the_process(mut self, closing: impl Future<Output = ()>) {
        let second = tokio::select! { () = closing => false, () = self.first() => true };
        // ORDER: `closing` is dropped by now, and with it the server behind, which is asked to end.
        if second {
            exit();
        }
        tokio::spawn(async move {
            self.first().await;
            exit();
        });
    }
}

fn exit() -> ! {
    std::process::exit(Exit::Interrupted.code().into())
}

/// Waits up to `at_most` for connections, and for executions without a connection.
async fn drain(server: &Server, layer: &IdempotencyLayer, at_most: Duration) {
    let all = async {
        server.drained().await;
        // Executions whose clients have disconnected.
        layer.drained().await;
    };
    if tokio::time::timeout(at_most, all).await.is_err() {
        tracing::warn!(
            "the shutdown timeout is over: requests that still run have an unknown outcome"
        );
    }
}
