//! The requests of operators that read and change nothing.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use oncekey::{Key, Lookup};
use serde_json::{Value, json};
use std::time::Duration;

use super::describe::{self, KeyQuery};
use super::desk::Shared;
use super::gate::{Operating, Viewing};
use super::refusal::{Refusal, blocking};
use super::text::{camel, parameter, parsed, percent_encode, since_1970};
use crate::recorded::StoredResponse;

pub(crate) type Answer = Result<Json<Value>, Refusal>;

/// The longest window of a series.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) async fn info(State(desk): Shared, Viewing(caller): Viewing) -> Json<Value> {
    let settings = &desk.settings;
    let mut info = settings.about.clone();
    let members = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "startedMs": since_1970(desk.common.started),
        "health": desk.unready().unwrap_or("ok"),
        "readOnly": settings.read_only,
        "showResponses": settings.show_responses,
        "backups": settings.backups.is_some(),
        "role": caller.role.as_str(),
        "name": caller.name,
        "csrf": caller.csrf,
    });
    if let Value::Object(members) = members {
        info.extend(members);
    }
    for member in ["store", "contract", "console"] {
        info.entry(member).or_insert(Value::Null);
    }
    Json(Value::Object(info))
}

pub(crate) async fn stats(State(desk): Shared) -> Json<Value> {
    let engine = describe::stats(&desk.engine().stats());
    let member = |(name, count)| (camel(name), json!(count));
    let layer = desk.common.layer.as_ref().map(|layer| -> serde_json::Map<_, _> {
        layer.stats().fields().into_iter().map(member).collect()
    });
    Json(json!({ "engine": engine, "layer": layer }))
}

pub(crate) async fn series(State(desk): Shared, uri: Uri) -> Answer {
    // A router may be made before its runtime exists.
    desk.begin_sampling();
    let window = parsed(&uri, "window", window)?.unwrap_or(Duration::from_secs(15 * 60));
    Ok(Json(desk.common.series.show(window)))
}

/// Reads a duration such as `90s`, `15m`, `24h`; from one second to a day.
fn window(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    Some(Duration::from_secs(seconds))
        .filter(|window| (1..=DAY.as_secs()).contains(&window.as_secs()))
}

pub(crate) async fn orphans(State(desk): Shared, uri: Uri) -> Answer {
    let limit = parsed(&uri, "limit", |limit| limit.parse().ok())?.unwrap_or(100);
    blocking(move || {
        let orphans = desk.engine().orphans()?;
        let listed: Vec<_> = orphans.iter().take(limit).map(describe::orphan).collect();
        Ok(Json(json!({ "total": orphans.len(), "orphans": listed })))
    })
    .await
}

/// The key that the query names.
fn key_of(uri: &Uri) -> Result<Key, Refusal> {
    let scope = parameter(uri, "scope")?.unwrap_or_default();
    let key = parameter(uri, "key")?.ok_or_else(|| Refusal::bad("key is missing"))?;
    Ok(Key::new(scope, key)?)
}

/// The state of a key. For a response it has the status and the length, not the content.
pub(crate) async fn look_up(State(desk): Shared, uri: Uri) -> Answer {
    let key = key_of(&uri)?;
    let found = blocking(move || Ok(desk.engine().get(&key)?)).await?;
    Ok(Json(describe::lookup(&found)))
}

/// A page of keys, in the order of the store.
pub(crate) async fn list(State(desk): Shared, uri: Uri) -> Answer {
    let query = KeyQuery {
        after: parsed(&uri, "after", KeyQuery::place)?,
        limit: parsed(&uri, "limit", |limit| limit.parse().ok())?.unwrap_or(100).clamp(1, 10_000),
        state: parsed(&uri, "state", |state| Some(state.to_owned()))?,
        scope: parameter(&uri, "scope")?,
        prefix: parameter(&uri, "prefix")?,
    };
    query.check().map_err(Refusal::bad)?;
    let scan = move || query.page(|after, limit| desk.engine().scan(after, limit));
    blocking(move || Ok(Json(scan()?))).await
}

/// The number of records by the time of their expiry.
pub(crate) async fn expiry(State(desk): Shared) -> Answer {
    blocking(move || Ok(Json(describe::expiry(&desk.engine().buckets()?)))).await
}

/// The body of a stored response. Its status and headers are in the header `Oncekey-Response`, as
/// percent-encoded JSON. A response that no HTTP layer stored has no such header, and its bytes are sent as
/// they are.
pub(crate) async fn response(
    State(desk): Shared,
    Operating(_): Operating,
    uri: Uri,
) -> Result<Response, Refusal> {
    if !desk.settings.show_responses {
        let message = "responses are not shown here; see show_responses";
        return Err(Refusal::forbidden("not_shown", message));
    }
    let key = key_of(&uri)?;
    let found = blocking(move || Ok(desk.engine().get(&key)?)).await?;
    let Lookup::Completed(recorded) = found else {
        return Err(Refusal::not_found("there is no response of this key"));
    };
    let Some(bytes) = recorded.response() else {
        return Err(Refusal::not_found("the operation was completed without a response"));
    };
    let Ok(stored) = StoredResponse::decode(bytes.to_vec()) else {
        return Ok(download(Bytes::copy_from_slice(bytes), "response.bin"));
    };
    let mut shown = download(stored.body().clone(), "response.bin");
    let headers: Vec<_> = stored
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let head = json!({ "status": stored.status().as_u16(), "headers": headers });
    if let Ok(head) = percent_encode(head.to_string().as_bytes()).parse() {
        shown.headers_mut().insert("oncekey-response", head);
    }
    Ok(shown)
}

pub(crate) async fn checkpoint(
    State(desk): Shared,
    Operating(_): Operating,
    uri: Uri,
) -> Result<Response, Refusal> {
    let key = key_of(&uri)?;
    let saved = blocking(move || match desk.engine().get(&key)? {
        Lookup::Orphaned(orphan) => Ok(orphan.last_checkpoint()?),
        _ => Err(Refusal::not_found("the key is not an orphan")),
    });
    let saved = saved.await?.ok_or_else(|| Refusal::not_found("the orphan has no checkpoint"))?;
    Ok(download(Bytes::copy_from_slice(&saved), "checkpoint.bin"))
}

/// Bytes as a download, which no browser shows as a page.
fn download(bytes: Bytes, name: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (StatusCode::OK, headers, bytes).into_response()
}

/// The configuration, as the embedder reports it.
pub(crate) async fn configuration(State(desk): Shared, Operating(_): Operating) -> Answer {
    let configuration = desk.settings.configuration.as_ref();
    configuration
        .map(|tell| Json(tell()))
        .ok_or_else(|| Refusal::not_found("this server shows no configuration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_durations_up_to_a_day() {
        assert_eq!(window("15m"), Some(Duration::from_secs(900)));
        assert_eq!((window("24h"), window("1s")), (Some(DAY), Some(Duration::from_secs(1))));
        for bad in ["", "m", "0s", "25h", "-1m", "15", "15d", "1\u{fc}"] {
            assert_eq!(window(bad), None, "{bad}");
        }
    }
}
