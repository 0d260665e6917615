//! The orders service as a process of its own, which is killed and started again.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test itself does")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longer than any wait of the tests takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn command(store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.arg("--store").arg(store);
    command
}

/// A running server. Dropped, it is killed.
struct Orders {
    child: Child,
    address: String,
    output: BufReader<std::process::ChildStdout>,
}

impl Orders {
    fn start(store: &Path, arguments: &[&str]) -> Self {
        let mut child = command(store)
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("http://").expect(&line).1.to_owned();
        Self { child, address, output }
    }

    fn client(&self) -> Client {
        Client { address: self.address.clone() }
    }

    fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for the end of a server that was told to stop. Returns its output after the address.
    fn ended(mut self) -> String {
        let mut printed = String::new();
        self.output.read_to_string(&mut printed).unwrap();
        assert!(self.child.wait().unwrap().success(), "{printed}");
        printed
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Talks HTTP by hand, so that every byte of an answer can be compared.
#[derive(Clone)]
struct Client {
    address: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// The answer as it came, without the line of the date.
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    fn assert_problem(&self, code: &str) {
        assert_eq!((self.status, self.json()["code"].as_str()), (409, Some(code)), "{self:?}");
    }
}

impl Client {
    fn connect(&self, method: &str, headers: &str, body: &str) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let len = body.len();
        write!(
            stream,
            "{method} /api/v2/orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {len}\r\n\r\n{body}"
        )?;
        Ok(stream)
    }

    fn send(&self, method: &str, headers: &str, body: &str) -> std::io::Result<Answer> {
        let mut answer = String::new();
        self.connect(method, headers, body)?.read_to_string(&mut answer)?;
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let head: Vec<_> = head.lines().filter(|line| !line.starts_with("date: ")).collect();
        Ok(Answer { status, head: head.join("\n"), body: body.to_owned() })
    }

    fn post(&self, key: &str, order: &Value) -> std::io::Result<Answer> {
        self.send("POST", &Self::headers(key), &order.to_string())
    }

    fn headers(key: &str) -> String {
        format!("Content-Type: application/json\r\nX-Idempotency-Key: {key}\r\n")
    }

    fn post_later(&self, key: &str, order: &Value) -> JoinHandle<std::io::Result<Answer>> {
        let (client, key, order) = (self.clone(), key.to_owned(), order.clone());
        std::thread::spawn(move || client.post(&key, &order))
    }

    fn list(&self) -> Value {
        self.send("GET", "", "").unwrap().json()
    }

    /// Waits until this number of requests has reached the handler.
    fn wait_for_executions(&self, executions: u64) {
        let start = Instant::now();
        while self.list()["executions"] != executions {
            assert!(start.elapsed() < PATIENCE, "{}", self.list());
            std::thread::yield_now();
        }
    }
}

fn order(customer: &str) -> Value {
    json!({"customerId": customer, "items": [{"sku": "tea", "quantity": 2}]})
}

fn slow(millis: u64) -> Value {
    json!({"customerId": "slow", "items": [], "processingMs": millis})
}

#[test]
fn orders_are_created_once_and_as_documented() {
    let store = tempfile::tempdir().unwrap();
    let orders = Orders::start(store.path(), &[]);
    let client = orders.client();
    let first = client.post("k-1", &order("c-1")).unwrap();
    let created = first.json();
    assert_eq!((first.status, &created["status"]), (201, &json!("CONFIRMED")));
    let location = format!("location: /api/v2/orders/{}", created["orderId"].as_str().unwrap());
    assert!(first.head.contains(&location), "{}", first.head);
    assert_eq!(client.post("k-1", &order("c-1")).unwrap(), first);
    client.post("k-1", &order("c-2")).unwrap().assert_problem("idempotency_key_mismatch");
    assert_eq!(client.list()["count"], 1);

    // A new order of the same customer has another id.
    let second = client.post("k-2", &order("c-1")).unwrap();
    assert_ne!(second.json()["orderId"], created["orderId"]);
    for (status, key) in [(422, "k-3"), (500, "k-4")] {
        let mut failing = order("c-1");
        failing["outcome"] = json!(status.to_string());
        let answer = client.post(key, &failing).unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(client.post(key, &failing).unwrap(), answer);
    }
    let mut panicking = order("c-1");
    panicking["outcome"] = json!("panic");
    client.post("k-5", &panicking).unwrap_err();
    client.post("k-5", &panicking).unwrap().assert_problem("idempotency_outcome_unknown");
    let list = client.list();
    assert_eq!((&list["count"], &list["executions"]), (&json!(2), &json!(5)));

    orders.terminate();
    let printed = orders.ended();
    assert!(printed.contains("closed: 5 executed, 3 replayed"), "{printed}");
}

/// Kills the server while it executes `k-slow`, after some orders were answered.
fn killed_in_the_middle(store: &Path, slow: &Value) -> Vec<(String, Value, Answer)> {
    let orders = Orders::start(store, &[]);
    let client = orders.client();
    let answered: Vec<_> = (0..5)
        .map(|n| {
            let (key, order) = (format!("k-{n}"), order(&format!("c-{n}")));
            let answer = client.post(&key, &order).unwrap();
            assert_eq!(answer.status, 201);
            (key, order, answer)
        })
        .collect();
    let interrupted = client.post_later("k-slow", slow);
    client.wait_for_executions(6);
    client.post("k-slow", slow).unwrap().assert_problem("idempotency_key_locked");
    orders.kill_9();
    interrupted.join().unwrap().unwrap_err();
    answered
}

#[test]
fn after_kill_9_what_was_answered_is_replayed_and_what_was_not_is_unknown() {
    let store = tempfile::tempdir().unwrap();
    let slow = slow(600_000);
    let answered = killed_in_the_middle(store.path(), &slow);
    // No answer changes from one restart to the next, however the server ended.
    for _ in 0..2 {
        let orders = Orders::start(store.path(), &[]);
        let client = orders.client();
        for _ in 0..2 {
            client.post("k-slow", &slow).unwrap().assert_problem("idempotency_outcome_unknown");
        }
        for (key, order, answer) in &answered {
            assert_eq!(&client.post(key, order).unwrap(), answer);
        }
        assert_eq!(client.list(), json!({"executions": 0, "count": 0, "orders": []}));
        orders.kill_9();
    }
}

#[test]
fn after_kill_9_with_retry_the_interrupted_request_runs_again_once() {
    let store = tempfile::tempdir().unwrap();
    let slow = slow(3_000);
    let answered = killed_in_the_middle(store.path(), &slow);
    let orders = Orders::start(store.path(), &["--recovery", "retry"]);
    let client = orders.client();
    let retries: Vec<_> = (0..4).map(|_| client.post_later("k-slow", &slow)).collect();
    let mut created = Vec::new();
    for retry in retries {
        let answer = retry.join().unwrap().unwrap();
        match answer.status {
            201 => created.push(answer),
            _ => answer.assert_problem("idempotency_key_locked"),
        }
    }
    let again = client.post("k-slow", &slow).unwrap();
    assert_eq!((again.status, &again.json()["attempt"]), (201, &json!(2)));
    assert!(!created.is_empty() && created.iter().all(|answer| *answer == again));
    for (key, order, answer) in &answered {
        assert_eq!(&client.post(key, order).unwrap(), answer);
    }
    let list = client.list();
    assert_eq!((&list["count"], &list["executions"]), (&json!(1), &json!(1)));
}

/// One whose client waits and one whose client is gone.
#[test]
fn told_to_stop_it_ends_what_it_has_begun() {
    let store = tempfile::tempdir().unwrap();
    let orders = Orders::start(store.path(), &[]);
    let client = orders.client();
    let slow = slow(1_000);
    let waiting = client.post_later("k-waiting", &slow);
    let gone = client.connect("POST", &Client::headers("k-gone"), &slow.to_string()).unwrap();
    client.wait_for_executions(2);
    drop(gone);
    orders.terminate();
    let answer = waiting.join().unwrap().unwrap();
    assert_eq!(answer.status, 201);
    let printed = orders.ended();
    assert!(printed.contains("closed: 2 executed"), "{printed}");
    assert!(printed.contains("0 left in flight"), "{printed}");

    let orders = Orders::start(store.path(), &[]);
    let client = orders.client();
    assert_eq!(client.post("k-waiting", &slow).unwrap(), answer);
    assert_eq!(client.post("k-gone", &slow).unwrap().status, 201);
    assert_eq!(client.list()["executions"], 0);
}

#[test]
fn its_curl_lines_name_the_real_port_and_process() {
    let store = tempfile::tempdir().unwrap();
    let orders = Orders::start(store.path(), &[]);
    assert!(!orders.address.ends_with(":0"));
    let (address, pid) = (orders.address.clone(), orders.child.id());
    orders.terminate();
    let printed = orders.ended();
    let post = format!("\ncurl -i http://{address}/api/v2/orders -H 'Content-Type");
    assert_eq!(printed.matches(&post).count(), 6, "{printed}");
    assert!(printed.contains(&format!("kill -9 {pid}\n")), "{printed}");
}

/// Runs the program to its end. Its message must be for people.
fn fails(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success());
    for debug in ["Error {", "Os {", "Error(", "panicked", "unwrap"] {
        assert!(!stderr.contains(debug), "{stderr}");
    }
    stderr
}

#[test]
fn what_it_cannot_do_it_says_in_words() {
    let (store, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let orders = Orders::start(store.path(), &[]);
    let said = fails(command(store.path()).args(["--listen", "127.0.0.1:0"]));
    assert!(said.contains("the store is in use"), "{said}");
    let said = fails(command(other.path()).args(["--listen", &orders.address]));
    assert!(said.contains(&format!("cannot listen on {}: ", orders.address)), "{said}");
    let said = fails(command(other.path()).args(["--listen", "127.0.0.1:0", "--ttl", "soon"]));
    assert!(said.contains("--ttl"), "{said}");
    let said = fails(command(other.path()).args(["--colour", "blue"]));
    assert!(said.contains("--colour is unknown"), "{said}");
    #[cfg(not(feature = "postgres"))]
    {
        let said =
            fails(Command::new(env!("CARGO_BIN_EXE_orders")).args(["--store", "postgres://h/d"]));
        assert!(said.contains("--features postgres"), "{said}");
    }
    let file = other.path().join("file");
    std::fs::write(&file, "not a store").unwrap();
    let said = fails(command(&file).args(["--listen", "127.0.0.1:0"]));
    assert!(said.contains(&format!("cannot open {}: ", file.display())), "{said}");
}
