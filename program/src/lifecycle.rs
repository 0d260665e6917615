//! The life of the proxy: store, sockets, signals, drain.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderValue;
use oncekey::{Engine, ErrorKind, Options};
use oncekey_http::IdempotencyLayer;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::access_log::AccessLog;
use crate::admin::{self, Health};
use crate::config::Config;
use crate::exit::Failure;
use crate::hygiene::Hygiene;
use crate::proxy::Proxy;
use crate::route::Routes;
use crate::serve::Server;
use crate::units;
use crate::upstream::Upstreams;

/// How often a store that another process holds is tried again.
const LOCK_TRY: Duration = Duration::from_millis(100);

/// The longest pause between two tries to reopen a store that failed.
const REOPEN_AT_MOST: Duration = Duration::from_secs(30);

/// Runs the proxy until a signal ends it.
pub(crate) async fn run(config: Config, json: bool) -> Result<(), Failure> {
    let engine = open(&config).await?;
    let contract = config.contract();
    let layer = IdempotencyLayer::new(engine.clone())
        .contract(contract.clone())
        .max_buffered(config.limits.max_buffered)
        .body_idle(config.limits.request_body_idle);
    let upstream = &config.upstream;
    let upstreams = Upstreams::new(&upstream.urls, upstream.idle, upstream.connect_timeout);
    let routes = Routes::new(&config, &layer, &Arc::new(upstreams)).map_err(Failure::usage)?;
    let mut ours = contract.headers.clone();
    let policies = std::iter::once(&config.policy).chain(config.routes.iter().map(|r| &r.policy));
    ours.extend(policies.filter_map(|policy| policy.scope.header().cloned()));
    let hygiene = Hygiene { ours, trusted: config.trusted_proxies.clone(), via: via() };
    let access_log = config.log.access.then_some(AccessLog { json });
    let server = Arc::new(Server {
        proxy: Arc::new(Proxy { contract, hygiene, routes, access_log }),
        header_timeout: config.limits.header_timeout,
        connections: Arc::new(Semaphore::new(config.limits.max_connections as usize)),
        max_connections: config.limits.max_connections,
    });
    let health = Arc::new(Health {
        engine: engine.clone(),
        draining: AtomicBool::new(false),
        store_failed: AtomicBool::new(false),
    });
    let (stop, stopped) = watch::channel(false);
    let mut accepting = tokio::task::JoinSet::new();
    let mut urls = Vec::new();
    for listen in &config.listen {
        let listener = listen.bind().await.map_err(|error| cannot_listen(listen, &error))?;
        urls.push(listener.url());
        let (server, stopped) = (server.clone(), stopped.clone());
        accepting.spawn(async move { server.accept(listener, stopped).await });
    }
    if let Some(address) = config.admin {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|error| cannot_listen(&address, &error))?;
        tokio::spawn(admin::serve(listener, health.clone()));
    }
    tokio::spawn(reopen(layer.clone(), health.clone()));
    greet(&config, &engine, &urls);
    wait_for_signal().await?;
    health.draining.store(true, Ordering::Relaxed);
    tokio::time::sleep(config.drain_delay).await;
    // Those who listened to it may have ended.
    let _ = stop.send(true);
    while accepting.join_next().await.is_some() {}
    drain(&server, &layer, config.shutdown_timeout).await;
    close(&engine)
}

fn cannot_listen(address: &impl Display, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot listen on {address}: {error}"))
}

/// Opens the store, and waits for one that another process holds: a rolling update starts the next
/// process before the last has ended.
async fn open(config: &Config) -> Result<Engine, Failure> {
    let policies =
        || std::iter::once(&config.policy).chain(config.routes.iter().map(|r| &r.policy));
    let max_response =
        policies().map(|policy| policy.max_response).max().unwrap_or_default().max(1 << 20);
    let options = Options::new()
        .ttl(config.policy.ttl)
        .durability(config.engine.durability)
        .max_store_bytes(config.engine.max_store_bytes)
        .cache_bytes(config.engine.cache_bytes)
        .max_response(max_response)
        .segment_bytes(segment_bytes(max_response));
    let deadline = Instant::now() + config.lock_wait;
    let store = config.store.display();
    loop {
        let (options, path) = (options.clone(), config.store.clone());
        let opened = tokio::task::spawn_blocking(move || options.open(path)).await;
        match opened.map_err(|error| Failure::failed(error.to_string()))? {
            Ok(engine) => return Ok(engine),
            Err(error) if error.kind() == ErrorKind::StoreInUse => {
                if Instant::now() >= deadline {
                    return Err(Failure::held(format!("{store} is held by another process")));
                }
                tokio::time::sleep(LOCK_TRY).await;
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                return Err(Failure::usage(error.to_string()));
            }
            Err(error) => return Err(Failure::failed(format!("cannot open {store}: {error}"))),
        }
    }
}

/// A segment of the journal that holds twice the longest response.
fn segment_bytes(max_response: usize) -> u64 {
    let twice = 2 * max_response as u64 + (64 << 10);
    twice.next_multiple_of(1 << 20).max(32 << 20)
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

/// Resolves at the first signal; the second ends the process at once, which is safe: what ran then is
/// an unknown outcome at the next start.
async fn wait_for_signal() -> Result<(), Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
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

fn close(engine: &Engine) -> Result<(), Failure> {
    let stats = engine.stats();
    let closed = engine.close();
    let report =
        closed.map_err(|error| Failure::failed(format!("cannot close the store: {error}")))?;
    let (executed, replayed) = (stats.completed, stats.replayed);
    eprintln!(
        "closed: {executed} executed, {replayed} replayed, {} left in flight",
        report.in_flight
    );
    Ok(())
}

/// Reopens a store that failed, after 1, 2, 4, … 30 s. Requests without a key pass meanwhile.
async fn reopen(layer: IdempotencyLayer, health: Arc<Health>) {
    let mut seen = failures(&layer);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if failures(&layer) == seen {
            continue;
        }
        health.store_failed.store(true, Ordering::Relaxed);
        let mut pause = Duration::from_secs(1);
        loop {
            let engine = layer.engine().clone();
            let reopened = tokio::task::spawn_blocking(move || engine.reopen()).await;
            match reopened {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::error!(%error, "the store cannot be reopened"),
                Err(_) => return,
            }
            pause = (pause * 2).min(REOPEN_AT_MOST);
            tokio::time::sleep(pause).await;
        }
        tracing::info!("the store is open again");
        health.store_failed.store(false, Ordering::Relaxed);
        seen = failures(&layer);
    }
}

/// How often the store failed a request.
fn failures(layer: &IdempotencyLayer) -> u64 {
    let stats = layer.stats();
    stats.store_unavailable + stats.complete_failed
}
