//! Which store a command is about: its flags, and who answers for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use http::{Method, StatusCode};
use oncekey::{Error, ErrorKind};

use super::client::Client;
use super::held;
use super::output::Output;
use super::place::{Place, failure, options, unopened};
use crate::base::exit::{Exit, Failure, root_cause};
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

    /// The schema of a store in postgres://… [default: oncekey]
    #[arg(long, value_name = "NAME", env = "ONCEKEY_SCHEMA")]
    schema: Option<String>,

    /// Certificates by which the server of postgres://… or https://… is believed [default: the system's]
    #[arg(long, value_name = "FILE", env = "ONCEKEY_CA")]
    ca: Option<PathBuf>,
}

pub(crate) fn is_shared(store: &str) -> bool {
    store.starts_with("postgres://") || store.starts_with("postgresql://")
}

/// A directory of files, which the name of a shared store is not.
pub(crate) fn directory(path: &Path) -> Result<&Path, Failure> {
    match path.to_str() {
        Some(name) if is_shared(name) => Err(Failure::usage(
            "a shared store is copied and checked with the tools of its server: pg_dump or \
             pg_basebackup, pg_restore, pg_amcheck",
        )),
        _ => Ok(path),
    }
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
        directory(Path::new(self.store()))
    }

    /// Options for reading a shared server. The lease is short: a command ends soon and holds no claims.
    fn shared(&self) -> Result<oncekey_postgres::Options, Failure> {
        let mut options = oncekey_postgres::Options::new(self.store()).lease(PAUSE);
        if let Some(schema) = &self.schema {
            options = options.schema(schema);
        }
        if let Some(path) = &self.ca {
            let pem = fs::read(path);
            let pem =
                pem.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
            options = options.root_certificates(pem);
        }
        Ok(options)
    }

    /// The failure of a shared server: with its name, and with the reason below the words for engines that run.
    fn unreached(&self, error: &Error) -> Failure {
        let name = without_secrets(self.store());
        match error.kind() {
            ErrorKind::Unavailable => {
                Failure::failed(format!("{name} cannot be reached: {}", root_cause(error)))
            }
            ErrorKind::StoreMissing => {
                let schema = self.schema.as_deref().unwrap_or("oncekey");
                Failure::failed(format!("{name}, schema {schema}: {error}"))
            }
            _ => failure(error),
        }
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
        let options = self.shared()?;
        let silent = || options.silent().map_err(|error| self.unreached(&error));
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
            let client = Client::new(target.clone(), self.token()?, self.ca.as_deref())?;
            return Ok(Place::Served(Box::new(client)));
        }
        let store = self.store();
        if is_shared(store) {
            let engine = self.shared()?.open().map_err(|error| self.unreached(&error))?;
            return Ok(Place::Shared(engine, without_secrets(store)));
        }
        let path = PathBuf::from(store);
        match options().read(&path) {
            Ok(reader) => Ok(Place::Files(reader, path)),
            Err(error) if error.kind() == ErrorKind::StoreInUse => owner_of(&path),
            Err(error) => Err(unopened(&error, &path)),
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
    let mut client = Client::new(target, None, None)?;
    client.store = Some(path.to_owned());
    match client.ask(Method::GET, "/api/v1/info", None) {
        Ok(answer) if answer.status() == StatusCode::FORBIDDEN => {
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
