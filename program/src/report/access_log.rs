//! The access log: one line for each request, without keys, scopes, bodies, header values or queries.

use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde_json::Value;

#[derive(Clone, Copy)]
pub(crate) struct AccessLog {
    pub(crate) json: bool,
}

pub(crate) struct Line<'a> {
    pub(crate) method: &'a Method,
    /// The pattern of the route; `None` when the request was refused before its route was found.
    pub(crate) route: Option<&'a str>,
    /// `None` when the client disconnected before it had an answer.
    pub(crate) status: Option<StatusCode>,
    pub(crate) outcome: &'a str,
    /// The number of the attempt that this request executed; `None` when it executed none.
    pub(crate) attempt: Option<u32>,
    /// The time until the head of the answer.
    pub(crate) took: Duration,
    /// The part of `took` that the upstreams needed until the head of a response, including the connection.
    pub(crate) upstream: Option<Duration>,
    /// The bytes of the bodies.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) trace: Option<u128>,
}

impl AccessLog {
    /// Writes to standard error. A line that cannot be written is lost.
    pub(crate) fn write(&self, line: &Line<'_>) {
        let text = if self.json { line.json() } else { line.text() };
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

/// A member that may be absent: `null` in JSON, `-` in text.
fn shown<T>(value: Option<T>, absent: &str, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| absent.to_owned(), show)
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

impl Line<'_> {
    fn json(&self) -> String {
        let Self { outcome, bytes_in, bytes_out, .. } = self;
        let quoted = |text: &str| Value::from(text).to_string();
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let method = quoted(self.method.as_str());
        let route = shown(self.route, "null", quoted);
        let status = shown(self.status, "null", |status| status.as_u16().to_string());
        let attempt = shown(self.attempt, "null", |attempt| attempt.to_string());
        let ms = millis(self.took);
        let upstream = shown(self.upstream, "null", millis);
        let peer = shown(self.peer, "null", |peer| quoted(&peer.to_string()));
        let trace = shown(self.trace, "null", |trace| format!("\"{trace:032x}\""));
        format!(
            "{{\"ts\":\"{time}\",\"msg\":\"request\",\"method\":{method},\"route\":{route},\
             \"status\":{status},\"outcome\":\"{outcome}\",\"attempt\":{attempt},\"ms\":{ms},\
             \"upstreamMs\":{upstream},\"bytesIn\":{bytes_in},\"bytesOut\":{bytes_out},\
             \"peer\":{peer},\"trace\":{trace}}}\n"
        )
    }

    fn text(&self) -> String {
        let Self { method, outcome, bytes_in, bytes_out, .. } = self;
        let route = self.route.unwrap_or("-");
        let status = shown(self.status, "-", |status| status.as_u16().to_string());
        let attempt = shown(self.attempt, "-", |attempt| attempt.to_string());
        let ms = millis(self.took);
        let upstream = shown(self.upstream, "-", millis);
        let peer = shown(self.peer, "-", |peer| peer.to_string());
        let trace = shown(self.trace, "-", |trace| format!("{trace:032x}"));
        format!(
            "{method} {route} {status} {outcome} {ms} ms {peer} attempt={attempt} \
             upstream={upstream} in={bytes_in} out={bytes_out} trace={trace}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_or_text() {
        let mut line = Line {
            method: &Method::POST,
            route: Some("/v1/{id}"),
            status: Some(StatusCode::CREATED),
            outcome: "executed",
            attempt: Some(2),
            took: Duration::from_micros(1500),
            upstream: Some(Duration::from_micros(1200)),
            bytes_in: 17,
            bytes_out: 212,
            peer: Some("10.1.2.3".parse().unwrap()),
            trace: Some(0x4b_f9),
        };
        let trace = "00000000000000000000000000004bf9";
        let text =
            "POST /v1/{id} 201 executed 1.5 ms 10.1.2.3 attempt=2 upstream=1.2 in=17 out=212";
        assert_eq!(line.text(), format!("{text} trace={trace}\n"));
        let json: Value = serde_json::from_str(&line.json()).unwrap();
        let ts = json["ts"].clone();
        let expected = serde_json::json!({
            "ts": ts, "msg": "request", "method": "POST", "route": "/v1/{id}", "status": 201,
            "outcome": "executed", "attempt": 2, "ms": 1.5, "upstreamMs": 1.2, "bytesIn": 17,
            "bytesOut": 212, "peer": "10.1.2.3", "trace": trace,
        });
        assert_eq!(json, expected);
        (line.route, line.status, line.attempt, line.upstream) = (None, None, None, None);
        (line.peer, line.trace) = (None, None);
        assert!(line.text().starts_with("POST - - executed 1.5 ms - attempt=- upstream=- in=17"));
        let json: Value = serde_json::from_str(&line.json()).unwrap();
        for absent in ["route", "status", "attempt", "upstreamMs", "peer", "trace"] {
            assert_eq!(json.get(absent), Some(&Value::Null), "{absent}");
        }
    }
}
