//! The examples `plain_hyper` and `payments` as processes of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Cargo builds the examples of a package before its tests run, unless it is told to build only
/// some targets.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program =
        profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        program.exists(),
        "{} is not built: run `cargo test -p oncekey-http` without `--test`, or build the example",
        program.display()
    );
    program
}

/// A running example that says where it listens. Dropped, it is killed with `kill -9`.
struct Server {
    child: Child,
    address: String,
    output: BufReader<ChildStdout>,
}

impl Server {
    fn start(name: &str, store: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(example(name))
            .arg("127.0.0.1:0")
            .arg(store)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("http://").expect(&line).1.to_owned();
        Self { child, address, output }
    }

    /// Sends a POST and returns the connection.
    fn send(&self, path: &str, key: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream
    }

    /// Status and body of the answer to a request with a key.
    fn post(&self, path: &str, key: &str, body: &str) -> (u16, String) {
        let header = format!("X-Idempotency-Key: {key}\r\n");
        let mut answer = String::new();
        self.send(path, &header, body).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_plain_hyper_server_runs_a_request_once() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start("plain_hyper", store.path(), &[]);
    for _ in 0..2 {
        assert_eq!(server.post("/", "k", "hello"), (200, "run 1: hello".to_owned()));
    }
    let (status, problem) = server.post("/", "k", "other");
    assert_eq!(status, 409);
    assert!(problem.contains("idempotency_key_mismatch"), "{problem}");
    drop(server);
    let server = Server::start("plain_hyper", store.path(), &[]);
    assert_eq!(server.post("/", "k", "hello"), (200, "run 1: hello".to_owned()));
    assert_eq!(server.post("/", "k-2", "hello"), (200, "run 1: hello".to_owned()));
}

/// Wherever the server is killed, the retry finishes the payment with one charge and one booking.
#[test]
fn a_payment_survives_kill_9_and_is_finished_by_the_retry() {
    for (step, charged_by, from) in [
        ("before-charge", 2, "the start"),
        ("after-charge", 1, "the start"),
        ("after-checkpoint", 1, "its checkpoint"),
    ] {
        let store = tempfile::tempdir().unwrap();
        let mut server = Server::start("payments", store.path(), &[step]);
        let interrupted = server.send("/payments", "X-Idempotency-Key: p-1\r\n", "100");
        let mut line = String::new();
        server.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), format!("payments: stopped {step}"));
        let (status, problem) = server.post("/payments", "p-1", "100");
        assert!(status == 409 && problem.contains("idempotency_key_locked"), "{problem}");
        drop(server);
        drop(interrupted);

        let server = Server::start("payments", store.path(), &[]);
        let (status, paid) = server.post("/payments", "p-1", "100");
        assert_eq!(status, 201, "{paid}");
        assert!(paid.starts_with(&format!("paid in attempt 2 from {from}: charge ")), "{paid}");
        assert!(paid.ends_with(&format!(" attempt {charged_by}")), "{step}: {paid}");
        assert_eq!(server.post("/payments", "p-1", "100"), (201, paid));
        let ledger = std::fs::read_to_string(store.path().join("ledger")).unwrap();
        let lines: Vec<_> = ledger.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(lines, ["charge", "book"], "{step}: {ledger}");
    }
}

/// A slice of the load under `kill -9`. The example lists its checks.
#[test]
fn under_load_and_kill_9_no_key_is_executed_twice_and_no_answer_changes() {
    let store = tempfile::tempdir().unwrap();
    let output = Command::new(example("kill_load"))
        .args(["--connections", "16", "--kill-after", "400", "--lives", "4", "--directory"])
        .arg(store.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{complained}");
    assert!(printed.starts_with("4 lives in ") && printed.contains("none twice"), "{printed}");
}
