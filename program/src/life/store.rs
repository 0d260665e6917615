//! The store of the proxy: opens it, reopens it after a failure, closes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use oncekey::{Durability, Engine, ErrorKind, Key, Options};
use oncekey_http::IdempotencyLayer;

use super::desk::Health;
use crate::base::exit::{Exit, Failure, root_cause};
use crate::base::say::LOG;
use crate::config::{Config, StoreAt};

/// The time between two checks whether the store failed, and the shortest pause before it is reopened.
const LOOK: Duration = Duration::from_secs(1);

/// The longest pause between two tries to reopen a store.
const REOPEN_AT_MOST: Duration = Duration::from_secs(30);

/// Opens the store, and waits for one that another process holds: a rolling update starts the next process
/// before the last one has ended.
pub(crate) async fn open(config: &Config) -> Result<Engine, Failure> {
    let (config, at, store) = (config.clone(), config.store.clone(), config.store.to_string());
    let opened = tokio::task::spawn_blocking(move || match &config.store {
        StoreAt::Directory(path) => embedded(&config).open(path),
        StoreAt::Postgres(url) => shared(&config, url)?.open(),
    });
    let opened = opened.await.map_err(|error| Failure::failed(error.to_string()))?;
    opened.map_err(|error| match error.kind() {
        ErrorKind::StoreInUse => Failure::held(format!("{store} is held by another process")),
        ErrorKind::InvalidInput => Failure::usage(error.to_string()),
        ErrorKind::StoreMissing => Failure::failed(format!(
            "{store} has no tables of oncekey: use --create to make them, or see docs/fleet.md"
        )),
        ErrorKind::Unavailable => {
            Failure::failed(format!("cannot open {store}: {}", root_cause(&error)))
        }
        _ => {
            let exit = match &at {
                StoreAt::Directory(path) => Exit::of_open(&error, path),
                StoreAt::Postgres(_) => Exit::Failed,
            };
            Failure::new(exit, format!("cannot open {store}: {error}")).with_remedy()
        }
    })
}

/// Reports the errors of opening the store, without opening it.
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
        // The same bytes that an embedded store uses for responses.
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

/// The size of a journal segment, in bytes: it holds twice the longest response.
fn segment_bytes(max_response: usize) -> u64 {
    let twice = 2 * max_response as u64 + (64 << 10);
    twice.next_multiple_of(1 << 20).max(32 << 20)
}

/// Closes the store and logs a summary of its work.
pub(crate) fn close(engine: &Engine) -> Result<(), Failure> {
    let stats = engine.stats();
    let closed = engine.close();
    let report =
        closed.map_err(|error| Failure::failed(format!("cannot close the store: {error}")))?;
    let (executed, replayed) = (stats.completed, stats.replayed);
    tracing::info!(
        target: LOG,
        "closed: {executed} executed, {replayed} replayed, {} left in flight",
        report.in_flight
    );
    Ok(())
}

/// Reopens a store that failed, after 1, 2, 4, … 30 s. Requests without a key pass meanwhile.
///
/// ORDER: a working store must never be reopened: the ends of its claims meanwhile would not be recorded.
pub(crate) async fn keep_open(layer: IdempotencyLayer, health: Arc<Health>) {
    let engine = layer.engine();
    if engine.directory().is_none() {
        return watch_shared(&layer, &health).await;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        // Ask the engine for no work: a store that is only full would fail it.
        if engine.stats().failures == 0 {
            continue;
        }
        health.store_failed.store(true, Ordering::Relaxed);
        let mut pause = LOOK;
        while !reopened(engine).await {
            pause = (pause * 2).min(REOPEN_AT_MOST);
            tokio::time::sleep(pause).await;
        }
        tracing::info!("the store is open again");
        health.store_failed.store(false, Ordering::Relaxed);
    }
}

/// Notes whether a shared store can be reached, beginning with the first request that it refused. The store
/// recovers by itself: a reopen would end the claims of this process for the other processes.
async fn watch_shared(layer: &IdempotencyLayer, health: &Health) {
    let (mut seen, mut failed) = (refusals(layer), false);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = refusals(layer);
        let is_well = now == seen && !failed;
        seen = now;
        if is_well {
            continue;
        }
        let was_failed = std::mem::replace(&mut failed, !answers(layer.engine()).await);
        health.store_failed.store(failed, Ordering::Relaxed);
        match (was_failed, failed) {
            (false, true) => tracing::error!("the store cannot be reached"),
            (true, false) => tracing::info!("the store is reached again"),
            _ => {}
        }
    }
}

/// The number of requests that the store refused or failed, for any reason.
fn refusals(layer: &IdempotencyLayer) -> u64 {
    let stats = layer.stats();
    stats.store_unavailable + stats.complete_failed
}

/// Whether the store answers an arbitrary question.
async fn answers(engine: &Engine) -> bool {
    let Ok(key) = Key::new("", "oncekey") else { return true };
    let engine = engine.clone();
    let asked = tokio::task::spawn_blocking(move || engine.get(&key)).await;
    asked.is_ok_and(|answer| answer.is_ok())
}

async fn reopened(engine: &Engine) -> bool {
    let engine = engine.clone();
    match tokio::task::spawn_blocking(move || engine.reopen()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::error!(%error, "the store cannot be reopened");
            // The engine was closed: the process is ending.
            error.kind() == ErrorKind::Closed
        }
        Err(_) => false,
    }
}
