//! The clients: what they send, what they know, and what they check.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::Result;

/// What is known of a key: the digest of the answer that a client got, once one did.
pub(crate) type Known = HashMap<String, Option<blake3::Hash>>;

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) answers: AtomicU64,
    first: AtomicU64,
    replayed: AtomicU64,
    locked: AtomicU64,
    mismatched: AtomicU64,
    unknown: AtomicU64,
    unavailable: AtomicU64,
    broken: AtomicU64,
}

impl Counts {
    pub(crate) fn print(&self, lives: u64, took: Duration) {
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

/// One connection at a time, and the keys that it made up.
pub(crate) struct Client {
    number: u64,
    random: Random,
    address: watch::Receiver<Option<String>>,
    stream: Option<TcpStream>,
    counts: Arc<Counts>,
    pub(crate) known: Known,
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
    pub(crate) fn new(
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
    pub(crate) async fn run(mut self) -> Result<Known> {
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
    pub(crate) async fn exchange(&mut self, key: &str, body: &[u8]) -> Result<bool> {
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
pub(crate) fn body(key: &str) -> Vec<u8> {
    key.as_bytes().repeat(1 + Random::new(key, 1).below(100) as usize)
}

fn modified(key: &str) -> Vec<u8> {
    [&body(key)[..], b"!"].concat()
}

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(text: &str, seed: u64) -> Self {
        let hash = blake3::hash(text.as_bytes());
        let mut start = [0; 8];
        start.copy_from_slice(&hash.as_bytes()[..8]);
        Self(u64::from_le_bytes(start) ^ seed)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
