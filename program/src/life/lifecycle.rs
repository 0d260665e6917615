//! The life of the proxy: sockets, signals, reload, drain.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderValue;
use oncekey::Engine;
use oncekey_http::IdempotencyLayer;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use super::admin::{self, Health};
use super::store;
use crate::base::exit::Failure;
use crate::base::units;
use crate::config::Config;
use crate::front::listener;
use crate::front::proxy::Proxy;
use crate::front::route::Routes;
use crate::front::serve::{Current, Server};
use crate::report::access_log::AccessLog;
use crate::report::metrics;
use crate::upstream::Control;
use crate::upstream::Upstreams;
use crate::wire::hygiene::Hygiene;

/// Runs the proxy until a signal ends it. `configure` reads the configuration anew, for SIGHUP.
pub(crate) async fn run(
    config: Config,
    json: bool,
    configure: impl Fn() -> Result<Config, Failure> + Send + 'static,
) -> Result<(), Failure> {
    // Before the first counter is made.
    let measured = config.admin.map(|_| metrics::install()).transpose();
    let measured = measured.map_err(|error| Failure::failed(format!("cannot count: {error}")))?;
    let engine = store::open(&config).await?;
    let maker = Maker {
        layer: IdempotencyLayer::new(engine.clone())
            .max_buffered(config.limits.max_buffered)
            .body_idle(config.limits.request_body_idle),
        via: via(),
        json,
        control: control(config.control).await?,
    };
    let proxy = Current::new(maker.proxy(&config).map_err(Failure::usage)?);
    let server = Arc::new(Server {
        proxy: proxy.clone(),
        header_timeout: config.limits.header_timeout,
        connections: Arc::new(Semaphore::new(config.limits.max_connections as usize)),
        max_connections: config.limits.max_connections,
    });
    let health = Arc::new(Health {
        engine: engine.clone(),
        draining: AtomicBool::new(false),
        store_failed: AtomicBool::new(false),
        measured,
    });
    let (stop, stopped) = watch::channel(false);
    let mut accepting = tokio::task::JoinSet::new();
    let mut urls = Vec::new();
    for listen in &config.listen {
        let listener =
            listener::bind(listen).await.map_err(|error| cannot_listen(listen, &error))?;
        urls.push(listener.url());
        let (server, stopped) = (server.clone(), stopped.clone());
        accepting.spawn(async move { server.accept(listener, stopped).await });
    }
    if let Some(address) = config.admin {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|error| cannot_listen(&address, &error))?;
        tokio::spawn(admin::serve(listener, health.clone()));
    }
    tokio::spawn(store::keep_open(maker.layer.clone(), health.clone()));
    greet(&config, &engine, &urls);
    let (layer, drain_delay, timeout) =
        (maker.layer.clone(), config.drain_delay, config.shutdown_timeout);
    let hangup = listen_for(SignalKind::hangup())?;
    tokio::spawn(reload(hangup, config, configure, maker, proxy));
    wait_for_signal().await?;
    health.draining.store(true, Ordering::Relaxed);
    tokio::time::sleep(drain_delay).await;
    // Those who listened to it may have ended.
    let _ = stop.send(true);
    while accepting.join_next().await.is_some() {}
    drain(&server, &layer, timeout).await;
    store::close(&engine)
}

/// At each signal puts a new proxy in the place of the one that is in force, if the configuration as
/// it stands then allows one.
async fn reload(
    mut hangup: Signal,
    running: Config,
    configure: impl Fn() -> Result<Config, Failure>,
    maker: Maker,
    proxy: Arc<Current>,
) {
    while hangup.recv().await.is_some() {
        match reloaded(&running, &configure, &maker) {
            Ok(new) => {
                proxy.set(new);
                metrics::reloaded("done");
                tracing::info!("the configuration was reloaded");
            }
            Err(lines) => {
                metrics::reloaded("refused");
                let reason = lines.join("; ");
                tracing::error!(
                    reason,
                    "the configuration was not reloaded; the old one is in force"
                );
            }
        }
    }
}

/// Makes proxies that share the store, from one configuration and the next.
struct Maker {
    layer: IdempotencyLayer,
    via: HeaderValue,
    json: bool,
    control: Option<Arc<Control>>,
}

impl Maker {
    fn proxy(&self, config: &Config) -> Result<Proxy, String> {
        let contract = config.contract();
        let layer = self.layer.clone().contract(contract.clone());
        let upstreams = Upstreams::new(&config.upstream)?;
        let routes = Routes::new(config, &layer, &Arc::new(upstreams), self.control.as_ref())?;
        let mut ours = contract.headers.clone();
        ours.extend(config.policies().filter_map(|policy| policy.scope.header().cloned()));
        let hygiene =
            Hygiene { ours, trusted: config.trusted_proxies.clone(), via: self.via.clone() };
        let access_log = config.log.access.then_some(AccessLog { json: self.json });
        let counted = config.admin.is_some();
        Ok(Proxy { contract, hygiene, routes, access_log, counted })
    }
}

/// The proxy of the configuration as it stands now; or why the one that is in force stays.
fn reloaded(
    running: &Config,
    configure: &impl Fn() -> Result<Config, Failure>,
    maker: &Maker,
) -> Result<Proxy, Vec<String>> {
    let config = configure().map_err(|failure| failure.lines)?;
    let fixed = running.fixed_fields_that_differ(&config);
    if !fixed.is_empty() {
        return Err(vec![format!("a restart is needed to change {}", fixed.join(", "))]);
    }
    maker.proxy(&config).map_err(|error| vec![error])
}

/// The place for checkpoints, if there is one.
async fn control(address: Option<SocketAddr>) -> Result<Option<Arc<Control>>, Failure> {
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

/// Says what runs.
fn greet(config: &Config, engine: &Engine, urls: &[String]) {
    let list = |members: &[String]| members.join(", ");
    let upstreams: Vec<_> = config.upstream.urls.iter().map(ToString::to_string).collect();
    eprintln!("oncekey: listening on {} for {}", list(urls), list(&upstreams));
    let ttl = units::show_duration(config.policy.ttl);
    let unknown = engine.stats().orphans;
    eprintln!(
        "oncekey: store {}, ttl {ttl}, {unknown} keys with unknown outcome",
        config.store.display()
    );
    let contract = config.contract();
    let headers: Vec<_> = contract.headers.iter().map(ToString::to_string).collect();
    let methods = match &contract.methods {
        oncekey_http::Methods::Only(methods) => {
            list(&methods.iter().map(ToString::to_string).collect::<Vec<_>>())
        }
        _ => "every method but GET, HEAD, OPTIONS, TRACE".to_owned(),
    };
    eprintln!("oncekey: keys in {}; {methods}", headers.join(" or "));
    if let Some(url) = urls.iter().find(|url| url.starts_with("http://")) {
        let name = headers.first().map_or("", String::as_str);
        eprintln!(
            "try: curl -i {}/ -H '{name}: demo-1' -d '{{}}'",
            url.replace("0.0.0.0", "localhost")
        );
    }
}

/// The value of `Via`, with an id by which this process knows its own requests again.
fn via() -> HeaderValue {
    use std::hash::{BuildHasher, RandomState};
    let id = RandomState::new().hash_one(std::process::id());
    HeaderValue::try_from(format!("1.1 oncekey ({id:016x})"))
        .unwrap_or_else(|_| HeaderValue::from_static("1.1 oncekey"))
}

fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
}

/// Resolves at the first signal; the second ends the process at once, which is safe: what ran then is
/// an unknown outcome at the next start.
async fn wait_for_signal() -> Result<(), Failure> {
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    Ok(())
}

/// Waits for connections and for executions without one, for `at_most`.
async fn drain(server: &Server, layer: &IdempotencyLayer, at_most: Duration) {
    let all = async {
        server.drained().await;
        // Executions whose clients are gone.
        layer.drained().await;
    };
    if tokio::time::timeout(at_most, all).await.is_err() {
        tracing::warn!("the shutdown timeout is over: what still runs has an unknown outcome");
    }
}
