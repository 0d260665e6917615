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

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use clap::Parser;
use http::StatusCode;
use oncekey_http::{Attempt, IdempotencyLayer, Policy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};

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

    /// Kill after so many answers instead, and end after `--lives`
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

// The server.

async fn serve(directory: &Path) -> Result<()> {
    let engine = oncekey::Engine::open(directory.join("keys"))?;
    let executions =
        std::fs::OpenOptions::new().create(true).append(true).open(executions_path(directory))?;
    let layer = IdempotencyLayer::new(engine).policy(Policy::new().required(true));
    let app = Router::new()
        .route("/orders", post(handler).layer(layer))
        .with_state(Arc::new(Mutex::new(executions)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

fn executions_path(directory: &Path) -> PathBuf {
    directory.join("executions")
}

/// Writes down that it ran before it does anything else. Its answer is unlike that of any other run.
async fn handler(
    State(executions): State<Arc<Mutex<std::fs::File>>>,
    Extension(attempt): Extension<Attempt>,
) -> Response {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let key = String::from_utf8_lossy(attempt.key().key()).into_owned();
    if let Err(error) = executions.lock().await.write_all(format!("{key}\n").as_bytes()) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    let mut random = Random::new(&key, 0);
    tokio::time::sleep(Duration::from_micros(random.below(2000))).await;
    let status = if random.below(10) == 0 { StatusCode::BAD_GATEWAY } else { StatusCode::CREATED };
    let mut headers = HeaderMap::new();
    for cookie in ["a=1", "b=2"] {
        headers.append("set-cookie", http::HeaderValue::from_static(cookie));
    }
    let pid = std::process::id();
    let mut body = format!("{key} in run {run} of process {pid}\n").into_bytes();
    body.extend((0..random.below(4096)).map(|index| index as u8));
    (status, headers, body).into_response()
}

/// A running server. Dropped, it is killed with `kill -9`.
struct Server(Child);

impl Server {
    fn start(directory: &Path) -> Result<(Self, String)> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .arg("--directory")
            .arg(directory)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        let server = Self(child);
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        match address.trim() {
            "" => Err("the server did not start".into()),
            address => Ok((server, address.to_owned())),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the clients notice.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// The clients.

/// What is known of a key: the digest of the answer that a client got, once one did.
type Known = HashMap<String, Option<blake3::Hash>>;

#[derive(Default)]
struct Counts {
    answers: AtomicU64,
    first: AtomicU64,
    replayed: AtomicU64,
    locked: AtomicU64,
    mismatched: AtomicU64,
    unknown: AtomicU64,
    unavailable: AtomicU64,
    broken: AtomicU64,
}

impl Counts {
    fn print(&self, lives: u64, took: Duration) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        println!(
            "{lives} lives in {:.1} s: {} answers ({:.0}/s): {} first, {} replayed, {} locked, {} mismatched, \
             {} of unknown outcome, {} unavailable; {} requests broken off",
            took.as_secs_f64(),
            get(&self.answers),
            get(&self.answers) as f64 / took.as_secs_f64(),
            get(&self.first),
            get(&self.replayed),
            get(&self.locked),
            get(&self.mismatched),
            get(&self.unknown),
            get(&self.unavailable),
            get(&self.broken),
        );
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

/// One connection at a time, and the keys that it made up.
struct Client {
    number: u64,
    random: Random,
    address: watch::Receiver<Option<String>>,
    stream: Option<TcpStream>,
    counts: Arc<Counts>,
    known: Known,
    keys: Vec<String>,
    /// How many keys it made up; names are never used again.
    made: u64,
}

/// An answer as it came, but for its date.
struct Answer {
    status: u16,
    bytes: Vec<u8>,
}

impl Client {
    fn new(
        number: u64,
        seed: u64,
        address: watch::Receiver<Option<String>>,
        counts: Arc<Counts>,
    ) -> Self {
        let random = Random::new(&number.to_string(), seed);
        let (known, keys) = Default::default();
        Self { number, random, address, stream: None, counts, known, keys, made: 0 }
    }

    /// Sends until there is no server any more; what it knows of its keys.
    async fn run(mut self) -> Result<Known> {
        while self.address.borrow().is_some() {
            let old = match self.keys.len() as u64 {
                0 => None,
                keys => Some(self.keys[self.random.below(keys) as usize].clone()),
            };
            let alive = match (self.random.below(10), old) {
                // A retry, also of what was broken off or has no known outcome.
                (0..4, Some(key)) => self.exchange(&key, &body(&key)).await?,
                (4, Some(key)) => self.exchange(&key, &modified(&key)).await?,
                (choice, _) => {
                    let key = format!("k-{}-{}", self.number, self.made);
                    self.made += 1;
                    self.keys.push(key.clone());
                    self.known.insert(key.clone(), None);
                    if choice < 8 {
                        self.exchange(&key, &body(&key)).await?
                    } else {
                        self.duplicate(&key).await?
                    }
                }
            };
            if !alive {
                self.counts.broken.fetch_add(1, Ordering::Relaxed);
                self.stream = None;
                // The next server is on its way.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(self.known)
    }

    /// Two of the same at once, on two connections.
    async fn duplicate(&mut self, key: &str) -> Result<bool> {
        let mut other = Self::new(self.number, 0, self.address.clone(), self.counts.clone());
        other.known.insert(key.to_owned(), None);
        let body = body(key);
        let (one, two) = tokio::join!(self.exchange(key, &body), other.exchange(key, &body));
        let alive = one? && two?;
        // Both may have got the response: it must be the same.
        match (self.known[key], other.known[key]) {
            (Some(one), Some(two)) if one != two => {
                Err(format!("{key}: two duplicates got two responses").into())
            }
            (None, answer) => {
                self.known.insert(key.to_owned(), answer);
                Ok(alive)
            }
            _ => Ok(alive),
        }
    }

    /// Sends a request and checks its answer against what is known; `false` when the server was killed.
    async fn exchange(&mut self, key: &str, body: &[u8]) -> Result<bool> {
        let Some(answer) = self.send(key, body).await else {
            return Ok(false);
        };
        let counts = &self.counts;
        counts.answers.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(&answer.bytes);
        let says = |code: &str| text.contains(&format!("\"code\":\"{code}\""));
        let known = self.known[key];
        let counter = match answer.status {
            // The body of a mismatch differs, whatever became of the first request.
            409 if says("idempotency_key_mismatch") && body == modified(key) => &counts.mismatched,
            201 | 502 => {
                let digest = blake3::hash(&answer.bytes);
                match known {
                    // A modified request of a key that never was used is a first one.
                    None => {
                        if body != modified(key) {
                            self.known.insert(key.to_owned(), Some(digest));
                        } else {
                            // From now on the key belongs to the modified request: it is forgotten.
                            self.known.remove(key);
                            self.keys.retain(|other| other != key);
                        }
                        &counts.first
                    }
                    Some(known) if known == digest => &counts.replayed,
                    Some(_) => return Err(format!("{key}: another response: {text}").into()),
                }
            }
            409 if says("idempotency_key_locked") && known.is_none() => &counts.locked,
            409 if says("idempotency_outcome_unknown") && known.is_none() => &counts.unknown,
            // The modified request was the first one of a key whose own request was broken off.
            409 if says("idempotency_key_mismatch") && known.is_none() => &counts.mismatched,
            503 => &counts.unavailable,
            _ => return Err(format!("{key}, answered before: {}: {text}", known.is_some()).into()),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// `None` when the server is gone, or goes away before the answer is whole.
    async fn send(&mut self, key: &str, body: &[u8]) -> Option<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let address = self.address.borrow().clone()?;
                TcpStream::connect(address).await.ok()?
            }
        };
        let head = format!(
            "POST /orders HTTP/1.1\r\nHost: x\r\nX-Idempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await.ok()?;
        let answer = receive(&mut stream).await?;
        self.stream = Some(stream);
        Some(answer)
    }
}

/// Reads one answer, whose length its head tells.
async fn receive(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_len]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length: usize =
        head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    while bytes.len() < head_len + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let mut without_date: Vec<u8> = head
        .split_inclusive("\r\n")
        .filter(|line| !line.starts_with("date: "))
        .flat_map(str::bytes)
        .collect();
    without_date.extend_from_slice(&bytes[head_len..]);
    Some(Answer { status, bytes: without_date })
}

/// The body that goes with a key.
fn body(key: &str) -> Vec<u8> {
    key.as_bytes().repeat(1 + Random::new(key, 1).below(100) as usize)
}

fn modified(key: &str) -> Vec<u8> {
    [&body(key)[..], b"!"].concat()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn new(text: &str, seed: u64) -> Self {
        let hash = blake3::hash(text.as_bytes());
        let mut start = [0; 8];
        start.copy_from_slice(&hash.as_bytes()[..8]);
        Self(u64::from_le_bytes(start) ^ seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
