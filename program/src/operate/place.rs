//! The place that a command asks: the owner of a store, its files, or a shared server.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use http::{Method, StatusCode};
use oncekey::{Engine, Error, ErrorKind, Key, Listed, Lookup, Options, Reader};
use oncekey_http::StoredResponse;
use oncekey_http::describe::{self, KeyQuery};
use serde_json::{Value, json};

use super::client::Client;
use super::held;
use super::output::Output;
use crate::base::exit::{Exit, Failure};
use crate::config::{Target, without_secrets};

/// The time between two checks whether a process is silent.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a command waits for the end of a silent process beyond its lease, before it continues.
const SETTLED: Duration = Duration::from_secs(5);

/// The store to ask.
#[derive(Args, Debug)]
pub(crate) struct Where {
    /// The store: its directory, or postgres://… [default: ./oncekey-store]
    #[arg(long, value_name = "DIR", env = "ONCEKEY_STORE")]
    store: Option<String>,

    /// Or the address at which its server answers operators: http://…, https://… or unix:/path
    #[arg(long, value_name = "URL", env = "ONCEKEY_URL", value_parser = Target::parse)]
    url: Option<Target>,

    /// A file with the token for --url; ONCEKEY_TOKEN holds the token itself
    #[arg(long, value_name = "FILE", env = "ONCEKEY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

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
    let exit = match error.kind() {
        ErrorKind::InvalidInput => Exit::Usage,
        ErrorKind::Fenced | ErrorKind::AlreadyCompleted => Exit::Conflict,
        ErrorKind::StoreInUse => Exit::Held,
        ErrorKind::Corrupted | ErrorKind::StoreTruncated | ErrorKind::StoreEmpty => Exit::Damaged,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

/// Options for reading a store. A clock that is ahead does not prevent that.
pub(crate) fn options() -> Options {
    Options::new().accept_clock_jump(true)
}

pub(crate) fn is_shared(store: &str) -> bool {
    store.starts_with("postgres://") || store.starts_with("postgresql://")
}

/// Options for reading a shared server. The lease is short: a command ends soon and holds no claims.
fn shared(url: &str) -> oncekey_postgres::Options {
    oncekey_postgres::Options::new(url).lease(PAUSE)
}

impl Where {
    pub(crate) fn store(&self) -> &str {
        self.store.as_deref().unwrap_or("./oncekey-store")
    }

    pub(crate) fn asks_a_server(&self) -> bool {
        self.url.is_some()
    }

    /// The directory of the store, for commands that work on files.
    pub(crate) fn directory(&self) -> Result<&Path, Failure> {
        if is_shared(self.store()) {
            return Err(Failure::usage(
                "a shared store is copied and checked with the tools of its server: pg_dump or \
                 pg_basebackup, pg_restore, pg_amcheck",
            ));
        }
        Ok(Path::new(self.store()))
    }

    /// Finds the place that answers.
    pub(crate) fn open(&self, output: &Output) -> Result<Place, Failure> {
        let place = self.find()?;
        if output.verbose {
            let whom = match &place {
                Place::Served(client) => format!("the server at {}", client.target()),
                Place::Files(_, path) => format!("the files in {}", path.display()),
                Place::Shared(_, name) => name.clone(),
            };
            output.note(&format!("oncekey: asking {whom}"));
        }
        Ok(place)
    }

    /// Like [`open`](Self::open), and waits until dead processes count as dead.
    pub(crate) fn open_settled(&self, output: &Output) -> Result<Place, Failure> {
        let place = self.open(output)?;
        self.settle(&place, output)?;
        Ok(place)
    }

    /// Waits until no process of a fleet has been silent for longer than its lease. Another process ends a
    /// dead one after living for its own lease; if no other does, this process does. Until then the claims of
    /// the dead process count as in flight.
    pub(crate) fn settle(&self, place: &Place, output: &Output) -> Result<(), Failure> {
        if !matches!(place, Place::Shared(..)) {
            return Ok(());
        }
        let (start, mut said) = (Instant::now(), false);
        let silent = || shared(self.store()).silent().map_err(|error| failure(&error));
        while let Some(lease) = silent()?
            && start.elapsed() < lease + SETTLED
        {
            if !said {
                said = true;
                output.note(&format!(
                    "a process is silent beyond its lease of {} s: waiting until it counts as dead",
                    lease.as_secs_f32()
                ));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn find(&self) -> Result<Place, Failure> {
        if let Some(target) = &self.url {
            return Ok(Place::Served(Box::new(Client::new(target.clone(), self.token()?)?)));
        }
        let store = self.store();
        if is_shared(store) {
            let engine = shared(store).open().map_err(|error| failure(&error))?;
            return Ok(Place::Shared(engine, without_secrets(store)));
        }
        let path = PathBuf::from(store);
        match options().read(&path) {
            Ok(reader) => Ok(Place::Files(reader, path)),
            Err(error) if error.kind() == ErrorKind::StoreInUse => owner_of(&path),
            Err(error) => Err(failure(&error)),
        }
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        let Some(file) = &self.token_file else { return Ok(std::env::var("ONCEKEY_TOKEN").ok()) };
        let token = fs::read_to_string(file);
        let token =
            token.map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
        Ok(Some(token.trim().to_owned()))
    }
}

/// The server that holds the store.
fn owner_of(path: &Path) -> Result<Place, Failure> {
    let holder = held::holder(path);
    let note = oncekey::owner(path).map(|note| held::read(&note)).unwrap_or_default();
    let pid = holder.or(note.pid);
    let Some(socket) = note.control else { return Err(held::refusal(path, pid)) };
    let target = Target::parse(&format!("unix:{}", socket.display())).map_err(Failure::failed)?;
    let mut client = Client::new(target, None)?;
    client.store = Some(path.to_owned());
    match client.ask(Method::GET, "/api/v1/info", None) {
        Ok(answer) if answer.status == StatusCode::FORBIDDEN => {
            let user = "the user that runs it";
            Err(Failure::new(
                Exit::Forbidden,
                format!("{} is for {user}, and root", client.target()),
            ))
        }
        Ok(_) => Ok(Place::Served(Box::new(client))),
        Err(_) => Err(held::refusal(path, pid)),
    }
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
            Self::Shared(engine, _) => engine.stats(),
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
        let head = answer.headers.get("oncekey-response").map(|head| head.as_bytes());
        let head = head.and_then(describe::percent_decode).unwrap_or_default();
        let head: Value = serde_json::from_slice(&head).unwrap_or_default();
        let header =
            |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()));
        let headers = head["headers"].as_array().into_iter().flatten().filter_map(header);
        Ok(Shown { headers: headers.collect(), body: answer.body.to_vec() })
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
            return Ok(client.download(&path)?.body.to_vec());
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
            _ => Err(Failure::failed(format!(
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
