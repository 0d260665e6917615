//! `oncekey ls`, `oncekey get` and `oncekey export`.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use oncekey::Key;
use oncekey_http::describe::{KeyQuery, percent_decode};
use serde_json::{Value, json};

use super::output::Output;
use super::place::{Place, failure};
use super::show;
use super::whereabouts::Where;
use crate::base::exit::{Exit, Failure};
use crate::base::private;
use crate::base::units;

/// The number of keys in one request.
const PAGE: usize = 1_000;
/// The largest number of keys that can be sorted.
const SORTED: usize = 100_000;

/// A scope on the command line: percent-encoded, or as bytes.
#[derive(Args, Debug)]
pub(crate) struct Scoped {
    /// The scope, percent-encoded as in the lists
    #[arg(long, value_name = "SCOPE", value_parser = decoded)]
    scope: Option<Bytes>,

    /// The scope as hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = hex, conflicts_with = "scope")]
    scope_hex: Option<Bytes>,
}

impl Scoped {
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        self.scope.as_ref().or(self.scope_hex.as_ref()).map(|bytes| bytes.0.clone())
    }
}

/// A key on the command line.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The idempotency key, percent-encoded as in the lists
    #[arg(value_name = "KEY", value_parser = decoded, required_unless_present = "key_hex")]
    key: Option<Bytes>,

    /// The key as hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = hex, conflicts_with = "key")]
    key_hex: Option<Bytes>,

    #[command(flatten)]
    scope: Scoped,
}

impl Named {
    pub(crate) fn key(&self) -> Result<Key, Failure> {
        let key = self.key.as_ref().or(self.key_hex.as_ref()).map(|key| key.0.clone());
        let scope = self.scope.bytes().unwrap_or_default();
        Key::new(scope, key.unwrap_or_default()).map_err(|error| failure(&error))
    }
}

/// The bytes of an argument.
#[derive(Clone, Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

pub(crate) fn decoded(text: &str) -> Result<Bytes, String> {
    let bytes = percent_decode(text.as_bytes()).map(Bytes);
    bytes.ok_or_else(|| "a % without two hexadecimal digits; write %25 for a %".to_owned())
}

fn hex(text: &str) -> Result<Bytes, String> {
    let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
    let digits = digits.ok_or("hexadecimal digits come in pairs: 6b31")?;
    Ok(Bytes(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    Completed,
    Orphaned,
    InFlight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    Age,
}

/// Lists keys in the order of their hashes. The order has no meaning, and it is stable.
#[derive(Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    at: Where,

    /// Only keys in this state
    #[arg(long, value_enum)]
    state: Option<State>,

    #[command(flatten)]
    scope: Scoped,

    /// Only keys that begin with this text, percent-encoded
    #[arg(long, value_name = "TEXT", value_parser = decoded)]
    prefix: Option<Bytes>,

    /// Only keys whose response has this status: 201, 4xx
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Option<String>,

    /// Only keys that were completed, or lost their owner, within this time
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    since: Option<Duration>,

    /// Only keys that expire within this time
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    expires_within: Option<Duration>,

    /// The largest number of keys to list
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    /// Continues after this place, at which the previous list ended
    #[arg(long, value_name = "CURSOR", value_parser = cursor)]
    after: Option<Cursor>,

    /// Reads up to 100,000 keys, and lists the youngest first
    #[arg(long, value_enum)]
    sort: Option<Sort>,
}

/// A place in the list.
type Cursor = [u8; 16];

fn cursor(text: &str) -> Result<Cursor, String> {
    KeyQuery::place(text).ok_or_else(|| "a cursor has 32 hexadecimal digits".to_owned())
}

fn status(text: &str) -> Result<String, String> {
    let digits = text.bytes().enumerate().all(|(at, byte)| match at {
        0 => (b'1'..=b'5').contains(&byte),
        _ => byte.is_ascii_digit() || byte == b'x',
    });
    if text.len() == 3 && digits {
        return Ok(text.to_owned());
    }
    Err("a status is like 201 or 5xx".to_owned())
}

impl Ls {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        // A completed record stays completed when its process dies, so there is no lease to wait for.
        let place = match self.state {
            Some(State::Completed) => self.at.open(output)?,
            _ => self.at.open_settled(output)?,
        };
        let most = if self.sort.is_some() { SORTED } else { self.limit as usize };
        let (mut keys, after) = self.collect(&place, most)?;
        if self.sort.is_some() {
            if after.is_some() {
                let message = "more than 100,000 keys are not sorted; pick some with --state, --scope or --since";
                return Err(Failure::usage(message));
            }
            keys.sort_by_key(|key| std::cmp::Reverse(moment_of(key)));
            keys.truncate(self.limit as usize);
        }
        let document = json!({ "keys": keys, "after": after });
        let head = ["STATE", "SCOPE", "KEY", "STATUS", "SINCE", "EXPIRES"];
        output.list(&document, "keys", &head, |key| {
            vec![
                show::text(&key["state"]),
                show::text(&key["scope"]),
                show::text(&key["key"]),
                show::text(&key["response"]["status"]),
                output.moment(moment_of(key)),
                output.moment(key["expiresAtMs"].as_u64()),
            ]
        })?;
        if let (Some(after), false) = (after, output.json) {
            output.note(&format!("more: --after {after}"));
        }
        Ok(())
    }

    /// At most `most` matching keys, and the place where they end.
    fn collect(&self, place: &Place, most: usize) -> Result<(Vec<Value>, Option<String>), Failure> {
        let state = self.state.map(|state| match state {
            State::Completed => "completed".to_owned(),
            State::Orphaned => "orphaned".to_owned(),
            State::InFlight => "inFlight".to_owned(),
        });
        let mut query = KeyQuery {
            after: self.after,
            limit: 0,
            state,
            scope: self.scope.bytes(),
            prefix: self.prefix.as_ref().map(|prefix| prefix.0.clone()),
        };
        let (now, mut keys) = (show::now(), Vec::new());
        loop {
            // No page may read past the last listed key: the next list continues after the page.
            query.limit = (most - keys.len()).min(PAGE);
            let page = place.keys(&query)?;
            let list = page["keys"].as_array().cloned().unwrap_or_default();
            keys.extend(list.into_iter().filter(|key| self.fits(key, now)));
            let after = page["after"].as_str().map(str::to_owned);
            query.after = after.as_deref().and_then(KeyQuery::place);
            if query.after.is_none() || keys.len() >= most {
                return Ok((keys, after));
            }
        }
    }

    fn fits(&self, key: &Value, now: u64) -> bool {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let status = self.status.as_ref().is_none_or(|wanted| {
            let status = key["response"]["status"].as_u64().unwrap_or(0).to_string();
            status.len() == 3
                && wanted.bytes().zip(status.bytes()).all(|(w, s)| w == b'x' || w == s)
        });
        status
            && self.since.is_none_or(|span| {
                moment_of(key).is_some_and(|at| at >= now.saturating_sub(millis(span)))
            })
            && self.expires_within.is_none_or(|span| {
                key["expiresAtMs"].as_u64().is_some_and(|at| at <= now.saturating_add(millis(span)))
            })
    }
}

/// The time when a key entered its state.
fn moment_of(key: &Value) -> Option<u64> {
    let running = key["runningForMs"].as_u64().map(|age| show::now().saturating_sub(age));
    key["completedAtMs"].as_u64().or(key["sinceMs"].as_u64()).or(running)
}

#[derive(Args)]
pub(crate) struct Get {
    #[command(flatten)]
    key: Named,

    #[command(flatten)]
    at: Where,

    /// Also prints the headers of the stored response
    #[arg(long)]
    headers: bool,

    /// Prints the body of the stored response, and nothing else
    #[arg(long, conflicts_with_all = ["headers", "body_to"])]
    body: bool,

    /// Writes the body of the stored response to a file
    #[arg(long, value_name = "FILE")]
    body_to: Option<PathBuf>,
}

impl Get {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let place = self.at.open(output)?;
        let key = self.key.key()?;
        if self.body {
            return output.bytes(&place.response(&key)?.body);
        }
        if let Some(path) = &self.body_to {
            let body = place.response(&key)?.body;
            let written = private::write(path, body);
            return written
                .map_err(|error| Failure::failed(format!("{}: {error}", path.display())));
        }
        let mut found = place.key(&key)?;
        if found["state"] == "inFlight" {
            self.at.settle(&place, output)?;
            found = place.key(&key)?;
        }
        if found["state"] == "absent" {
            return Err(Failure::new(Exit::Absent, "no such key: a request with it would run"));
        }
        if self.headers && found["state"] == "completed" {
            found["headers"] = json!(place.response(&key)?.headers);
        }
        if output.is_json() {
            return output.document(&found);
        }
        let gone = if found["ownerGone"] == json!(true) { " (owner gone)" } else { "" };
        output.line(&format!("state      {}{gone}", show::text(&found["state"])))?;
        for (name, member) in
            [("completed", "completedAtMs"), ("since", "sinceMs"), ("expires", "expiresAtMs")]
        {
            if let Some(at) = found[member].as_u64() {
                output.line(&format!("{name:<10} {}", output.moment(Some(at))))?;
            }
        }
        for (name, member) in [("running", "runningForMs"), ("age", "ageMs")] {
            if let Some(age) = found[member].as_u64() {
                output.line(&format!("{name:<10} {}", show::age(age)))?;
            }
        }
        for name in ["attempt", "token"] {
            if !found[name].is_null() {
                output.line(&format!("{name:<10} {}", show::text(&found[name])))?;
            }
        }
        if let Some(bytes) = found["checkpointBytes"].as_u64() {
            output.line(&format!("checkpoint {bytes} bytes"))?;
        }
        if found["state"] == "completed" {
            let response = match &found["response"] {
                Value::Null => "not kept".to_owned(),
                response => format!(
                    "{}, {} bytes",
                    show::text(&response["status"]),
                    show::text(&response["bodyBytes"])
                ),
            };
            output.line(&format!("response   {response}"))?;
        }
        for header in found["headers"].as_array().into_iter().flatten() {
            output.line(&format!("  {}: {}", show::text(&header[0]), show::text(&header[1])))?;
        }
        Ok(())
    }
}

/// Writes one line of JSON for each record. There is no import: a key that an import loses would run again.
#[derive(Args)]
pub(crate) struct Export {
    #[command(flatten)]
    at: Where,

    /// Includes the stored responses, with bodies in base64
    #[arg(long)]
    bodies: bool,
}

impl Export {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let place = self.at.open_settled(output)?;
        let mut query = KeyQuery { limit: PAGE, ..KeyQuery::default() };
        loop {
            let page = place.keys(&query)?;
            let mut lines = String::new();
            for record in page["keys"].as_array().into_iter().flatten() {
                let mut line = json!({ "v": 1 });
                for (name, value) in record.as_object().into_iter().flatten() {
                    line[name] = value.clone();
                }
                if self.bodies && record["response"].is_object() {
                    let response = place.response(&key_of(record)?)?;
                    line["response"]["headers"] = json!(response.headers);
                    line["response"]["bodyBase64"] = json!(STANDARD.encode(response.body));
                }
                lines.push_str(&format!("{line}\n"));
            }
            output.bytes(lines.as_bytes())?;
            query.after = page["after"].as_str().and_then(KeyQuery::place);
            if query.after.is_none() {
                return Ok(());
            }
        }
    }
}

/// The key of a document.
pub(crate) fn key_of(record: &Value) -> Result<Key, Failure> {
    let part = |name: &str| {
        let text = record[name].as_str().unwrap_or_default();
        percent_decode(text.as_bytes())
            .ok_or_else(|| Failure::usage(format!("{name} has a % without two hexadecimal digits")))
    };
    Key::new(part("scope")?, part("key")?).map_err(|error| failure(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_percent_encoded_or_as_digits() {
        assert_eq!(decoded("a%20b%25").unwrap().0, b"a b%");
        assert!(decoded("50%").is_err());
        assert_eq!(hex("6B31ff").unwrap().0, b"k1\xff");
        assert!(hex("6b3").is_err() && hex("zz").is_err());
    }

    #[test]
    fn a_status_is_three_digits_or_a_class() {
        assert!(status("201").is_ok() && status("5xx").is_ok());
        assert!(status("600").is_err() && status("20").is_err() && status("x01").is_err());
    }
}
