//! Carries out resolutions, on a running server or on the engine that this process opens.

use std::collections::HashMap;

use oncekey::{Engine, Error, Key, Lookup};
use serde_json::{Value, json};

use super::client::Client;
use super::output::Output;
use super::place::{Place, failure, options, unopened};
use super::resolution::Resolution;
use super::whereabouts::Where;
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
                opened.map(Self::Engine).map_err(|error| unopened(&error, &path))
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

    /// Resolves a batch. Returns a result for each resolution, in order.
    pub(crate) fn resolve(&self, batch: &[Resolution]) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Server(client) => {
                let told: Vec<_> = batch.iter().map(|each| &each.told).collect();
                let results = client.post("orphans/resolve", &json!(told))?;
                Ok(results.as_array().cloned().unwrap_or_default())
            }
            Self::Engine(engine) => Ok(batch.iter().map(|each| resolved(engine, each)).collect()),
        }
    }
}

/// Whether resolutions would succeed now: a result for each. Changes nothing, not even the files of a
/// store that no process has open.
pub(crate) fn rehearse(place: &Place, all: &[Resolution]) -> Result<Vec<Value>, Failure> {
    let listed = place.orphans()?;
    let orphans: HashMap<_, _> = (listed["orphans"].as_array().into_iter().flatten())
        .map(|orphan| ((orphan["scope"].as_str(), orphan["key"].as_str()), &orphan["token"]))
        .collect();
    let would = |each: &Resolution| {
        let mut result = each.result();
        let orphan = orphans.get(&(result["scope"].as_str(), result["key"].as_str()));
        let conflict = match orphan {
            Some(token) if **token == each.token => None,
            Some(_) => Some("another attempt is the orphan now".to_owned()),
            None => Some(match place.key(&each.key)?["state"].as_str() {
                Some("absent") | None => "no such key".to_owned(),
                Some(state) => format!("the key is no orphan: {state}"),
            }),
        };
        result["action"] = each.told["action"].clone();
        match conflict {
            None => result["would"] = json!("resolve"),
            Some(error) => {
                result["error"] = json!(error);
                result["code"] = json!("conflict");
            }
        }
        Ok(result)
    };
    all.iter().map(would).collect()
}

/// Resolves one orphan here. The result has the form of the server's results.
fn resolved(engine: &Engine, each: &Resolution) -> Value {
    let mut result = each.result();
    match resolve_here(engine, each) {
        Ok(None) => result["released"] = json!(true),
        Ok(Some(kept)) => {
            result["completed"] = json!(true);
            result["responseKept"] = json!(kept);
        }
        Err((exit, message)) => {
            let code = match exit {
                Exit::Conflict => "conflict",
                Exit::Usage => "invalid",
                Exit::Damaged => "damaged",
                _ => "unavailable",
            };
            result["error"] = json!(message);
            result["code"] = json!(code);
        }
    }
    result
}

/// Whether the response of a completion is kept; `None` after a release.
fn resolve_here(engine: &Engine, each: &Resolution) -> Result<Option<bool>, (Exit, String)> {
    let refused = |error: &Error| (Exit::of(error), error.to_string());
    let orphan = match engine.get(&each.key).map_err(|error| refused(&error))? {
        Lookup::Orphaned(orphan) if orphan.token().to_string() == each.token => orphan,
        _ => {
            let message = "the key is not, or no longer, the orphan that the token names";
            return Err((Exit::Conflict, message.to_owned()));
        }
    };
    let Some(response) = &each.response else {
        orphan.release().wait().map_err(|failed| refused(failed.error()))?;
        return Ok(None);
    };
    let completion = orphan.complete(response).wait();
    let completion = completion.map_err(|failed| refused(failed.error()))?;
    Ok(Some(completion.response_kept()))
}
