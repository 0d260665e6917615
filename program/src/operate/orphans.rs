//! `oncekey orphans`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use oncekey_http::describe::percent_encode;
use serde_json::{Value, json};

use super::keys::{Bytes, Scoped, decoded};
use super::output::Output;
use super::place::failure;
use super::show;
use super::whereabouts::Where;
use crate::base::exit::{Exit, Failure};
use crate::base::private;
use crate::base::units;

#[derive(Args)]
pub(crate) struct Orphans {
    #[command(flatten)]
    at: Where,

    /// Only keys that have been orphans for longer than this
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    older: Option<Duration>,

    #[command(flatten)]
    scope: Scoped,

    /// Repeats after this time, until interrupted
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", value_parser = units::duration)]
    watch: Option<Duration>,

    /// Ends with 3 when there is an orphan: for cron and alerts
    #[arg(long)]
    fail_if_any: bool,

    /// Writes the last checkpoint of --key to this file
    #[arg(long, value_name = "FILE", requires = "key")]
    checkpoint_to: Option<PathBuf>,

    /// Only this key, percent-encoded
    #[arg(long, value_name = "KEY", value_parser = decoded)]
    key: Option<Bytes>,
}

impl Orphans {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        if let (Some(path), Some(key)) = (&self.checkpoint_to, &self.key) {
            let key = oncekey::Key::new(self.scope.bytes().unwrap_or_default(), &key.0);
            let saved = self.at.open(output)?.checkpoint(&key.map_err(|error| failure(&error))?)?;
            let written = private::write(path, saved);
            return written
                .map_err(|error| Failure::failed(format!("{}: {error}", path.display())));
        }
        loop {
            let orphans = self.look(output)?;
            let any = orphans["orphans"].as_array().is_some_and(|orphans| !orphans.is_empty());
            if any || output.is_json() {
                self.show(output, &orphans)?;
            } else {
                output.note("Nothing is unresolved.");
            }
            match self.watch {
                Some(pause) => std::thread::sleep(pause),
                None if any && self.fail_if_any => return Err(Failure::silent(Some(Exit::Absent))),
                None => return Ok(()),
            }
        }
    }

    fn look(&self, output: &Output) -> Result<Value, Failure> {
        let mut found = self.at.open_settled(output)?.orphans()?;
        let scope = self.scope.bytes().map(|scope| percent_encode(&scope));
        let key = self.key.as_ref().map(|key| percent_encode(&key.0));
        let older = self.older.map(|older| older.as_millis());
        if let Some(orphans) = found["orphans"].as_array_mut() {
            orphans.retain(|orphan| {
                scope.as_ref().is_none_or(|scope| orphan["scope"] == json!(scope))
                    && key.as_ref().is_none_or(|key| orphan["key"] == json!(key))
                    && older.is_none_or(|older| {
                        u128::from(orphan["ageMs"].as_u64().unwrap_or(0)) >= older
                    })
            });
        }
        Ok(found)
    }

    fn show(&self, output: &Output, orphans: &Value) -> Result<(), Failure> {
        let head = ["SCOPE", "KEY", "ATTEMPT", "AGE", "CHECKPOINT", "TOKEN"];
        output.list(orphans, "orphans", &head, |orphan| {
            let checkpoint = orphan["checkpointBytes"].as_u64();
            vec![
                show::text(&orphan["scope"]),
                show::text(&orphan["key"]),
                show::text(&orphan["attempt"]),
                show::age(orphan["ageMs"].as_u64().unwrap_or(0)),
                checkpoint.map_or_else(|| "-".to_owned(), show::size),
                show::text(&orphan["token"]),
            ]
        })
    }
}
