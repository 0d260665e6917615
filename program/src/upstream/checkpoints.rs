//! The listener on which an upstream saves checkpoints of the attempt that it executes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use oncekey::ErrorKind;
use oncekey_http::{Attempt, CheckpointError};
use parking_lot::Mutex;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::net::TcpListener;

/// The longest checkpoint, in bytes: the default of the engine.
const MAX_CHECKPOINT: usize = 64 << 10;

/// The running attempts, by the secrets that their upstreams got.
pub(crate) struct Control {
    /// `http://127.0.0.1:PORT/a/`, before the secret.
    base: String,
    attempts: Mutex<HashMap<String, Attempt>>,
}

/// An attempt that can be reached until this is dropped.
pub(crate) struct Reachable<'a> {
    control: &'a Control,
    secret: String,
}

impl Reachable<'_> {
    pub(crate) fn url(&self) -> String {
        format!("{}{}", self.control.base, self.secret)
    }
}

impl Drop for Reachable<'_> {
    fn drop(&mut self) {
        self.control.attempts.lock().remove(&self.secret);
    }
}

impl Control {
    /// Needs a server that [`serve`](Self::serve) runs on `listener`.
    pub(crate) fn new(listener: &TcpListener) -> io::Result<Self> {
        let base = format!("http://{}/a/", listener.local_addr()?);
        Ok(Self { base, attempts: Mutex::default() })
    }

    /// Makes an attempt reachable under a new secret.
    pub(crate) fn reach(&self, attempt: &Attempt) -> io::Result<Reachable<'_>> {
        let mut random = [0; 16];
        // A request for 16 bytes is never answered in part.
        getrandom(&mut random, GetRandomFlags::empty())?;
        let secret = format!("{:032x}", u128::from_ne_bytes(random));
        self.attempts.lock().insert(secret.clone(), attempt.clone());
        Ok(Reachable { control: self, secret })
    }

    /// Serves until the process ends.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let control = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let control = control.clone();
                    async move { Ok::<_, Infallible>(control.answer(request).await) }
                });
                let mut builder = http1::Builder::new();
                let connection = builder
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                // The upstream may disconnect at any time.
                let _ = connection.await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let secret = path.strip_prefix("/a/").and_then(|rest| rest.strip_suffix("/checkpoint"));
        let Some(secret) = secret else { return say(StatusCode::NOT_FOUND) };
        let Some(attempt) = self.attempts.lock().get(secret).cloned() else {
            return say(StatusCode::CONFLICT);
        };
        match *request.method() {
            Method::GET => match attempt.checkpoint() {
                Ok(Some(checkpoint)) => Response::new(Full::new(Bytes::from_owner(checkpoint))),
                Ok(None) => say(StatusCode::NO_CONTENT),
                Err(error) => say(refusal(&error)),
            },
            Method::PUT => save(&attempt, request.into_body()).await,
            _ => say(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}

async fn save(attempt: &Attempt, body: Incoming) -> Response<Full<Bytes>> {
    let data = match Limited::new(body, MAX_CHECKPOINT).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return say(StatusCode::PAYLOAD_TOO_LARGE);
        }
        Err(_) => return say(StatusCode::BAD_REQUEST),
    };
    match attempt.save_checkpoint(&data).await {
        Ok(()) => say(StatusCode::NO_CONTENT),
        Err(error) => say(refusal(&error)),
    }
}

/// 409 when the attempt has ended in any way; 503 when the store refuses.
fn refusal(error: &CheckpointError) -> StatusCode {
    match error {
        CheckpointError::Refused(error) => match error.kind() {
            ErrorKind::Fenced | ErrorKind::AlreadyCompleted => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        },
        _ => StatusCode::CONFLICT,
    }
}

fn say(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
