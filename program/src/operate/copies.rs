//! `oncekey backup`, `oncekey restore` and `oncekey verify`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use oncekey::{ErrorKind, Key, Reader, Verification};
use oncekey_http::describe::percent_encode;
use serde_json::{Value, json};

use super::client::Client;
use super::keep;
use super::output::Output;
use super::place::{Place, failure, in_query, options, unopened};
use super::show;
use super::whereabouts::{Where, directory};
use crate::base::exit::{Exit, Failure, UNFINISHED};

/// The time between two checks whether a job of the server is done.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct Backup {
    /// A new or empty directory; for a running server, a name below its directory of backups
    #[arg(value_name = "DEST")]
    to: PathBuf,

    #[command(flatten)]
    at: Where,

    /// Does not read the copy again to verify it
    #[arg(long)]
    no_verify: bool,

    /// Removes older backups of this command in the same directory, the oldest first, until N are left
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "no_verify")]
    keep: Option<u32>,
}

impl Backup {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        if !self.at.asks_a_server() {
            self.at.directory()?;
        }
        directory(&self.to)?;
        let mut document = match self.at.open(output)? {
            Place::Served(client) => self.of_server(&client)?,
            Place::Files(reader, _) => {
                copy(&reader, &self.to)?;
                drop(reader);
                let mut document = json!({ "path": self.to.display().to_string() });
                if !self.no_verify {
                    document["verified"] = verification(&verified(&self.to)?);
                }
                document
            }
            Place::Shared(..) => {
                return Err(Failure::usage("use the tools of the server: pg_basebackup"));
            }
        };
        let damaged =
            document["verified"]["damage"].as_array().is_some_and(|damage| !damage.is_empty());
        if damaged {
            return Err(Failure::new(
                Exit::Damaged,
                format!("the backup is damaged: {}", document["verified"]["damage"]),
            )
            .hint("verify the store, and take another backup"));
        }
        if !self.no_verify {
            document["removed"] = json!(self.settle(&document)?);
        }
        if output.is_json() {
            return output.document(&document);
        }
        let records = document["verified"]["records"].as_u64();
        let verified =
            records.map(|records| format!(", {} records verified", show::count(records)));
        output.line(&format!(
            "backup {}{}",
            show::text(&document["path"]),
            verified.unwrap_or_default()
        ))?;
        let removed = document["removed"].as_array().map(Vec::as_slice).unwrap_or_default();
        removed.iter().try_for_each(|path| output.line(&format!("removed {}", show::text(path))))
    }

    /// Marks a verified backup, and removes the oldest backups beside it. Returns the removed paths. The
    /// backups of a server on another machine cannot be removed.
    fn settle(&self, document: &Value) -> Result<Vec<String>, Failure> {
        let path = PathBuf::from(show::text(&document["path"]));
        let failed = |error: io::Error| Failure::failed(format!("{}: {error}", path.display()));
        match (keep::mark(&path), self.keep) {
            (Ok(()), _) => {}
            (Err(error), Some(_)) => return Err(failed(error)),
            // The backup is made and verified. Without the mark it will not count for --keep.
            (Err(_), None) => return Ok(Vec::new()),
        }
        let Some(keep) = self.keep else { return Ok(Vec::new()) };
        let removed = keep::prune(&path, keep as usize).map_err(failed)?;
        Ok(removed.iter().map(|path| path.display().to_string()).collect())
    }

    fn of_server(&self, client: &Client) -> Result<Value, Failure> {
        if self.keep.is_some() && !client.target().is_local() {
            return Err(Failure::usage(
                "--keep removes directories of this machine, and the server is on another",
            ));
        }
        let name = self.to.to_string_lossy();
        let taken = job(client, "backups", &json!({ "name": name }))?;
        let mut document = json!({ "name": name, "path": taken["path"] });
        if !self.no_verify {
            let path = format!("backups/{}/verify", in_query(name.as_bytes()));
            document["verified"] = job(client, &path, &json!({}))?;
        }
        Ok(document)
    }
}

/// Starts a job on the server, and waits for its result.
fn job(client: &Client, path: &str, body: &Value) -> Result<Value, Failure> {
    // That backups are not set up is no answer about a key.
    let begun = client.post(path, body).map_err(|refused| match refused.exit {
        Some(Exit::Absent) => Failure { exit: Some(Exit::Failed), ..refused },
        _ => refused,
    })?;
    let id = show::text(&begun["job"]);
    loop {
        let job = client.get(&format!("jobs/{}", in_query(id.as_bytes())))?;
        match job["state"].as_str() {
            Some("running") => std::thread::sleep(LOOK),
            Some("done") => return Ok(job["result"].clone()),
            _ => return Err(Failure::failed(show::text(&job["error"]))),
        }
    }
}

/// Whether a copy may be made at `to`: nothing is there, or only the remains of an interrupted copy.
fn is_free(to: &Path) -> Result<bool, Failure> {
    let entries = match fs::read_dir(to) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(Failure::usage(format!("{}: {error}", to.display()))),
    };
    Ok(entries.count() == 0 || to.join(UNFINISHED).exists())
}

/// Copies the files of a store into a new or empty directory, while the reader holds the store.
fn copy(held: &Reader, to: &Path) -> Result<(), Failure> {
    if to.join(UNFINISHED).exists() {
        // A removal of an old backup was interrupted. Its mark says nothing about the copy.
        let _none = fs::remove_file(to.join(keep::MARK));
    }
    held.copy_to(to).map_err(|error| match error.kind() {
        ErrorKind::StoreForeign => Failure::usage(error.to_string()),
        _ => failure(&error),
    })
}

fn verified(path: &Path) -> Result<Verification, Failure> {
    options().verify(path).map_err(|error| unopened(&error, path))
}

/// The findings of a verification, as JSON.
fn verification(found: &Verification) -> Value {
    let damage = found.damage().iter().map(|damage| {
        let part = |part: fn(&Key) -> &[u8]| damage.key().map(|key| percent_encode(part(key)));
        json!({
            "scope": part(Key::scope), "key": part(Key::key), "error": damage.error().to_string(),
        })
    });
    json!({ "records": found.records(), "damage": damage.collect::<Vec<_>>() })
}

#[derive(Args)]
pub(crate) struct Verify {
    /// The directory of a store or of a backup [default: the directory of --store]
    #[arg(value_name = "DIR")]
    path: Option<PathBuf>,

    #[command(flatten)]
    at: Where,

    /// Lets the running server take a backup with this name, and verifies the backup
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    via_backup: Option<String>,
}

impl Verify {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        if let Some(name) = &self.via_backup {
            let place = self.at.open(output)?;
            let client = place.server("verify --via-backup")?;
            job(client, "backups", &json!({ "name": name }))?;
            let found =
                job(client, &format!("backups/{}/verify", in_query(name.as_bytes())), &json!({}))?;
            return Self::show(output, &found);
        }
        let path = match &self.path {
            Some(path) => directory(path)?,
            None if self.at.asks_a_server() => {
                let refused = "verify reads only files that no process changes";
                return Err(
                    Failure::held(refused).hint("take --via-backup NAME, or name a directory")
                );
            }
            None => self.at.directory()?,
        };
        let found = options().verify(path).map_err(|error| {
            let refused = unopened(&error, path);
            match refused.exit {
                Some(Exit::Held) => refused.hint(
                    "verify reads only files that no process changes: take --via-backup NAME",
                ),
                _ => refused,
            }
        })?;
        Self::show(output, &verification(&found))
    }

    fn show(output: &Output, found: &Value) -> Result<(), Failure> {
        let damage = found["damage"].as_array().map(Vec::as_slice).unwrap_or_default();
        if output.is_json() {
            output.document(found)?;
        } else {
            for each in damage {
                let line = match (each["key"].as_str(), each.as_str()) {
                    (_, Some(text)) => text.to_owned(),
                    (Some(key), None) => {
                        format!(
                            "{} {key}: {}",
                            show::text(&each["scope"]),
                            show::text(&each["error"])
                        )
                    }
                    (None, None) => show::text(&each["error"]),
                };
                output.line(&format!("damage: {line}"))?;
            }
            let records = show::count(found["records"].as_u64().unwrap_or(0));
            output.line(&format!("records {records}, damage {}", damage.len()))?;
        }
        if damage.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Exit::Damaged, "the store is damaged").with_remedy())
    }
}

#[derive(Args)]
pub(crate) struct Restore {
    /// The backup
    #[arg(value_name = "BACKUP")]
    from: PathBuf,

    /// The new store: a path where nothing is, or an empty directory
    #[arg(value_name = "STORE")]
    to: PathBuf,

    /// Restores without asking
    #[arg(long)]
    yes: bool,

    /// Prints a section `[restore]` for the proxy, which refuses older keys that are UUIDs of version 7
    #[arg(long)]
    refuse_uuid7: bool,
}

impl Restore {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        directory(&self.from)?;
        if !is_free(directory(&self.to)?)? {
            return Err(Failure::usage(format!("{} is not empty", self.to.display())));
        }
        sound(&self.from)?;
        let reader = options().read(&self.from).map_err(|error| unopened(&error, &self.from))?;
        let taken = reader.last_time().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let taken = u64::try_from(taken).unwrap_or(u64::MAX);
        let age = SystemTime::now().duration_since(reader.last_time()).unwrap_or_default();
        let forgets = format!(
            "taken {}; keys of the {} since are unknown to it: a retry of one RUNS AGAIN",
            output.moment(Some(taken)),
            show::span(age),
        );
        output.note(&forgets);
        output.confirm(self.yes, &format!("Restore to {}?", self.to.display()))?;
        copy(&reader, &self.to)?;
        let records = sound(&self.to)?;
        if self.refuse_uuid7 && !output.is_json() {
            output.line(&format!(
                "[restore]\nrefuse_uuid7_before = \"{}\"",
                show::moment(show::Time::Utc, show::now())
            ))?;
        }
        if output.is_json() {
            return output.document(&json!({
                "path": self.to.display().to_string(), "takenMs": taken, "records": records,
                "refuseUuid7Before": self.refuse_uuid7.then(show::now),
            }));
        }
        output.line(&format!("restored {}, {} records", self.to.display(), show::count(records)))
    }
}

/// The number of records in a directory; an error if it is damaged.
fn sound(path: &Path) -> Result<u64, Failure> {
    let found = verified(path)?;
    match found.damage() {
        [] => Ok(found.records()),
        [first, ..] => {
            Err(Failure::new(Exit::Damaged, format!("{} is damaged: {first}", path.display()))
                .hint("restore a backup that oncekey verify finds sound"))
        }
    }
}
