//! The two recipes that services use where they have no engine: a key in Redis, a row in PostgreSQL.
//!
//! - **Redis**: `SET key claim NX GET EX 60`, the handler, `SETEX key 86400 record`, by the crate `redis` on one connection that
//!   all requests share. The server syncs each write before it answers (`appendfsync always`).
//! - **PostgreSQL**: `INSERT … ON CONFLICT DO NOTHING`, a `SELECT` if the row was there, the handler, `UPDATE`, prepared, by the crate
//!   `tokio-postgres` and a pool of [`POOL`] connections that a request holds for each statement and not while its handler runs.
//! - **The raw limit** is no recipe: the same middleware appends as many bytes to the simplest group commit there can be.
//!
//! What they are spared: neither looks at the request's body, compares fingerprints, notices an owner that
//! died, or checks at the end that it still holds the key; both keep the status and the body, and no headers.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use oncekey_benches::Result;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use tokio::sync::Semaphore;
use tokio_postgres::{Client, NoTls, Statement};

use super::REPLAYED;
use crate::engines::raw::Raw;
use crate::servers::postgres::{BEGIN, COMPLETE};
use crate::work::{HEADER, Work};

/// Connections of the pool.
pub const POOL: usize = 32;

const READ: &str = "SELECT value FROM record WHERE key = $1";
/// Seconds that a claim lasts, and a record.
const TTL: (u32, u32) = (60, 86_400);

/// What a recipe finds at the start.
pub enum Begun {
    /// The key was new.
    Claimed,
    /// A value is there: a claim or a record.
    Found(Vec<u8>),
}

/// Where values are kept.
pub trait Recipe: Clone + Send + Sync + 'static {
    /// Stores a claim unless there is a value.
    fn begin(&self, key: &[u8]) -> impl Future<Output = Result<Begun>> + Send;

    /// Replaces the claim by the record.
    fn complete(&self, key: &[u8], record: &[u8]) -> impl Future<Output = Result<()>> + Send;
}

/// The middleware of a recipe.
pub async fn keyed<R: Recipe>(State(recipe): State<R>, request: Request, next: Next) -> Response {
    let key = request.headers().get("idempotency-key").map(|key| key.as_bytes().to_vec());
    let Some(key) = key else {
        return next.run(request).await;
    };
    match exchange(&recipe, &key, request, next).await {
        Ok(response) => response,
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn exchange<R: Recipe>(
    recipe: &R,
    key: &[u8],
    request: Request,
    next: Next,
) -> Result<Response> {
    if let Begun::Found(value) = recipe.begin(key).await? {
        return Ok(found(value));
    }
    let (parts, body) = next.run(request).await.into_parts();
    let body = body.collect().await?.to_bytes();
    recipe.complete(key, &record(parts.status, &body)).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// A record holds what that of the mode `pairs` does: a header of as many bytes, status and body.
fn record(status: StatusCode, body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER + 2 + body.len());
    record.resize(HEADER, 0);
    record[0] = 1;
    record.extend_from_slice(&status.as_u16().to_be_bytes());
    record.extend_from_slice(body);
    record
}

fn found(value: Vec<u8>) -> Response {
    let record = (value.first() == Some(&1)).then(|| value.get(HEADER..)).flatten();
    let Some([high, low, ..]) = record else {
        return StatusCode::CONFLICT.into_response();
    };
    let status = u16::from_be_bytes([*high, *low]);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (name, mark) = REPLAYED.split_once(": ").unwrap_or((REPLAYED, ""));
    let headers = [(header::CONTENT_TYPE.as_str(), "application/json"), (name, mark)];
    (status, headers, Bytes::from(value).slice(HEADER + 2..)).into_response()
}

/// The recipe with Redis.
#[derive(Clone)]
pub struct RedisRecipe {
    connection: MultiplexedConnection,
    claim: Arc<[u8]>,
}

impl RedisRecipe {
    /// Connects to the server behind the socket.
    ///
    /// # Errors
    /// Those of the client.
    pub async fn connect(socket: &Path, work: &Work) -> Result<Self> {
        let client = redis::Client::open(format!("redis+unix://{}", socket.display()))?;
        // No answer is late here: the machine is busy.
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { connection, claim: work.claim.clone() })
    }
}

impl Recipe for RedisRecipe {
    async fn begin(&self, key: &[u8]) -> Result<Begun> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(&*self.claim).arg("NX").arg("GET").arg("EX").arg(TTL.0);
        let old: Option<Vec<u8>> = set.query_async(&mut self.connection.clone()).await?;
        Ok(old.map_or(Begun::Claimed, Begun::Found))
    }

    async fn complete(&self, key: &[u8], record: &[u8]) -> Result<()> {
        let mut set = redis::cmd("SETEX");
        set.arg(key).arg(TTL.1).arg(record);
        Ok(set.query_async(&mut self.connection.clone()).await?)
    }
}

/// The raw limit: a claim and a record are appended to a log, and each answer says only that it is durable.
impl Recipe for Arc<Raw> {
    async fn begin(&self, _key: &[u8]) -> Result<Begun> {
        Raw::begin(self).await?;
        Ok(Begun::Claimed)
    }

    async fn complete(&self, _key: &[u8], record: &[u8]) -> Result<()> {
        Raw::complete(self, record).await
    }
}

/// The recipe with PostgreSQL.
#[derive(Clone)]
pub struct PostgresRecipe {
    pool: Arc<Pool>,
    claim: Arc<[u8]>,
}

struct Pool {
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

struct Connection {
    client: Client,
    begin: Statement,
    read: Statement,
    complete: Statement,
}

impl PostgresRecipe {
    /// Fills the pool with connections to the server there, whose table exists.
    ///
    /// # Errors
    /// Those of the client.
    pub async fn connect(url: &str, work: &Work) -> Result<Self> {
        let mut idle = Vec::new();
        for _ in 0..POOL {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            // An error of the connection reaches every query of its client.
            tokio::spawn(async move { drop(connection.await) });
            idle.push(Connection {
                begin: client.prepare(BEGIN).await?,
                read: client.prepare(READ).await?,
                complete: client.prepare(COMPLETE).await?,
                client,
            });
        }
        let pool = Pool { idle: Mutex::new(idle), permits: Semaphore::new(POOL) };
        Ok(Self { pool: Arc::new(pool), claim: work.claim.clone() })
    }
}

impl Pool {
    /// Lends a connection to `statements`.
    async fn with<T>(&self, statements: impl AsyncFnOnce(&Connection) -> Result<T>) -> Result<T> {
        let _permit = self.permits.acquire().await?;
        let connection = self.idle.lock().pop().ok_or("a permit without a connection")?;
        let result = statements(&connection).await;
        self.idle.lock().push(connection);
        result
    }
}

impl Recipe for PostgresRecipe {
    async fn begin(&self, key: &[u8]) -> Result<Begun> {
        let claim = &*self.claim;
        self.pool
            .with(async |it| {
                if it.client.execute(&it.begin, &[&key, &claim]).await? == 1 {
                    return Ok(Begun::Claimed);
                }
                let row = it.client.query_one(&it.read, &[&key]).await?;
                Ok(Begun::Found(row.try_get(0)?))
            })
            .await
    }

    async fn complete(&self, key: &[u8], record: &[u8]) -> Result<()> {
        let updated = self
            .pool
            .with(async |it| Ok(it.client.execute(&it.complete, &[&key, &record]).await?))
            .await?;
        if updated == 1 { Ok(()) } else { Err("a claim is gone".into()) }
    }
}
