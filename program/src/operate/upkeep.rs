//! `oncekey ctl`, `oncekey health` and `oncekey console`.

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use super::output::Output;
use super::place::Place;
use super::show;
use super::whereabouts::Where;
use crate::base::exit::{Exit, Failure};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    /// Reads the configuration again; a wrong one changes nothing
    Reload,
    /// Ends the server in order
    Drain,
    /// Moves records from the journal into the record files
    Fold,
    /// Frees the space of expired records
    Sweep,
    /// Recovers in place after a failure; the outcome of what runs is unknown until it ends
    Reopen,
}

#[derive(Args)]
pub(crate) struct Ctl {
    #[arg(value_enum)]
    action: Action,

    #[command(flatten)]
    at: Where,
}

impl Ctl {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let name = match self.action {
            Action::Reload => "reload",
            Action::Drain => "drain",
            Action::Fold => "fold",
            Action::Sweep => "sweep",
            Action::Reopen => "reopen",
        };
        let place = self.at.open(output)?;
        let done = place.server(&format!("ctl {name}"))?.post(name, &json!({}))?;
        if output.is_json() {
            return output.document(&done);
        }
        for (name, value) in done.as_object().into_iter().flatten() {
            let value = if *value == json!(true) {
                String::new()
            } else {
                format!(" {}", show::text(value))
            };
            output.line(&format!("{name}{value}"))?;
        }
        Ok(())
    }
}

/// Prints nothing. The exit code is 0 when the server is healthy, and another when it is not.
#[derive(Args)]
pub(crate) struct Health {
    #[command(flatten)]
    at: Where,

    /// Checks whether the server should get requests, not only whether it runs
    #[arg(long)]
    ready: bool,
}

impl Health {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let unwell = || Failure::silent(Some(Exit::Failed));
        let place = self.at.open(output).map_err(|_| unwell())?;
        let Place::Served(client) = place else { return Err(unwell()) };
        let path = if self.ready { "/readyz" } else { "/healthz" };
        match client.ask(Method::GET, path, None) {
            Ok(answer) if answer.status().is_success() => Ok(()),
            _ => Err(unwell()),
        }
    }
}

/// Prints a link that signs one browser in, within a minute.
#[derive(Args)]
pub(crate) struct Console {
    #[command(flatten)]
    at: Where,
}

impl Console {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let place = self.at.open(output)?;
        let client = place.server("console")?;
        let info = client.get("info")?;
        let Value::String(console) = &info["console"] else {
            return Err(Failure::failed("the server has no console: start it with --admin"));
        };
        let link = client.post("session/link", &json!({}))?;
        let url = format!("{console}#token={}", show::text(&link["token"]));
        if output.is_json() {
            return output.document(&json!({ "url": url, "expiresInMs": link["expiresInMs"] }));
        }
        output.line(&url)
    }
}
