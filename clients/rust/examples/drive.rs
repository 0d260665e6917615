//! Drives the sender for `clients/test/check.py`, which describes the two modes.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use oncekey_client::{Key, Policy, Sent, Time, TokioTime, Why, send_with};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // The server closes each connection, so no connection is kept for a later case.
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cases"] => cases(&client).await,
        ["orders", url, directory, count] => {
            orders(&client, url, Path::new(directory), count.parse()?).await
        }
        _ => Err("usage: drive cases | drive orders URL DIRECTORY COUNT".into()),
    }
}

fn request(url: &str, key: &Key, body: &str) -> Result<Request<Bytes>, http::Error> {
    Request::post(url)
        .header("idempotency-key", key.header_value())
        .header("content-type", "application/json")
        .body(Bytes::from(body.to_owned()))
}

fn word(sent: &Sent) -> &'static str {
    match &sent.result {
        Ok(_) => "done",
        Err(Why::Unknown) => "unknown",
        Err(Why::NotStored) => "notStored",
        Err(Why::Bug) => "bug",
        Err(Why::Unauthorized) => "unauthorized",
        Err(_) => "gaveUp",
    }
}

/// A clock that only the waits move.
#[derive(Default)]
struct Recorded(Vec<Duration>);

impl Time for Recorded {
    fn elapsed(&self) -> Duration {
        self.0.iter().sum()
    }

    async fn sleep(&mut self, duration: Duration) {
        self.0.push(duration);
    }
}

async fn cases(client: &reqwest::Client) -> Result<(), Failure> {
    for line in std::io::stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let text = |name: &str| case[name].as_str();
        let key = text("key").map_or_else(|| Ok(Key::new_v7()), str::parse)?;
        let mut policy = Policy::default();
        policy.try_timeout = Duration::from_secs_f64(case["tryTimeout"].as_f64().unwrap_or(35.0));
        let request =
            request(text("url").unwrap_or_default(), &key, text("body").unwrap_or_default())?;
        let mut time = Recorded::default();
        let sent = send_with(client, policy, request, &mut time).await?;
        let waits: Vec<f64> = time.0.iter().map(|wait| wait.as_secs_f64() * 1000.0).collect();
        println!(
            "{}",
            json!({"result": word(&sent), "waitsMs": waits, "key": key.as_str(), "tries": sent.tries})
        );
    }
    Ok(())
}

async fn orders(
    client: &reqwest::Client,
    url: &str,
    directory: &Path,
    count: usize,
) -> Result<(), Failure> {
    for n in 0..count {
        let (outbox, inbox) =
            (directory.join(format!("{n}.key")), directory.join(format!("{n}.done")));
        let body = directory.join(format!("{n}.body"));
        if inbox.exists() {
            continue;
        }
        if !outbox.exists() {
            save(&outbox, Key::new_v7().as_str().as_bytes())?;
        }
        let (key, body) =
            (std::fs::read_to_string(outbox)?.parse()?, std::fs::read_to_string(body)?);
        let mut policy = Policy::default();
        policy.backoff = Duration::from_millis(2);
        let request = request(url, &key, &body)?;
        let sent = send_with(client, policy, request, &mut TokioTime(Instant::now())).await?;
        let Ok(response) = sent.result else {
            return Err(format!("{n}: {:?}", sent.result).into());
        };
        save(&inbox, response.body())?;
        println!("{n}");
    }
    Ok(())
}

/// Writes a file so that it is complete or absent.
fn save(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut file = std::fs::File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(part, path)
}
