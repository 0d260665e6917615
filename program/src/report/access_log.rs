//! One line for each request, without keys, scopes, bodies, header values or queries.

use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde_json::Value;

pub(crate) struct AccessLog {
    pub(crate) json: bool,
}

pub(crate) struct Line<'a> {
    pub(crate) method: &'a Method,
    /// The pattern of the route; `None` when the request was refused before it had one.
    pub(crate) route: Option<&'a str>,
    pub(crate) status: StatusCode,
    pub(crate) outcome: &'a str,
    pub(crate) took: Duration,
    pub(crate) peer: Option<IpAddr>,
}

impl AccessLog {
    /// Writes to standard error. A line that cannot be written is lost.
    pub(crate) fn write(&self, line: &Line<'_>) {
        let text = if self.json { line.json() } else { line.text() };
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

impl Line<'_> {
    fn json(&self) -> String {
        let Self { method, route, status, outcome, took, peer } = self;
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let method = Value::from(method.as_str());
        let (route, status) = (Value::from(*route), status.as_u16());
        let ms = took.as_secs_f64() * 1000.0;
        let peer = Value::from(peer.map(|peer| peer.to_string()));
        format!(
            "{{\"ts\":\"{time}\",\"msg\":\"request\",\"method\":{method},\"route\":{route},\
             \"status\":{status},\"outcome\":\"{outcome}\",\"ms\":{ms:.1},\"peer\":{peer}}}\n"
        )
    }

    fn text(&self) -> String {
        let Self { method, route, status, outcome, took, peer } = self;
        let route = route.unwrap_or("-");
        let peer = peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string());
        let ms = took.as_secs_f64() * 1000.0;
        format!("{method} {route} {} {outcome} {ms:.1} ms {peer}\n", status.as_u16())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_or_text() {
        let line = Line {
            method: &Method::POST,
            route: Some("/v1/{id}"),
            status: StatusCode::CREATED,
            outcome: "executed",
            took: Duration::from_micros(1500),
            peer: None,
        };
        assert_eq!(line.text(), "POST /v1/{id} 201 executed 1.5 ms -\n");
        let json: Value = serde_json::from_str(&line.json()).unwrap();
        assert_eq!(json["route"], "/v1/{id}");
        assert_eq!((&json["ms"], &json["peer"]), (&Value::from(1.5), &Value::Null));
    }
}
