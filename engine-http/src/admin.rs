//! A router for operators: what stands unresolved, and what to do about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use axum::routing::{Route, get, post};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use oncekey::{Engine, Error, ErrorKind, Key, Lookup, Orphan, Statistic};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_layer::Layer;
use tower_service::Service;

use crate::layer::IdempotencyLayer;
use crate::recorded::StoredResponse;

/// What an operator may see and do: list and resolve orphans, look a key up, read the statistics, take
/// a backup. docs/operations.md lists the requests.
///
/// There is no way to get the router without a layer around it that authenticates the operator.
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
#[derive(Clone, Debug)]
pub struct Admin {
    layer: IdempotencyLayer,
    backups: Option<PathBuf>,
}

impl Admin {
    /// For the engine of `layer`, and the counters of the layer and its clones.
    pub fn new(layer: IdempotencyLayer) -> Self {
        Self { layer, backups: None }
    }

    /// Lets operators take backups, each into a new directory below this one. Default: they cannot.
    pub fn backups(mut self, directory: impl Into<PathBuf>) -> Self {
        self.backups = Some(directory.into());
        self
    }

    /// The router, to be nested where it shall be found. `authentication` is around all of it,
    /// requests to paths that do not exist included.
    ///
    /// Needs a tokio runtime: the engine's files are read on its threads for blocking work.
    pub fn router<L>(self, authentication: L) -> Router
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<std::convert::Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        Router::new()
            .route("/stats", get(stats))
            .route("/orphans", get(orphans))
            .route("/orphans/release", post(release))
            .route("/orphans/complete", post(complete))
            .route("/keys", get(look_up))
            .route("/backups", post(back_up))
            .fallback(async || StatusCode::NOT_FOUND)
            .layer(authentication)
            .with_state(Arc::new(self))
    }

    fn engine(&self) -> &Engine {
        self.layer.engine()
    }
}

type Shared = State<Arc<Admin>>;
type Answer = Result<Json<Value>, Refusal>;

/// Why an operator's request is not carried out, in words.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            ErrorKind::Fenced | ErrorKind::AlreadyCompleted => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// Runs what may read or write files where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())))
}

async fn stats(State(admin): Shared) -> Json<Value> {
    let engine = admin.engine().stats();
    let engine: serde_json::Map<_, _> = engine.fields().into_iter().map(member).collect();
    let layer = admin.layer.stats();
    Json(json!({
        "engine": engine,
        "layer": {
            "running": layer.running,
            "keyRefused": layer.key_refused,
            "bufferedBytes": layer.buffered_bytes,
            "bodyRefused": layer.body_refused,
            "bodyOverloaded": layer.body_overloaded,
            "storeUnavailable": layer.store_unavailable,
            "completeFailed": layer.complete_failed,
            "notStored": layer.not_stored,
            "notExecuted": layer.not_executed,
            "abandoned": layer.abandoned,
            "undecodable": layer.undecodable,
            "unscopedCookies": layer.unscoped_cookies,
        },
    }))
}

/// A statistic of the engine as a member of a JSON object: `open_bytes` is `openBytes`.
fn member((name, statistic): (&str, Statistic)) -> (String, Value) {
    let mut words = name.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        name.push_str(&first.to_ascii_uppercase());
        name.push_str(rest);
    }
    match statistic {
        Statistic::Gauge(number) | Statistic::Counter(number) => (name, json!(number)),
        Statistic::State(is) => (name, json!(is)),
        Statistic::Age(age) => (name + "Ms", json!(age.map(millis))),
    }
}

async fn orphans(State(admin): Shared, uri: Uri) -> Answer {
    let limit = match parameter(&uri, "limit")? {
        Some(limit) => std::str::from_utf8(&limit)
            .ok()
            .and_then(|limit| limit.parse().ok())
            .ok_or_else(|| Refusal::bad("limit is not a number"))?,
        None => 100,
    };
    blocking(move || {
        let orphans = admin.engine().orphans()?;
        let listed: Vec<_> = orphans.iter().take(limit).map(describe).collect();
        Ok(Json(json!({ "total": orphans.len(), "orphans": listed })))
    })
    .await
}

fn describe(orphan: &Orphan) -> Value {
    json!({
        "scope": percent_encode(orphan.key().scope()),
        "key": percent_encode(orphan.key().key()),
        "token": orphan.token().to_string(),
        "attempt": orphan.attempt(),
        "sinceMs": since_1970(orphan.since()),
        "ageMs": millis(orphan.age()),
        "checkpointBytes": orphan.checkpoint_len(),
    })
}

/// What a key stands for. Of a response it tells how it looks, not what it says.
async fn look_up(State(admin): Shared, uri: Uri) -> Answer {
    let scope = parameter(&uri, "scope")?.unwrap_or_default();
    let key = parameter(&uri, "key")?.ok_or_else(|| Refusal::bad("key is missing"))?;
    let key = Key::new(scope, key)?;
    let found = blocking(move || Ok(admin.engine().get(&key)?)).await?;
    Ok(Json(match found {
        Lookup::InFlight(in_flight) => json!({
            "state": "inFlight",
            "attempt": in_flight.attempt(),
            "runningForMs": millis(in_flight.running_for()),
        }),
        Lookup::Orphaned(orphan) => {
            let mut found = describe(&orphan);
            found["state"] = json!("orphaned");
            found
        }
        Lookup::Completed(recorded) => {
            let stored = recorded.response().map(|bytes| StoredResponse::decode(bytes.to_vec()));
            let stored = stored.map(|stored| match stored {
                Ok(stored) => json!({
                    "status": stored.status().as_u16(),
                    "bodyBytes": stored.body().len(),
                }),
                Err(error) => json!({ "error": error.to_string() }),
            });
            json!({
                "state": "completed",
                "token": recorded.token().to_string(),
                "completedAtMs": since_1970(recorded.completed_at()),
                "expiresAtMs": since_1970(recorded.expires_at()),
                "response": stored,
            })
        }
        _ => json!({ "state": "absent" }),
    }))
}

/// An orphan as an operator saw it.
#[derive(Deserialize)]
struct Seen {
    #[serde(default)]
    scope: String,
    key: String,
    token: String,
}

impl Seen {
    /// The orphan, if it is still the one that was seen.
    fn find(&self, engine: &Engine) -> Result<Orphan, Refusal> {
        let decode = |text: &str| {
            percent_decode(text.as_bytes()).ok_or_else(|| Refusal::bad("a % without two digits"))
        };
        let key = Key::new(decode(&self.scope)?, decode(&self.key)?)?;
        match engine.get(&key)? {
            Lookup::Orphaned(orphan) if orphan.token().to_string() == self.token => Ok(orphan),
            _ => Err(Refusal(
                StatusCode::CONFLICT,
                "the key is not the orphan that the token names, or not any more".to_owned(),
            )),
        }
    }
}

async fn release(State(admin): Shared, Json(seen): Json<Seen>) -> Answer {
    let orphan = blocking(move || seen.find(admin.engine())).await?;
    orphan.release().await.map_err(|failed| Refusal::from(failed.error()))?;
    Ok(Json(json!({ "released": true })))
}

/// The response that the client of an orphan shall get.
#[derive(Deserialize)]
struct Completing {
    #[serde(flatten)]
    seen: Seen,
    status: u16,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
}

impl Completing {
    fn response(&self) -> Result<Vec<u8>, Refusal> {
        let status = StatusCode::from_u16(self.status)
            .map_err(|_| Refusal::bad("status is not an HTTP status"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) else {
                return Err(Refusal::bad("a header is not one of HTTP"));
            };
            headers.append(name, value);
        }
        let response = StoredResponse::new(status, &headers, Bytes::from(self.body.clone()));
        response.encode().ok_or_else(|| Refusal::bad("the response is too long"))
    }
}

async fn complete(State(admin): Shared, Json(completing): Json<Completing>) -> Answer {
    let response = completing.response()?;
    let orphan = blocking(move || completing.seen.find(admin.engine())).await?;
    let completed = orphan.complete(&response).await;
    let completion = completed.map_err(|failed| Refusal::from(failed.error()))?;
    Ok(Json(json!({ "completed": true, "responseKept": completion.response_kept() })))
}

#[derive(Deserialize)]
struct Backup {
    name: String,
}

async fn back_up(State(admin): Shared, Json(Backup { name }): Json<Backup>) -> Answer {
    let Some(directory) = admin.backups.clone() else {
        return Err(Refusal(StatusCode::NOT_FOUND, "backups are not set up".to_owned()));
    };
    let path = backup_path(&directory, &name)?;
    blocking(move || {
        admin.engine().backup_to(&path)?;
        Ok(Json(json!({ "path": path.display().to_string() })))
    })
    .await
}

/// A name cannot lead out of the directory, nor hide in it.
fn backup_path(directory: &Path, name: &str) -> Result<PathBuf, Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.starts_with('.') || name.len() > 128 || !name.bytes().all(plain) {
        return Err(Refusal::bad("a name has 1 to 128 letters, digits, - _ . and no . in front"));
    }
    Ok(directory.join(name))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn since_1970(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The parameter `name` of a query, decoded to bytes, which keys are.
fn parameter(uri: &Uri, name: &str) -> Result<Option<Vec<u8>>, Refusal> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let value = pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value));
    value.map(|value| percent_decode(value.as_bytes())).map_or(Ok(None), |decoded| {
        decoded.map(Some).ok_or_else(|| Refusal::bad("a % without two digits"))
    })
}

fn percent_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'%' => text.push_str("%25"),
            b'!'..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// `None` when a `%` is not followed by two hexadecimal digits.
fn percent_decode(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        text = rest;
        if *first == b'%' {
            let (digits, rest) = text.split_at_checked(2)?;
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
            text = rest;
        } else {
            bytes.push(*first);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_percent_encoding() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = percent_encode(&bytes);
        assert!(text.is_ascii() && !text.contains(' '));
        assert_eq!(percent_decode(text.as_bytes()), Some(bytes));
        for bad in ["%", "%4", "%4g", "a%"] {
            assert_eq!(percent_decode(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_backup_stays_in_its_directory() {
        let directory = Path::new("/backups");
        assert_eq!(backup_path(directory, "2026-07-01").unwrap(), directory.join("2026-07-01"));
        for name in ["", ".", "..", ".hidden", "a/b", "../a", "/etc", "a\\b", "a b", "\u{fc}"] {
            assert!(backup_path(directory, name).is_err(), "{name}");
        }
    }
}
