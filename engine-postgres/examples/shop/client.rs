//! Clients that retry through both servers, and remember every answer.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oorandom::Rand64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::Result;

pub(crate) const SERVERS: usize = 2;

/// A key that is not answered for this long is a violation. It is longer than any machine takes to answer a key whose
/// owner was killed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client tries the other server after this, while the first may stand still: its order is fenced when it goes on.
const GIVEN_UP: Duration = Duration::from_secs(1);

/// An answer as it came, but for its date.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    fn is(&self, code: &str) -> bool {
        self.text.contains(&format!("\"code\":\"{code}\""))
    }

    /// The number of the order that a 201 names.
    fn order(&self) -> Option<i64> {
        let line = self.text.lines().find_map(|line| line.strip_prefix("location: /orders/"))?;
        line.parse().ok()
    }
}

/// The state that the clients of one run share.
pub(crate) struct Clients {
    /// Names the keys of this run.
    pub(crate) run: u64,
    /// Where the servers listen; empty while one is started.
    pub(crate) addresses: [Mutex<String>; SERVERS],
    pub(crate) stopped: AtomicBool,
    newest: AtomicU64,
    /// The one 201 of each key that was answered.
    answered: Mutex<HashMap<String, Answer>>,
    pub(crate) replayed: AtomicU64,
    pub(crate) locked: AtomicU64,
    pub(crate) unavailable: AtomicU64,
    pub(crate) broken: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    pub(crate) fn new(run: u64) -> Self {
        Self {
            run,
            addresses: Default::default(),
            stopped: AtomicBool::new(false),
            newest: AtomicU64::new(0),
            answered: Mutex::default(),
            replayed: AtomicU64::new(0),
            locked: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
            broken: AtomicU64::new(0),
        }
    }

    pub(crate) fn listens(&self, server: usize, address: &str) {
        address.clone_into(&mut lock(&self.addresses[server]));
    }

    pub(crate) fn answered(&self) -> usize {
        lock(&self.answered).len()
    }

    /// The keys whose answer names another order than the database has.
    pub(crate) fn unlike(&self, orders: &HashMap<String, i64>) -> Vec<String> {
        let answered = lock(&self.answered);
        let unlike =
            |(key, answer): &(&String, &Answer)| answer.order() != orders.get(*key).copied();
        answered.iter().filter(unlike).map(|(key, _)| key.clone()).collect()
    }

    /// Sends orders until the campaign stops. Every key is written down before it is sent.
    pub(crate) async fn send(&self, database: &Client, mut noise: Rand64) -> Result<()> {
        while !self.stopped.load(Ordering::Relaxed) {
            let newest = self.newest.load(Ordering::Relaxed);
            let server = noise.rand_range(0..SERVERS as u64) as usize;
            if newest > 0 && noise.rand_range(0..4) == 0 {
                let key = format!("{}-{}", self.run, noise.rand_range(0..newest));
                write_down(database, &key).await?;
                self.settle(&key, server).await?;
                continue;
            }
            let key = format!("{}-{}", self.run, self.newest.fetch_add(1, Ordering::Relaxed));
            write_down(database, &key).await?;

            match noise.rand_range(0..8) {
                // Two at once, one at each server.
                0 => {
                    let both = (self.settle(&key, 0), self.settle(&key, 1));
                    tokio::try_join!(both.0, both.1)?;
                }
                // A client that asks once: whether its order is made shows at the end.
                1 => drop(self.ask(&key, server).await?),
                _ => self.settle(&key, server).await?,
            }
        }
        Ok(())
    }

    /// Sends an order until it is answered with 201, at one server after the other.
    pub(crate) async fn settle(&self, key: &str, mut server: usize) -> Result<()> {
        let start = Instant::now();
        while !self.ask(key, server).await? {
            if start.elapsed() > PATIENCE {
                return Err(format!("{key} was not answered in {PATIENCE:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
            server = (server + 1) % SERVERS;
        }
        Ok(())
    }

    /// Sends an order once. Says whether it was answered with 201, which is the same whenever it comes.
    async fn ask(&self, key: &str, server: usize) -> Result<bool> {
        let address = lock(&self.addresses[server]).clone();
        let asked = tokio::time::timeout(GIVEN_UP, post(&address, key)).await;
        let Some(answer) = asked.ok().flatten() else {
            self.broken.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        };
        match answer.status {
            201 => self.remember(key, answer).map(|()| true),
            409 if answer.is("idempotency_key_locked") => {
                self.locked.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
            503 => {
                self.unavailable.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
            _ => Err(format!("{key}: {answer:?}").into()),
        }
    }

    fn remember(&self, key: &str, answer: Answer) -> Result<()> {
        let mut answered = lock(&self.answered);
        match answered.get(key) {
            None => drop(answered.insert(key.to_owned(), answer)),
            Some(before) if *before == answer => {
                self.replayed.fetch_add(1, Ordering::Relaxed);
            }
            Some(before) => return Err(format!("{key}: {before:?}, then {answer:?}").into()),
        }
        Ok(())
    }
}

/// Notes that a key is about to be sent. The client that took the number of the key may not have done so yet.
async fn write_down(database: &Client, key: &str) -> Result<()> {
    database.execute("INSERT INTO asked VALUES ($1) ON CONFLICT DO NOTHING", &[&key]).await?;
    Ok(())
}

/// The order of a key; the same in every retry.
fn order(key: &str) -> String {
    let sum: u64 = key.bytes().map(u64::from).sum();
    format!("{{\"item\": \"tea of {key}\", \"processingMs\": {}}}", sum * 7 % 30)
}

/// `None` when the server is gone, or goes away before the answer is whole.
async fn post(address: &str, key: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let body = order(key);
    let request = format!(
        "POST /orders HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nIdempotency-Key: {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    if length.parse() != Ok(body.len()) {
        return None;
    }
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let head: Vec<_> = head.lines().filter(|line| !line.starts_with("date: ")).collect();
    Some(Answer { status, text: format!("{}\n\n{body}", head.join("\n")) })
}
