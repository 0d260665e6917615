//! The store of the proxy: opened, reopened after a failure, closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use oncekey::{Durability, Engine, ErrorKind, Options};
use oncekey_http::IdempotencyLayer;

use super::desk::Health;
use crate::base::exit::Failure;
use crate::base::say::say;
use crate::config::{Config, StoreAt};

/// How often the proxy looks whether the store failed, and the shortest pause before it is reopened.
const LOOK: Duration = Duration::from_secs(1);

/// The longest pause between two tries to reopen a store.
const REOPEN_AT_MOST: Duration = Duration::from_secs(30);

/// Opens the store, and waits for one that another process holds: a rolling update starts the next
/// process before the last has ended.
pub(crate) async fn open(config: &Config) -> Result<Engine, Failure> {
    let (config, store) = (config.clone(), config.store.to_string());
    let opened = tokio::task::spawn_blocking(move || match &config.store {
        StoreAt::Directory(path) => embedded(&config).open(path),
        StoreAt::Postgres(url) => shared(&config, url)?.open(),
    });
    let opened = opened.await.map_err(|error| Failure::failed(error.to_string()))?;
    opened.map_err(|error| match error.kind() {
        ErrorKind::StoreInUse => Failure::held(format!("{store} is held by another process")),
        ErrorKind::InvalidInput => Failure::usage(error.to_string()),
        ErrorKind::StoreMissing => Failure::failed(format!(
            "{store} has no tables of oncekey: say --create to make them, or see docs/fleet.md"
        )),
        _ => Failure::failed(format!("cannot open {store}: {error}")),
    })
}

/// What opening the store would refuse, without opening it.
pub(crate) fn check(config: &Config) -> Result<(), Failure> {
    let checked = match &config.store {
        StoreAt::Directory(_) => embedded(config).validate(),
        StoreAt::Postgres(url) => shared(config, url).and_then(|options| options.validate()),
    };
    checked.map_err(|error| Failure::usage(error.to_string()))
}

fn embedded(config: &Config) -> Options {
    let max_response = config.max_response();
    Options::new()
        .ttl(config.policy.ttl)
        .durability(config.engine.durability)
        .max_store_bytes(config.engine.max_store_bytes)
        .cache_bytes(config.engine.cache_bytes)
        .max_response(max_response)
        .segment_bytes(segment_bytes(max_response))
        .lock_wait(config.lock_wait)
}

fn shared_engine(config: &Config) -> oncekey::fleet::Options {
    oncekey::fleet::Options {
        ttl: config.policy.ttl,
        max_response: config.max_response(),
        max_store_bytes: config.engine.max_store_bytes,
        // As much as an embedded store takes of it for responses.
        replay_bytes: config.engine.cache_bytes / 4,
        lease: config.postgres.lease,
        instance_name: config.postgres.instance.clone(),
        durable_claims: config.engine.durability == Durability::Strict,
        ..Default::default()
    }
}

fn shared(config: &Config, url: &str) -> oncekey::Result<oncekey_postgres::Options> {
    let postgres = &config.postgres;
    let options = oncekey_postgres::Options::new(url)
        .schema(&postgres.schema)
        .create(postgres.create)
        .engine(shared_engine(config));
    let Some(path) = &postgres.ca else { return Ok(options) };
    let pem = std::fs::read(path).map_err(|source| {
        let message = format!("the certificates of [postgres] ca, {}", path.display());
        oncekey::fleet::store::error(ErrorKind::InvalidInput, &message, Some(source.into()))
    })?;
    Ok(options.root_certificates(pem))
}

/// A segment of the journal that holds twice the longest response.
fn segment_bytes(max_response: usize) -> u64 {
    let twice = 2 * max_response as u64 + (64 << 10);
    twice.next_multiple_of(1 << 20).max(32 << 20)
}

/// Closes the store, and says what it did.
pub(crate) fn close(engine: &Engine) -> Result<(), Failure> {
    let stats = engine.stats();
    let closed = engine.close();
    let report =
        closed.map_err(|error| Failure::failed(format!("cannot close the store: {error}")))?;
    let (executed, replayed) = (stats.completed, stats.replayed);
    say(&format!(
        "closed: {executed} executed, {replayed} replayed, {} left in flight",
        report.in_flight
    ));
    Ok(())
}

/// Reopens a store that failed, after 1, 2, 4, … 30 s. Requests without a key pass meanwhile.
///
/// ORDER: a store that is well is never reopened: its claims would become orphans while their
/// requests run.
pub(crate) async fn keep_open(layer: IdempotencyLayer, health: Arc<Health>) {
    let mut seen = refusals(&layer);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = refusals(&layer);
        if now == seen || !has_failed(layer.engine()).await {
            seen = now;
            continue;
        }
        health.store_failed.store(true, Ordering::Relaxed);
        let mut pause = LOOK;
        while !reopened(layer.engine()).await {
            pause = (pause * 2).min(REOPEN_AT_MOST);
            tokio::time::sleep(pause).await;
        }
        tracing::info!("the store is open again");
        health.store_failed.store(false, Ordering::Relaxed);
    }
}

/// The number of requests that the store refused or failed, for any reason.
fn refusals(layer: &IdempotencyLayer) -> u64 {
    let stats = layer.stats();
    stats.store_unavailable + stats.complete_failed
}

/// Whether the engine refuses writes until it is reopened, and not because a bound was reached.
async fn has_failed(engine: &Engine) -> bool {
    let engine = engine.clone();
    let swept = tokio::task::spawn_blocking(move || engine.sweep()).await;
    matches!(swept, Ok(Err(error)) if error.kind() == ErrorKind::Unavailable)
}

async fn reopened(engine: &Engine) -> bool {
    let engine = engine.clone();
    match tokio::task::spawn_blocking(move || engine.reopen()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::error!(%error, "the store cannot be reopened");
            // It was closed: the process ends.
            error.kind() == ErrorKind::Closed
        }
        Err(_) => false,
    }
}
