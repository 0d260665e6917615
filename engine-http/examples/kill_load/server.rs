//! The server, and the process that it runs in.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http::StatusCode;
use oncekey_http::{Attempt, IdempotencyLayer, Policy};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::Result;
use crate::client::Random;

pub(crate) async fn serve(directory: &Path) -> Result<()> {
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

pub(crate) fn executions_path(directory: &Path) -> PathBuf {
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
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(directory: &Path) -> Result<(Self, String)> {
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
