//! Load under `kill -9`: many connections send first requests, retries, duplicates and modified requests
//! to a server that is killed and started again and again. Checks that no key is executed twice and
//! that every answer that a client got is replayed byte for byte from then on.
//!
//! ```text
//! cargo run --release -p oncekey-http --example kill_load -- --seconds 60
//! ```
//!
//! The server is this program again, in a process of its own. What its handler executed it writes to a
//! file that no kill takes back, since it stands in the operating system's cache.

mod client;
mod server;

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::sync::watch;

use client::{Client, Counts, Known, body};
use server::{Server, executions_path, serve};

/// Sends load to a server that is killed again and again, and checks what it answers.
#[derive(Clone, Parser)]
#[command(name = "kill_load")]
struct Arguments {
    /// Connections that send at the same time
    #[arg(long, default_value_t = 64)]
    connections: u64,

    /// How long to go on
    #[arg(long, default_value_t = 60)]
    seconds: u64,

    /// Seconds between two kills
    #[arg(long, default_value_t = 3)]
    kill_every: u64,

    /// Kill after this number of answers instead, and end after `--lives`
    #[arg(long, value_name = "ANSWERS", requires = "lives")]
    kill_after: Option<u64>,

    /// How many servers to start, with `--kill-after`
    #[arg(long)]
    lives: Option<u64>,

    /// Chooses what is sent
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Where the store and the list of executions go; must be empty or new
    #[arg(long, default_value = "./kill-load-store")]
    directory: PathBuf,

    /// Run as the server
    #[arg(long, hide = true)]
    serve: bool,
}

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.serve {
        true => serve(&arguments.directory).await,
        false => drive(&arguments).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kill_load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn drive(arguments: &Arguments) -> Result<()> {
    let directory = &arguments.directory;
    std::fs::create_dir_all(directory)?;
    if std::fs::read_dir(directory)?.next().is_some() {
        return Err(format!("{} is not empty", directory.display()).into());
    }
    let counts = Arc::new(Counts::default());
    let (mut server, address) = Server::start(directory)?;
    let (addresses, address) = watch::channel(Some(address));
    let clients: Vec<_> = (0..arguments.connections)
        .map(|number| {
            let client = Client::new(number, arguments.seed, address.clone(), counts.clone());
            tokio::spawn(client.run())
        })
        .collect();

    let started = Instant::now();
    let end = started + Duration::from_secs(arguments.seconds);
    let mut lives = 1;
    loop {
        let done = match arguments.kill_after {
            Some(answers) => {
                let goal = counts.answers.load(Ordering::Relaxed) + answers;
                while counts.answers.load(Ordering::Relaxed) < goal
                    && !clients.iter().any(tokio::task::JoinHandle::is_finished)
                {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                arguments.lives == Some(lives)
            }
            None => {
                tokio::time::sleep(Duration::from_secs(arguments.kill_every)).await;
                Instant::now() >= end
            }
        };
        drop(server);
        if done || clients.iter().any(tokio::task::JoinHandle::is_finished) {
            break;
        }
        let (next, address) = Server::start(directory)?;
        server = next;
        addresses.send(Some(address))?;
        lives += 1;
    }
    addresses.send(None)?;
    counts.print(lives, started.elapsed());
    let mut known = Known::new();
    for client in clients {
        known.extend(client.await??);
    }
    verify(directory, known, &counts).await
}

/// After the last kill: every answer once more, and what was executed.
async fn verify(directory: &Path, known: Known, counts: &Arc<Counts>) -> Result<()> {
    let mut executed: HashMap<String, u64> = HashMap::new();
    for key in std::fs::read_to_string(executions_path(directory))?.lines() {
        *executed.entry(key.to_owned()).or_default() += 1;
    }
    if let Some((key, times)) = executed.iter().find(|(_, times)| **times > 1) {
        return Err(format!("{key} was executed {times} times").into());
    }
    let (_server, address) = Server::start(directory)?;
    let (_addresses, address) = watch::channel(Some(address));
    let mut client = Client::new(0, 0, address, counts.clone());
    let mut checked = 0;
    for (key, answer) in &known {
        if answer.is_some() {
            if !executed.contains_key(key) {
                return Err(format!("{key} was answered without being executed").into());
            }
            client.known.insert(key.clone(), *answer);
            if !client.exchange(key, &body(key)).await? {
                return Err(format!("{key}: the server is gone").into());
            }
            checked += 1;
        }
    }
    println!(
        "{} keys executed, none twice; {checked} of {} answered, all replayed byte for byte after the last kill",
        executed.len(),
        known.len()
    );
    if checked == 0 { Err("nothing was checked".into()) } else { Ok(()) }
}
