//! Resolves orphans: one, or many at once.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use oncekey::{Engine, Key, Lookup, Orphan};
use serde::Deserialize;
use serde_json::{Value, json};

use super::audit::Change;
use super::caller::Caller;
use super::desk::{Desk, Shared};
use super::gate::{Operating, Said};
use super::refusal::{Refusal, blocking};
use super::reports::Answer;
use super::resolution;
use super::text::percent_decode;

/// The largest number of orphans in one request.
const MOST: usize = 1000;

/// An orphan as the operator saw it.
#[derive(Clone, Deserialize)]
pub(crate) struct Seen {
    #[serde(default)]
    scope: String,
    key: String,
    token: String,
}

impl Seen {
    /// The orphan, if it is still the one that the operator saw.
    fn find(&self, engine: &Engine) -> Result<Orphan, Refusal> {
        let decode = |text: &str| {
            percent_decode(text.as_bytes())
                .ok_or_else(|| Refusal::bad("a % needs two hexadecimal digits after it"))
        };
        let key = Key::new(decode(&self.scope)?, decode(&self.key)?)?;
        match engine.get(&key)? {
            Lookup::Orphaned(orphan) if orphan.token().to_string() == self.token => Ok(orphan),
            _ => {
                let message = "the key is not, or no longer, the orphan that the token names";
                Err(Refusal::new(StatusCode::CONFLICT, "conflict", message))
            }
        }
    }
}

/// The reason of a change, and the confirmation that it is intended.
#[derive(Deserialize)]
pub(crate) struct Meant {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    confirm: String,
}

impl Meant {
    fn check(&self, seen: &Seen) -> Result<(), Refusal> {
        resolution::check_reason(&self.reason)
            .map_err(|mistake| Refusal::new(StatusCode::BAD_REQUEST, "reason", mistake))?;
        if self.confirm.is_empty() || self.confirm != resolution::confirmation(&seen.token) {
            let message = "confirm repeats the last four characters of the token";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "confirm", message));
        }
        Ok(())
    }
}

/// The response for the client of an orphan.
#[derive(Deserialize)]
pub(crate) struct Given {
    status: u16,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    /// Takes the place of `body` when the bytes are not text.
    #[serde(default, rename = "bodyBase64")]
    body_base64: Option<String>,
}

impl Given {
    fn response(&self) -> Result<Vec<u8>, Refusal> {
        let body = Some(&self.body[..]).filter(|body| !body.is_empty());
        let response =
            resolution::response(self.status, &self.headers, body, self.body_base64.as_deref());
        response.map_err(Refusal::bad)
    }
}

#[derive(Deserialize)]
pub(crate) struct Completing {
    #[serde(flatten)]
    seen: Seen,
    #[serde(flatten)]
    given: Given,
}

/// `POST orphans/release` of the router without roles.
pub(crate) async fn release(State(desk): Shared, Json(seen): Json<Seen>) -> Answer {
    freed(&desk, seen).await.map(Json)
}

/// `POST orphans/complete` of the router without roles.
pub(crate) async fn complete(State(desk): Shared, Json(said): Json<Completing>) -> Answer {
    completed(&desk, said.seen, said.given).await.map(Json)
}

async fn freed(desk: &std::sync::Arc<Desk>, seen: Seen) -> Result<Value, Refusal> {
    let asked = desk.clone();
    let orphan = blocking(move || seen.find(asked.engine())).await?;
    orphan.release().await.map_err(|failed| Refusal::from(failed.error()))?;
    Ok(json!({ "released": true }))
}

async fn completed(
    desk: &std::sync::Arc<Desk>,
    seen: Seen,
    given: Given,
) -> Result<Value, Refusal> {
    let response = given.response()?;
    let asked = desk.clone();
    let orphan = blocking(move || seen.find(asked.engine())).await?;
    let completed = orphan.complete(&response).await;
    let completion = completed.map_err(|failed| Refusal::from(failed.error()))?;
    Ok(json!({ "completed": true, "responseKept": completion.response_kept() }))
}

#[derive(Deserialize)]
pub(crate) struct MeantRelease {
    #[serde(flatten)]
    seen: Seen,
    #[serde(flatten)]
    meant: Meant,
}

#[derive(Deserialize)]
pub(crate) struct MeantCompletion {
    #[serde(flatten)]
    seen: Seen,
    #[serde(flatten)]
    given: Given,
    #[serde(flatten)]
    meant: Meant,
}

/// A member of the array of `POST orphans/resolve`.
#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub(crate) enum Resolution {
    Release(MeantRelease),
    Complete(MeantCompletion),
}

pub(crate) async fn release_for_a_reason(
    State(desk): Shared,
    Operating(caller): Operating,
    Said(said): Said<MeantRelease>,
) -> Answer {
    resolve(&desk, &caller, Resolution::Release(said)).await.map(Json)
}

pub(crate) async fn complete_for_a_reason(
    State(desk): Shared,
    Operating(caller): Operating,
    Said(said): Said<MeantCompletion>,
) -> Answer {
    resolve(&desk, &caller, Resolution::Complete(said)).await.map(Json)
}

/// Resolves many orphans. Each succeeds or fails on its own; the answer has a result for each, in order.
pub(crate) async fn resolve_many(
    State(desk): Shared,
    Operating(caller): Operating,
    Said(list): Said<Vec<Value>>,
) -> Answer {
    if list.len() > MOST {
        return Err(Refusal::bad(format!("at most {MOST} orphans at once")));
    }
    let mut results = Vec::with_capacity(list.len());
    for each in list {
        let mut result = json!({ "scope": each.get("scope"), "key": each.get("key") });
        let read = serde_json::from_value(each);
        let done = match read {
            Ok(resolution) => resolve(&desk, &caller, resolution).await,
            Err(error) => Err(Refusal::bad(error.to_string())),
        };
        match done {
            Ok(Value::Object(members)) => members.into_iter().for_each(|(name, value)| {
                result[name] = value;
            }),
            Ok(_) => {}
            Err(refusal) => {
                result["error"] = json!(refusal.message);
                result["code"] = json!(refusal.code);
            }
        }
        results.push(result);
    }
    Ok(Json(Value::Array(results)))
}

async fn resolve(
    desk: &std::sync::Arc<Desk>,
    caller: &Caller,
    resolution: Resolution,
) -> Result<Value, Refusal> {
    let (seen, meant, given) = match resolution {
        Resolution::Release(MeantRelease { seen, meant }) => (seen, meant, None),
        Resolution::Complete(MeantCompletion { seen, meant, given }) => (seen, meant, Some(given)),
    };
    meant.check(&seen)?;
    let change = Change {
        scope: Some(seen.scope.clone()),
        key: Some(seen.key.clone()),
        token: Some(seen.token.clone()),
        reason: Some(meant.reason),
        ..Change::of(if given.is_some() { "complete" } else { "release" })
    };
    let work = async {
        match given {
            Some(given) => completed(desk, seen, given).await,
            None => freed(desk, seen).await,
        }
    };
    desk.settings.audit.around(caller, change, work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolution_has_a_reason_and_repeats_the_end_of_the_token() {
        let check = |token: &str, reason: &str, confirm: &str| {
            let seen = Seen { scope: String::new(), key: "k".into(), token: token.to_owned() };
            let meant = Meant { reason: reason.to_owned(), confirm: confirm.to_owned() };
            meant.check(&seen).map_err(|refusal| refusal.code)
        };
        let long = "x".repeat(501);
        assert_eq!(check("00ab-1-42", "never charged", "1-42"), Ok(()));
        assert_eq!(check("00ab-1-42", "no", "1-42"), Err("reason"));
        assert_eq!(check("00ab-1-42", "     ", "1-42"), Err("reason"));
        assert_eq!(check("00ab-1-42", &long, "1-42"), Err("reason"));
        assert_eq!(check("00ab-1-42", "never charged", "-42"), Err("confirm"));
        assert_eq!(check("00ab-1-42", "never charged", ""), Err("confirm"));
        assert_eq!(check("", "never charged", ""), Err("confirm"));
        assert_eq!(check("ab", "never charged", "ab"), Ok(()));
    }
}
