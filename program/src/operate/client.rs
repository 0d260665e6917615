//! Requests to the server that holds a store: HTTP/1.1 over its control socket, or over TCP with a token.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::base::exit::{Exit, Failure};
use crate::config::Target;
use crate::upstream::{Tls, send_once};

/// How long an answer may take: a fold, or a list of many orphans, takes time.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Client {
    runtime: Runtime,
    target: Target,
    tls: Option<Tls>,
    token: Option<String>,
    /// The directory of its store, if it is known.
    pub(crate) store: Option<PathBuf>,
}

impl Client {
    pub(crate) fn new(
        target: Target,
        token: Option<String>,
        ca: Option<&Path>,
    ) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::failed(error.to_string()))?;
        let tls = target.is_tls().then(|| Tls::new(ca)).transpose().map_err(Failure::usage)?;
        Ok(Self { runtime, target, tls, token, store: None })
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The JSON document at a path of the API.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        document(&self.accepted(Method::GET, path, None)?.into_body())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        document(&self.accepted(Method::POST, path, Some(body))?.into_body())
    }

    /// The bytes at a path of the API.
    pub(crate) fn download(&self, path: &str) -> Result<Response<Bytes>, Failure> {
        self.accepted(Method::GET, path, None)
    }

    fn accepted(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Bytes>, Failure> {
        let answer = self.ask(method, &format!("/api/v1/{path}"), body)?;
        if answer.status().is_success() { Ok(answer) } else { Err(refused(&answer)) }
    }

    /// The answer, whatever its status.
    pub(crate) fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Bytes>, Failure> {
        let asked = async {
            tokio::time::timeout(PATIENCE, self.send(method, path, body))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        self.runtime
            .block_on(asked)
            .map_err(|error| Failure::failed(format!("{} does not answer: {error}", self.target)))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> io::Result<Response<Bytes>> {
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", self.target.base));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Bytes::from(body)).map_err(io::Error::other)?;
        send_once(&self.target, self.tls.as_ref(), request, usize::MAX).await
    }
}

fn document(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::failed(format!("the answer of the server is not JSON: {error}")))
}

/// The failure of a command for a refusal of the API.
fn refused(answer: &Response<Bytes>) -> Failure {
    let said: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let status = answer.status();
    let message = said["error"].as_str().map_or_else(|| status.to_string(), str::to_owned);
    let exit = match (status.as_u16(), said["code"].as_str()) {
        (_, Some("damaged")) => Exit::Damaged,
        (_, Some("conflict")) => Exit::Conflict,
        (401 | 403 | 421 | 429, _) => Exit::Forbidden,
        (400 | 413 | 415 | 422, _) => Exit::Usage,
        (404, Some("not_found")) => Exit::Absent,
        _ => Exit::Failed,
    };
    Failure::new(exit, message)
}
