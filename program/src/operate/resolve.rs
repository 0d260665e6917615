//! `oncekey resolve`: records the outcome of an operation whose owner is gone.

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use oncekey::Key;
use oncekey_http::describe::percent_encode;
use oncekey_http::resolution::{check_reason, confirmation};
use serde_json::{Value, json};

use super::desk::{Desk, rehearse};
use super::keys::Named;
use super::output::Output;
use super::resolution::Resolution;
use super::show;
use super::whereabouts::Where;
use crate::base::exit::{Exit, Failure};

/// The number of resolutions in one request.
const BATCH: usize = 100;
/// The bytes of their responses: twice as many in JSON are well below what a server takes.
const BATCH_BYTES: usize = 8 << 20;

#[derive(Args)]
// An argument before `release` or `complete` would be for this command alone, and be passed over.
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Resolve {
    #[command(subcommand)]
    action: Option<Action>,

    /// Resolves many orphans, from lines of {"action","scope","key","token","reason",…}, - is standard input
    #[arg(long, value_name = "FILE", required = true)]
    from: Option<PathBuf>,

    /// With --from: prints what would be done, and changes nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    at: Where,
}

#[derive(Subcommand)]
enum Action {
    /// The operation did not happen: the next retry runs it again
    Release(Release),
    /// The operation happened: every retry gets this response
    Complete(Complete),
}

/// The orphan, and the reason.
#[derive(Args)]
struct Meant {
    #[command(flatten)]
    key: Named,

    #[command(flatten)]
    at: Where,

    /// The token that `oncekey orphans` showed; refuses to resolve another attempt
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// The reason, for the audit log: 3 to 500 characters
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Resolves the current orphan of the key without asking
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
struct Release {
    #[command(flatten)]
    meant: Meant,
}

#[derive(Args)]
struct Complete {
    #[command(flatten)]
    meant: Meant,

    /// The status of the response
    #[arg(long, value_name = "STATUS", required_unless_present = "response")]
    status: Option<u16>,

    /// A header of the response, "Name: value"
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,

    /// The body of the response: a text, @FILE, or - for standard input
    #[arg(long, value_name = "BODY")]
    body: Option<String>,

    /// The whole response in a file, as `curl -i` prints it: @FILE
    #[arg(long, value_name = "@FILE", conflicts_with_all = ["status", "headers", "body"])]
    response: Option<String>,
}

impl Resolve {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        match (&self.action, &self.from) {
            (Some(Action::Release(release)), _) => release.meant.resolve(output, None),
            (Some(Action::Complete(complete)), _) => {
                complete.meant.resolve(output, Some(complete.given()?))
            }
            (None, Some(from)) => self.many(output, from),
            (None, None) => Err(Failure::usage("use release, complete, or --from FILE")),
        }
    }

    fn many(&self, output: &Output, from: &Path) -> Result<(), Failure> {
        let text = read(from)?;
        let mut resolutions = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let read = Resolution::read(line).map_err(|mistake| {
                Failure::usage(format!("{}:{}:{mistake}", from.display(), number + 1))
            });
            resolutions.push(read?);
        }
        if resolutions.is_empty() {
            return Ok(());
        }
        let mut refused = 0;
        let mut tell = |results: Vec<Value>| {
            results.iter().try_for_each(|result| {
                refused += usize::from(!result["error"].is_null());
                output.document(result)
            })
        };
        if self.dry_run {
            tell(rehearse(&self.at.open_settled(output)?, &resolutions)?)?;
        } else {
            let desk = Desk::open(&self.at, output)?;
            for batch in batches(&resolutions) {
                tell(desk.resolve(batch)?)?;
            }
        }
        match refused {
            0 => Ok(()),
            _ => Err(Failure::new(
                Exit::Conflict,
                format!("{refused} of {} were refused", resolutions.len()),
            )),
        }
    }
}

/// Cut so that a server takes each: by number, and by the length of the responses.
fn batches(resolutions: &[Resolution]) -> impl Iterator<Item = &[Resolution]> {
    let mut rest = resolutions;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(BATCH).take_while(|each| {
            bytes += each.response.as_ref().map_or(0, Vec::len);
            bytes <= BATCH_BYTES
        });
        // One that is longer goes by itself, and the server says whether it takes it.
        let (batch, later) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = later;
        (!batch.is_empty()).then_some(batch)
    })
}

impl Meant {
    fn resolve(&self, output: &Output, given: Option<Value>) -> Result<(), Failure> {
        let key = self.key.key()?;
        if self.token.is_none() && !self.yes && !output.can_ask() {
            return Err(Failure::usage(
                "there is no terminal to ask on: give --token, as oncekey orphans shows it",
            ));
        }
        let reason = match &self.reason {
            Some(reason) => reason.clone(),
            None if output.can_ask() => output.ask("Reason:")?,
            None => return Err(Failure::usage("give a --reason")),
        };
        check_reason(&reason).map_err(Failure::usage)?;
        let decide = |token: &str| decision(&key, token, &reason, given.as_ref());
        // A mistake is one wherever the store is.
        let decided = self.token.as_deref().map(decide).transpose()?;
        let desk = Desk::open(&self.at, output)?;
        let decided = match decided {
            Some(decided) => decided,
            None => decide(&self.seen(output, &desk, &key, given.as_ref())?)?,
        };
        let results = desk.resolve(std::slice::from_ref(&decided))?;
        let result = results.first().cloned().unwrap_or_default();
        if let Some(error) = result["error"].as_str() {
            let exit = match result["code"].as_str() {
                Some("conflict") => Exit::Conflict,
                Some("invalid" | "reason" | "confirm") => Exit::Usage,
                Some("forbidden" | "read_only") => Exit::Forbidden,
                Some("damaged") => Exit::Damaged,
                _ => Exit::Failed,
            };
            return Err(Failure::new(exit, error));
        }
        match output.is_json() {
            true => output.document(&result),
            false if result["responseKept"] == true => {
                output.line("completed: every retry gets this response")
            }
            false if given.is_some() => output
                .line("completed: the response is too long to be kept, and every retry is told so"),
            false => output.line("released: the next retry runs the operation again"),
        }
    }

    /// Shows the orphan and the consequences, and asks for the end of its token. Returns the token.
    fn seen(
        &self,
        output: &Output,
        desk: &Desk,
        key: &Key,
        given: Option<&Value>,
    ) -> Result<String, Failure> {
        let orphan = desk.orphan(key)?;
        let token = orphan["token"].as_str().unwrap_or_default().to_owned();
        if self.yes {
            return Ok(token);
        }
        let age = show::age(orphan["ageMs"].as_u64().unwrap_or(0));
        output.note(&format!(
            "{} {}: attempt {}, an orphan for {age}, token {token}",
            show::text(&orphan["scope"]),
            show::text(&orphan["key"]),
            orphan["attempt"],
        ));
        match given {
            None => output.note("The next retry RUNS THE OPERATION AGAIN."),
            Some(given) => output.note(&format!("Every retry gets this response: {given}")),
        }
        let typed = output.ask("Type the last four characters of the token:")?;
        if typed != confirmation(&token) {
            return Err(Failure::new(Exit::Interrupted, "left as it is"));
        }
        Ok(token)
    }
}

/// What the flags of a command say.
fn decision(
    key: &Key,
    token: &str,
    reason: &str,
    given: Option<&Value>,
) -> Result<Resolution, Failure> {
    let mut said = json!({
        "action": if given.is_some() { "complete" } else { "release" },
        "scope": percent_encode(key.scope()), "key": percent_encode(key.key()),
        "reason": reason, "token": token,
    });
    for (name, value) in given.iter().filter_map(|given| given.as_object()).flatten() {
        said[name] = value.clone();
    }
    // The place in the text is none that an operator wrote.
    Resolution::read(&said.to_string())
        .map_err(|mistake| Failure::usage(mistake.trim_start_matches(|c| c != ' ').trim()))
}

/// A file, or standard input.
fn read(from: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match from.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text).map(drop),
        _ => std::fs::read_to_string(from).map(|read| text = read),
    };
    read.map_err(|error| Failure::usage(format!("{}: {error}", from.display())))?;
    Ok(text)
}

/// The bytes of an argument: a text, `@FILE`, or `-`.
fn bytes_of(argument: &str) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::usage(format!("{argument}: {error}"));
    match argument.strip_prefix('@') {
        Some(path) => std::fs::read(path).map_err(failed),
        None if argument == "-" => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).map_err(failed)?;
            Ok(bytes)
        }
        None => Ok(argument.as_bytes().to_vec()),
    }
}

impl Complete {
    /// The response, as members of a resolution.
    fn given(&self) -> Result<Value, Failure> {
        if let Some(file) = &self.response {
            return printed(&bytes_of(file)?);
        }
        let mut headers = Vec::new();
        for header in &self.headers {
            let pair = header.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
            headers.push(pair.ok_or_else(|| {
                Failure::usage(format!("{header:?} is not a header; write Name: value"))
            })?);
        }
        let body = self.body.as_deref().map(bytes_of).transpose()?.unwrap_or_default();
        Ok(
            json!({ "status": self.status, "headers": headers, "bodyBase64": STANDARD.encode(body) }),
        )
    }
}

/// Reads a response as `curl -i` prints it.
fn printed(bytes: &[u8]) -> Result<Value, Failure> {
    let wrong = || Failure::usage("this is not a response as curl -i prints it");
    let ends = [(b"\r\n\r\n".as_slice(), 4), (b"\n\n".as_slice(), 2)];
    let end = ends
        .into_iter()
        .filter_map(|(end, len)| Some((bytes.windows(len).position(|window| window == end)?, len)));
    let (at, len) = end.min().ok_or_else(wrong)?;
    let head = std::str::from_utf8(&bytes[..at]).map_err(|_| wrong())?;
    let mut lines = head.lines();
    let status = lines.next().filter(|line| line.starts_with("HTTP/"));
    let status = status.and_then(|line| line.split(' ').nth(1)?.parse::<u16>().ok());
    let headers: Option<Vec<_>> = lines
        .map(|line| line.split_once(':').map(|(name, value)| (name.trim(), value.trim())))
        .collect();
    Ok(json!({
        "status": status.ok_or_else(wrong)?, "headers": headers.ok_or_else(wrong)?,
        "bodyBase64": STANDARD.encode(&bytes[at + len..]),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_response_is_read() {
        let read =
            printed(b"HTTP/1.1 201 Created\r\ncontent-type: a/b\r\n\r\n{\"id\":7}\n").unwrap();
        assert_eq!(read["status"], 201);
        assert_eq!(read["headers"], json!([["content-type", "a/b"]]));
        assert_eq!(STANDARD.decode(read["bodyBase64"].as_str().unwrap()).unwrap(), b"{\"id\":7}\n");
        for wrong in [&b""[..], b"HTTP/1.1 201\r\n", b"201 Created\n\nbody", b"HTTP/1.1 x\n\n"] {
            assert!(printed(wrong).is_err());
        }
    }

    #[test]
    fn long_responses_go_in_batches_of_their_own() {
        let line = |bytes: usize| {
            let body = "x".repeat(bytes);
            let line = json!({"action": "complete", "key": "k", "token": "a-1-1", "reason": "abc", "status": 200, "body": body});
            Resolution::read(&line.to_string()).unwrap()
        };
        let (short, long) = (1, BATCH_BYTES / 2);
        let lengths = |sizes: &[usize]| {
            let all: Vec<_> = sizes.iter().map(|bytes| line(*bytes)).collect();
            batches(&all).map(<[_]>::len).collect::<Vec<_>>()
        };
        assert!(lengths(&[]).is_empty());
        assert_eq!(lengths(&[short; 250]), [100, 100, 50]);
        assert_eq!(lengths(&[short, long, long, short, 2 * BATCH_BYTES, short]), [2, 2, 1, 1]);
    }
}
