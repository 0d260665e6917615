//! Carries out resolutions, on a running server or on the engine that this process opens.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use oncekey::{Engine, Key, Lookup};
use oncekey_http::StoredResponse;
use serde_json::{Value, json};

use super::client::Client;
use super::keys::key_of;
use super::output::Output;
use super::place::{Place, Where, failure, options};
use crate::base::exit::{Exit, Failure};

/// The engine that resolves: the engine of a server, or of this process.
pub(crate) enum Desk {
    Server(Box<Client>),
    Engine(Engine),
}

impl Desk {
    pub(crate) fn open(at: &Where, output: &Output) -> Result<Self, Failure> {
        match at.open_settled(output)? {
            Place::Served(client) => Ok(Self::Server(client)),
            Place::Shared(engine, _) => Ok(Self::Engine(engine)),
            Place::Files(reader, path) => {
                drop(reader);
                output.note(&format!(
                    "oncekey: no process has {} open; this command opens it, and operations that were in flight are orphans now",
                    path.display()
                ));
                let opened = options().open_existing(&path);
                opened.map(Self::Engine).map_err(|error| failure(&error))
            }
        }
    }

    /// The orphan of a key. An error if the key is not an orphan.
    pub(crate) fn orphan(&self, key: &Key) -> Result<Value, Failure> {
        let found = match self {
            Self::Server(client) => Place::key_of_server(client, key)?,
            Self::Engine(engine) => {
                let found = engine.get(key).map_err(|error| failure(&error))?;
                oncekey_http::describe::lookup(&found)
            }
        };
        match found["state"].as_str() {
            Some("orphaned") => Ok(found),
            Some("absent") | None => Err(Failure::new(Exit::Absent, "no such key")),
            Some(state) => {
                Err(Failure::new(Exit::Conflict, format!("the key is not an orphan: {state}")))
            }
        }
    }

    /// Whether a resolution would succeed now.
    pub(crate) fn look(&self, each: &Value) -> Result<Value, Failure> {
        let mut result =
            json!({ "scope": each["scope"], "key": each["key"], "action": each["action"] });
        match self.orphan(&key_of(each)?) {
            Ok(orphan) if orphan["token"] == each["token"] => result["would"] = json!("resolve"),
            Ok(_) => result["error"] = json!("another attempt is the orphan now"),
            Err(refusal) => result["error"] = json!(refusal.lines.join(" ")),
        }
        Ok(result)
    }

    /// Resolves a batch. Returns a result for each resolution, in order.
    pub(crate) fn resolve(&self, batch: &[Value]) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Server(client) => {
                let results = client.post("orphans/resolve", &json!(batch))?;
                Ok(results.as_array().cloned().unwrap_or_default())
            }
            Self::Engine(engine) => Ok(batch.iter().map(|each| resolved(engine, each)).collect()),
        }
    }
}

/// Resolves one orphan here. The result has the form of the server's results.
fn resolved(engine: &Engine, each: &Value) -> Value {
    let mut result = json!({ "scope": each["scope"], "key": each["key"] });
    let done = key_of(each).and_then(|key| resolve_here(engine, &key, each));
    match done {
        Ok(Value::Object(members)) => {
            members.into_iter().for_each(|(name, value)| result[name] = value)
        }
        Ok(_) => {}
        Err(refusal) => {
            let code = match refusal.exit {
                Some(Exit::Conflict) => "conflict",
                Some(Exit::Usage) => "invalid",
                _ => "unavailable",
            };
            let message = refusal.lines.join(" ");
            result["error"] = json!(message.trim_start_matches("oncekey: "));
            result["code"] = json!(code);
        }
    }
    result
}

fn resolve_here(engine: &Engine, key: &Key, each: &Value) -> Result<Value, Failure> {
    let orphan = match engine.get(key).map_err(|error| failure(&error))? {
        Lookup::Orphaned(orphan) if json!(orphan.token().to_string()) == each["token"] => orphan,
        _ => {
            let message = "the key is not, or no longer, the orphan that the token names";
            return Err(Failure::new(Exit::Conflict, message));
        }
    };
    if each["action"] == "release" {
        orphan.release().wait().map_err(|failed| failure(failed.error()))?;
        return Ok(json!({ "released": true }));
    }
    let completion = orphan.complete(&response_of(each)?).wait();
    let completion = completion.map_err(|failed| failure(failed.error()))?;
    Ok(json!({ "completed": true, "responseKept": completion.response_kept() }))
}

/// The response of a resolution, in its stored form.
fn response_of(each: &Value) -> Result<Vec<u8>, Failure> {
    let status = each["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let status = status.filter(|status| (200..=599).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.ok_or_else(|| Failure::usage("status must be from 200 to 599"))?;
    let mut headers = HeaderMap::new();
    for pair in each["headers"].as_array().into_iter().flatten() {
        let name = HeaderName::try_from(pair[0].as_str().unwrap_or_default());
        let value = HeaderValue::from_str(pair[1].as_str().unwrap_or_default());
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Failure::usage("a header is not valid in HTTP"));
        };
        headers.append(name, value);
    }
    let body = match each["bodyBase64"].as_str() {
        Some(encoded) => {
            STANDARD.decode(encoded).map_err(|_| Failure::usage("bodyBase64 is not base64"))?
        }
        None => each["body"].as_str().unwrap_or_default().as_bytes().to_vec(),
    };
    let response = StoredResponse::new(status, &headers, body);
    response.encode().ok_or_else(|| Failure::usage("the response is too long"))
}
