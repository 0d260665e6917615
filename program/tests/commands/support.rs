//! The program as a shell runs it, and stores that it is asked about.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use http::{HeaderMap, StatusCode};
use oncekey::{Begin, Engine, Fingerprint, Key, Lookup, Options};
use oncekey_http::{Access, Admin, ControlSocket, IdempotencyLayer, StoredResponse};
use serde_json::Value;

pub(crate) fn oncekey(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncekey"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ONCEKEY_")) {
        command.env_remove(name);
    }
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    oncekey(arguments).output().unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The output of a command that must succeed.
pub(crate) fn ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(code(&output), 0, "{arguments:?}: {}", err(&output));
    out(&output)
}

pub(crate) fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(&[arguments, &["--json"]].concat())).unwrap()
}

pub(crate) fn key(name: &str) -> Key {
    Key::new("t", name).unwrap()
}

pub(crate) fn claim(engine: &Engine, name: &str) -> oncekey::Claim {
    match engine.begin(&key(name), Fingerprint::builder().finish()).wait().unwrap() {
        Begin::Claimed(claim) => claim,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn complete(engine: &Engine, name: &str, status: u16, body: &str) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "text/plain".parse().unwrap());
    let status = StatusCode::from_u16(status).unwrap();
    let response = StoredResponse::new(status, &headers, body.to_owned()).encode().unwrap();
    claim(engine, name).complete(&response).wait().unwrap();
}

/// Waits: the end of a claim that is dropped is on its way when the drop returns.
pub(crate) fn orphan(engine: &Engine, name: &str) -> String {
    let held = claim(engine, name);
    held.checkpoint(b"half way").wait().unwrap();
    drop(held);
    loop {
        if let Lookup::Orphaned(orphan) = engine.get(&key(name)).unwrap() {
            return orphan.token().to_string();
        }
        std::thread::yield_now();
    }
}

/// A store with five completed keys and an orphan.
pub(crate) fn filled(options: Options, store: &Path) -> (Engine, String) {
    let engine = options.open(store).unwrap();
    for number in 0..5 {
        complete(&engine, &format!("order-{number}"), 201, &format!("body {number}"));
    }
    complete(&engine, "sad", 503, "no");
    let token = orphan(&engine, "lost");
    engine.fold().unwrap();
    (engine, token)
}

/// A store that no process has open.
pub(crate) struct Offline {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) token: String,
}

impl Offline {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (engine, token) = filled(Options::new(), &dir.path().join("keys"));
        engine.close().unwrap();
        Self { dir, token }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    pub(crate) fn store(&self) -> String {
        self.path().display().to_string()
    }
}

/// A store whose owner answers at a control socket and, with tokens, at a port.
pub(crate) struct Online {
    pub(crate) engine: Engine,
    pub(crate) token: String,
    pub(crate) url: String,
    pub(crate) _socket: ControlSocket,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) dir: tempfile::TempDir,
}

impl Online {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let (engine, token) = filled(Options::new(), &dir.path().join("keys"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let admin = Admin::new(IdempotencyLayer::new(engine.clone()))
            .backups(dir.path().join("backups"))
            .show_responses(true)
            .on_reload(|| async { Err(vec!["line 1: no".to_owned()]) });
        let _socket = admin.clone().control_socket(&socket).unwrap();
        let access = Access::new()
            .operator_token_file(dir.path().join("operator"))
            .and_then(|access| access.viewer_token_file(dir.path().join("viewer")))
            .unwrap();
        let router = admin.guarded(access);
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        drop(_inside);
        Self { engine, token, url, _socket, runtime, dir }
    }

    pub(crate) fn store(&self) -> String {
        self.dir.path().join("keys").display().to_string()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

/// The bytes and the times of every file of a store.
pub(crate) fn state(store: &Path) -> BTreeMap<PathBuf, (Vec<u8>, [i64; 4])> {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let stat = |path: PathBuf| {
        let meta = std::fs::metadata(&path).unwrap();
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        let bytes = if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
        (path, (bytes, times))
    };
    entries.chain([store.to_owned()]).map(stat).collect()
}
