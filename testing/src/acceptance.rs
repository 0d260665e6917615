//! The rows of the HTTP contract, checked against any server over a socket, for adapters of
//! frameworks.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A limit that no machine reaches when the server works.
const PATIENCE: Duration = Duration::from_secs(60);

/// The limit of request bodies that the server under test sets in its policy, in bytes.
pub const MAX_REQUEST_BODY: usize = 64 << 10;

/// The handler of the server under test, for every path and method. Clones share their state.
#[derive(Clone, Default)]
pub struct Shop(Arc<Counter>);

#[derive(Default)]
struct Counter {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    runs: usize,
    /// Executions of `/slow` that may end.
    released: usize,
    waiting: Vec<Waker>,
}

/// The response of the [`Shop`], which the server sends unchanged.
#[derive(Clone, Debug)]
pub struct Sold {
    /// The status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Shop {
    /// A shop without requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers a request. A `/slow` request waits until the suite lets it go on, `/panic` panics.
    pub async fn handle(&self, path: &str, body: &[u8]) -> Sold {
        let run = {
            let mut state = self.0.state.lock();
            state.runs += 1;
            self.0.changed.notify_all();
            state.runs
        };
        assert_ne!(path, "/panic", "this panic is part of the suite");
        if path == "/slow" {
            self.pass().await;
        }
        let status = match path {
            "/unauthorized" => 401,
            "/fails" => 500,
            _ => 201,
        };
        let content_type = if path == "/stream" { "text/event-stream" } else { "text/plain" };
        let headers =
            vec![("content-type", content_type.to_owned()), ("location", format!("/orders/{run}"))];
        let text = [format!("run {run} of ").as_bytes(), body].concat();
        Sold { status, headers, body: text }
    }

    async fn pass(&self) {
        poll_fn(|context| {
            let mut state = self.0.state.lock();
            if let Some(left) = state.released.checked_sub(1) {
                state.released = left;
                return Poll::Ready(());
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn release(&self) {
        let mut state = self.0.state.lock();
        state.released += 1;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// How often a handler ran.
    pub fn runs(&self) -> usize {
        self.0.state.lock().runs
    }

    fn wait_for_runs(&self, runs: usize) {
        let mut state = self.0.state.lock();
        let until = Instant::now() + PATIENCE;
        while state.runs < runs {
            assert!(!self.0.changed.wait_until(&mut state, until).timed_out(), "{runs} runs");
        }
    }
}

/// Checks every row against the server at `address`. The server sends every request to `shop`
/// through the default contract, with a body limit of [`MAX_REQUEST_BODY`]. The store must be new.
///
/// # Panics
/// When a row does not hold.
pub fn accept(address: SocketAddr, shop: &Shop) {
    let client = Client { address };
    for row in [
        without_a_key_every_request_runs,
        a_retry_gets_the_first_response,
        another_request_is_a_mismatch,
        a_duplicate_is_told_that_the_key_is_locked,
        a_panic_leaves_the_outcome_unknown,
        a_key_is_checked,
        a_body_over_the_limit_leaves_the_key_unused,
        a_handler_goes_on_when_its_client_leaves,
        what_is_stored_and_what_is_not,
        safe_methods_pass_through,
    ] {
        row(&client, shop);
    }
}

struct Client {
    address: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// In lower case, without `date`. A set, since some servers change the order.
    head: BTreeSet<String>,
    body: String,
}

impl Answer {
    fn refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.body.contains(&format!("\"code\":\"{code}\"")), "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
    }
}

impl Client {
    fn connect(&self, head: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        let head = format!("{head}\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).expect("the server reads");
        stream
    }

    /// `None` when the server closes the connection before the end of its answer.
    fn try_send(&self, head: &str, body: &[u8]) -> Option<Answer> {
        let mut bytes = Vec::new();
        // A reset after the answer does not matter to the suite.
        let _ = self.connect(head, body).read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).expect("the shop speaks UTF-8");
        let (head, mut body) = text.split_once("\r\n\r\n")?;
        let whole;
        if head.to_lowercase().contains("\r\ntransfer-encoding: chunked") {
            whole = joined(body)?;
            body = &whole;
        }
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let lines = lines.map(|line| match line.split_once(':') {
            Some((name, value)) => format!("{}: {}", name.to_lowercase(), value.trim()),
            None => line.to_owned(),
        });
        let head = lines.filter(|line| !line.starts_with("date:")).collect();
        Some(Answer { status, head, body: body.to_owned() })
    }

    fn send(&self, head: &str, body: &str) -> Answer {
        let head = format!("{head}\r\nContent-Length: {}", body.len());
        self.try_send(&head, body.as_bytes()).expect("an answer")
    }

    fn post(&self, path: &str, key: &str, body: &str) -> Answer {
        self.send(&format!("POST {path} HTTP/1.1\r\nIdempotency-Key: {key}"), body)
    }
}

/// Joins the chunks of a body. `None` when the body breaks off.
fn joined(mut chunks: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..size)?);
        chunks = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

fn without_a_key_every_request_runs(client: &Client, shop: &Shop) {
    let before = shop.runs();
    for _ in 0..2 {
        assert_eq!(client.send("POST /orders HTTP/1.1", "tea").status, 201);
    }
    assert_eq!(shop.runs(), before + 2);
}

fn a_retry_gets_the_first_response(client: &Client, shop: &Shop) {
    let before = shop.runs();
    let first = client.post("/orders?page=1", "retry", "tea");
    assert_eq!((first.status, first.body.as_str()), (201, &*format!("run {} of tea", before + 1)));
    assert_eq!(client.post("/orders?page=1", "retry", "tea"), first);
    // The other name of the header, and a body in chunks, are the same request.
    let other = client.send("POST /orders?page=1 HTTP/1.1\r\nX-Idempotency-Key: retry", "tea");
    assert_eq!(other, first);
    let chunked =
        "POST /orders?page=1 HTTP/1.1\r\nIdempotency-Key: retry\r\nTransfer-Encoding: chunked";
    assert_eq!(client.try_send(chunked, b"2\r\nte\r\n1\r\na\r\n0\r\n\r\n"), Some(first));
    assert_eq!(shop.runs(), before + 1);
    let empty = client.post("/orders", "empty", "");
    assert_eq!(client.post("/orders", "empty", ""), empty);
    assert_eq!(shop.runs(), before + 2);
}

fn another_request_is_a_mismatch(client: &Client, shop: &Shop) {
    let before = shop.runs();
    let first = client.post("/orders", "mismatch", "tea");
    let key = "Idempotency-Key: mismatch";
    for (head, body, part) in [
        ("POST /orders HTTP/1.1", "coffee", "body"),
        ("POST /orders?x HTTP/1.1", "tea", "target"),
        ("PUT /orders HTTP/1.1", "tea", "method"),
        ("POST /orders HTTP/1.1\r\nAuthorization: b", "tea", "header authorization"),
    ] {
        let refused = client.send(&format!("{head}\r\n{key}"), body);
        refused.refused(409, "idempotency_key_mismatch");
        assert!(refused.body.contains(&format!("\"parts\":[\"{part}\"]")), "{refused:?}");
    }
    assert_eq!(client.post("/orders", "mismatch", "tea"), first);
    assert_eq!(shop.runs(), before + 1);
}

fn a_duplicate_is_told_that_the_key_is_locked(client: &Client, shop: &Shop) {
    let before = shop.runs();
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| client.post("/slow", "locked", "tea"));
        shop.wait_for_runs(before + 1);
        let duplicate = client.post("/slow", "locked", "tea");
        duplicate.refused(409, "idempotency_key_locked");
        assert!(duplicate.head.contains("retry-after: 1"), "{duplicate:?}");
        client.post("/slow", "locked", "x").refused(409, "idempotency_key_mismatch");
        shop.release();
        first.join().expect("it does not panic")
    });
    assert_eq!(first.status, 201);
    assert_eq!(client.post("/slow", "locked", "tea"), first);
    assert_eq!(shop.runs(), before + 1);
}

fn a_panic_leaves_the_outcome_unknown(client: &Client, shop: &Shop) {
    let before = shop.runs();
    let head = "POST /panic HTTP/1.1\r\nIdempotency-Key: panic\r\nContent-Length: 0";
    // Some servers close the connection, others answer 500 for their handler.
    let answer = client.try_send(head, b"");
    assert!(answer.is_none_or(|answer| answer.status == 500));
    for _ in 0..2 {
        client.post("/panic", "panic", "").refused(409, "idempotency_outcome_unknown");
    }
    assert_eq!(shop.runs(), before + 1);
}

fn a_key_is_checked(client: &Client, shop: &Shop) {
    let before = shop.runs();
    let long = "k".repeat(256);
    for key in [
        format!("Idempotency-Key: {long}"),
        "Idempotency-Key: ".to_owned(),
        "Idempotency-Key: a\r\nIdempotency-Key: a".to_owned(),
        "Idempotency-Key: a\r\nX-Idempotency-Key: a".to_owned(),
    ] {
        let refused = client.send(&format!("POST /orders HTTP/1.1\r\n{key}"), "tea");
        refused.refused(400, "idempotency_key_invalid");
    }
    assert_eq!(shop.runs(), before);
    assert_eq!(client.post("/orders", &long[1..], "tea").status, 201);
}

fn a_body_over_the_limit_leaves_the_key_unused(client: &Client, shop: &Shop) {
    let before = shop.runs();
    let refused = client.post("/orders", "large", &"x".repeat(MAX_REQUEST_BODY + 1));
    refused.refused(413, "idempotency_body_too_large");
    assert_eq!(shop.runs(), before);
    assert_eq!(client.post("/orders", "large", "small").status, 201);
}

fn a_handler_goes_on_when_its_client_leaves(client: &Client, shop: &Shop) {
    let before = shop.runs();
    let head = "POST /slow HTTP/1.1\r\nIdempotency-Key: gone\r\nContent-Length: 3";
    let gone = client.connect(head, b"tea");
    shop.wait_for_runs(before + 1);
    drop(gone);
    // Meanwhile the server notices that the connection is gone. This must not stop the handler.
    for _ in 0..8 {
        client.post("/slow", "gone", "tea").refused(409, "idempotency_key_locked");
    }
    shop.release();
    let until = Instant::now() + PATIENCE;
    let answer = loop {
        let answer = client.post("/slow", "gone", "tea");
        if answer.status != 409 {
            break answer;
        }
        answer.refused(409, "idempotency_key_locked");
        assert!(Instant::now() < until, "the handler has not ended");
        std::thread::yield_now();
    };
    assert_eq!((answer.status, shop.runs()), (201, before + 1));
}

fn what_is_stored_and_what_is_not(client: &Client, shop: &Shop) {
    let before = shop.runs();
    let failed = client.post("/fails", "failed", "");
    assert_eq!(failed.status, 500);
    assert_eq!(client.post("/fails", "failed", ""), failed);
    assert_eq!(shop.runs(), before + 1);
    for run in 2..4 {
        assert_eq!(client.post("/unauthorized", "unauthorized", "").status, 401);
        assert_eq!(shop.runs(), before + run);
    }
    assert_eq!(client.post("/stream", "stream", "").status, 201);
    client.post("/stream", "stream", "").refused(409, "idempotency_response_not_stored");
    assert_eq!(shop.runs(), before + 4);
}

fn safe_methods_pass_through(client: &Client, shop: &Shop) {
    let before = shop.runs();
    for _ in 0..2 {
        let answer = client.send("GET /orders HTTP/1.1\r\nIdempotency-Key: safe", "");
        assert_eq!(answer.status, 201);
    }
    assert_eq!(shop.runs(), before + 2);
}
