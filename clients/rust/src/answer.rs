//! The result of a try.

use std::time::Duration;

use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::Value;

/// The result of a try, reduced to the parts that decide about the next try.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// `None`: no complete answer came.
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<String>,
    pub(crate) replayed: bool,
    pub(crate) wait: Option<Duration>,
}

#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    code: Value,
    #[serde(default, rename = "retryAfterMs")]
    retry_after_ms: Value,
}

impl Answer {
    /// No complete answer: no connection, a reset, a time-out, a body that broke off.
    pub fn none() -> Self {
        Self::default()
    }

    /// A complete answer. `body` matters only when it is a problem document.
    pub fn parse(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let problem: Problem = if status >= 400 && is_problem(headers) {
            serde_json::from_slice(body).unwrap_or_default()
        } else {
            Problem::default()
        };
        let code = problem.code.as_str().map(str::to_owned);
        let member = problem.retry_after_ms.as_f64().filter(|_| {
            // The member belongs to this refusal; no other has one.
            code.as_deref() == Some("idempotency_key_locked")
        });
        let member = member.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
        Self {
            status: Some(status),
            code,
            replayed: headers.get("idempotent-replayed").is_some_and(|value| value == "true"),
            wait: member.or_else(|| retry_after(headers)),
        }
    }

    /// Sets whether the server marked the answer as a replay, for a server whose marker is not
    /// `Idempotent-Replayed: true`.
    pub fn replayed(mut self, replayed: bool) -> Self {
        self.replayed = replayed;
        self
    }

    /// The `code` of the problem document.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }
}

fn is_problem(headers: &HeaderMap) -> bool {
    let kind = text(headers, header::CONTENT_TYPE).split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/problem+json")
}

/// How long the server asks to wait. A date counts from the Date of the answer, so no clock is read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let after = text(headers, header::RETRY_AFTER).trim();
    if !after.is_empty() && after.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(after.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(after).ok()?;
    let from = httpdate::parse_http_date(text(headers, header::DATE)).ok()?;
    until.duration_since(from).ok()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
