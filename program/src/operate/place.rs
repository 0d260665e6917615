//! The place that a command asks: the owner of a store, its files, or a shared server.

use std::path::{Path, PathBuf};

use oncekey::{Engine, Error, Key, Listed, Lookup, Options, Reader};
use oncekey_http::StoredResponse;
use oncekey_http::describe::{self, KeyQuery};
use serde_json::{Value, json};

use super::client::Client;
use crate::base::exit::{Exit, Failure};

/// The part that answers a command.
pub(crate) enum Place {
    /// The files of a store that no process has open.
    Files(Reader, PathBuf),
    /// The server that holds the store.
    Served(Box<Client>),
    /// A shared server; holds its name without the password.
    Shared(Engine, String),
}

/// The failure of a command for an error of the engine.
pub(crate) fn failure(error: &Error) -> Failure {
    Failure::new(Exit::of(error), error.to_string()).with_remedy()
}

/// The failure of a command for an error of opening, reading or verifying the store in `directory`.
pub(crate) fn unopened(error: &Error, directory: &Path) -> Failure {
    Failure::new(Exit::of_open(error, directory), error.to_string()).with_remedy()
}

/// Options for reading a store. A clock that is ahead does not prevent that.
pub(crate) fn options() -> Options {
    Options::new().accept_clock_jump(true)
}

/// Percent-encodes a text for a query of the API.
pub(crate) fn in_query(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    let encoded = bytes.iter().map(|byte| match plain(byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    encoded.collect()
}

fn key_in_query(key: &Key) -> String {
    format!("scope={}&key={}", in_query(key.scope()), in_query(key.key()))
}

/// A stored response.
pub(crate) struct Shown {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Shown {
    fn of(bytes: &[u8]) -> Result<Self, Failure> {
        let stored = StoredResponse::decode(bytes.to_vec());
        // An embedder may store bytes in any format.
        let Ok(stored) = stored else {
            return Ok(Self { headers: Vec::new(), body: bytes.to_vec() });
        };
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Ok(Self {
            headers: stored.headers().iter().map(header).collect(),
            body: stored.body().to_vec(),
        })
    }
}

type Scanned = oncekey::Result<(Vec<Listed>, Option<[u8; 16]>)>;

impl Place {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Files(_, path) => path.display().to_string(),
            Self::Served(client) => match &client.store {
                Some(store) => store.display().to_string(),
                None => client.target().to_string(),
            },
            Self::Shared(_, name) => name.clone(),
        }
    }

    fn scan(&self, after: Option<[u8; 16]>, limit: usize) -> Scanned {
        match self {
            Self::Files(reader, _) => reader.scan(after, limit),
            Self::Shared(engine, _) => engine.scan(after, limit),
            Self::Served(_) => Ok((Vec::new(), None)),
        }
    }

    /// The statistics of the engine, and of the layer if there is one.
    pub(crate) fn stats(&self) -> Result<Value, Failure> {
        let stats = match self {
            Self::Served(client) => return client.get("stats"),
            Self::Files(reader, _) => reader.stats(),
            Self::Shared(engine, _) => {
                // The engine of a command has done nothing as yet, and knows no figures of the others.
                let mut stats = engine.stats();
                stats.orphans = self.orphans()?["total"].as_u64().unwrap_or_default();
                stats
            }
        };
        Ok(json!({ "engine": describe::stats(&stats), "layer": null }))
    }

    /// The process that holds the store; null when no process does.
    pub(crate) fn owner(&self) -> Result<Value, Failure> {
        match self {
            Self::Served(client) => client.get("info"),
            _ => Ok(Value::Null),
        }
    }

    /// A page of keys: `keys` and `after`.
    pub(crate) fn keys(&self, query: &KeyQuery) -> Result<Value, Failure> {
        let Self::Served(client) = self else {
            let page = query.page(|after, limit| self.scan(after, limit));
            return page.map_err(|error| failure(&error));
        };
        let mut path = format!("keys/list?limit={}", query.limit);
        if let Some(after) = query.after {
            path.push_str(&format!("&after={:032x}", u128::from_be_bytes(after)));
        }
        let parts = [
            ("state", query.state.as_ref().map(|state| state.as_bytes())),
            ("scope", query.scope.as_deref()),
            ("prefix", query.prefix.as_deref()),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", in_query(value)));
            }
        }
        client.get(&path)
    }

    fn look_up(&self, key: &Key) -> Result<Lookup, Failure> {
        let found = match self {
            Self::Files(reader, _) => reader.get(key),
            Self::Shared(engine, _) => engine.get(key),
            Self::Served(_) => Ok(Lookup::Absent),
        };
        found.map_err(|error| failure(&error))
    }

    /// The state of a key, according to a server.
    pub(crate) fn key_of_server(client: &Client, key: &Key) -> Result<Value, Failure> {
        client.get(&format!("keys?{}", key_in_query(key)))
    }

    /// The state of a key.
    pub(crate) fn key(&self, key: &Key) -> Result<Value, Failure> {
        if let Self::Served(client) = self {
            return Self::key_of_server(client, key);
        }
        let mut found = describe::lookup(&self.look_up(key)?);
        if matches!(self, Self::Files(..)) && found["state"] == "inFlight" {
            found["ownerGone"] = json!(true);
        }
        Ok(found)
    }

    /// The stored response of a key.
    pub(crate) fn response(&self, key: &Key) -> Result<Shown, Failure> {
        let none = || Failure::new(Exit::Absent, "there is no response of this key");
        let Self::Served(client) = self else {
            let Lookup::Completed(recorded) = self.look_up(key)? else { return Err(none()) };
            return Shown::of(recorded.response().ok_or_else(none)?);
        };
        let answer = client.download(&format!("keys/response?{}", key_in_query(key)))?;
        let head = answer.headers().get("oncekey-response").map(|head| head.as_bytes());
        let head = head.and_then(describe::percent_decode).unwrap_or_default();
        let head: Value = serde_json::from_slice(&head).unwrap_or_default();
        let header =
            |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()));
        let headers = head["headers"].as_array().into_iter().flatten().filter_map(header);
        Ok(Shown { headers: headers.collect(), body: answer.into_body().to_vec() })
    }

    /// All orphans, oldest first: `total` and `orphans`.
    pub(crate) fn orphans(&self) -> Result<Value, Failure> {
        let orphans = match self {
            Self::Served(client) => return client.get(&format!("orphans?limit={}", u32::MAX)),
            Self::Files(reader, _) => reader.orphans(),
            Self::Shared(engine, _) => engine.orphans(),
        };
        let orphans = orphans.map_err(|error| failure(&error))?;
        let listed: Vec<_> = orphans.iter().map(describe::orphan).collect();
        Ok(json!({ "total": listed.len(), "orphans": listed }))
    }

    /// The last checkpoint of an orphan.
    pub(crate) fn checkpoint(&self, key: &Key) -> Result<Vec<u8>, Failure> {
        let none = || Failure::new(Exit::Absent, "there is no checkpoint of this key");
        if let Self::Served(client) = self {
            let path = format!("orphans/checkpoint?{}", key_in_query(key));
            return Ok(client.download(&path)?.into_body().to_vec());
        }
        // An operation in flight in the files becomes an orphan with the next open; it is listed as one now.
        let orphans = match self {
            Self::Files(reader, _) => reader.orphans(),
            Self::Shared(engine, _) => engine.orphans(),
            Self::Served(_) => Ok(Vec::new()),
        };
        let orphans = orphans.map_err(|error| failure(&error))?;
        let orphan = orphans.iter().find(|orphan| orphan.key() == key).ok_or_else(none)?;
        let saved = orphan.last_checkpoint().map_err(|error| failure(&error))?;
        saved.map(|saved| saved.to_vec()).ok_or_else(none)
    }

    /// Completed records by the time of their expiry.
    pub(crate) fn expiry(&self) -> Result<Value, Failure> {
        let buckets = match self {
            Self::Served(client) => return client.get("expiry"),
            Self::Files(reader, _) => reader.buckets(),
            Self::Shared(engine, _) => engine.buckets(),
        };
        Ok(describe::expiry(&buckets.map_err(|error| failure(&error))?))
    }

    /// The server, for requests that only a server carries out.
    pub(crate) fn server(&self, command: &str) -> Result<&Client, Failure> {
        match self {
            Self::Served(client) => Ok(client),
            Self::Shared(..) => Err(Failure::usage(format!(
                "{command} asks one process: name it with --url, since a shared store names none"
            ))),
            Self::Files(..) => Err(Failure::failed(format!(
                "{command} asks a running server, and no process has {} open",
                self.name()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_a_query_is_one_parameter() {
        assert_eq!(in_query(b"a&b=c%#? \xff"), "a%26b%3Dc%25%23%3F%20%FF");
    }
}
