//! Answers of the proxy itself: problem documents after RFC 9457, in the form of the layer's.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value};

use crate::wire::body::Body;

/// A problem document to be sent.
pub(crate) struct Problem {
    status: StatusCode,
    members: Map<String, Value>,
    retry_after: bool,
}

impl Problem {
    /// `code` is for programs, `detail` for people.
    pub(crate) fn new(status: StatusCode, code: &str, detail: &str) -> Self {
        let title = status.canonical_reason().unwrap_or_default();
        let mut members = Map::new();
        members.insert("type".to_owned(), "about:blank".into());
        members.insert("title".to_owned(), title.into());
        members.insert("status".to_owned(), status.as_u16().into());
        members.insert("code".to_owned(), code.into());
        members.insert("detail".to_owned(), detail.into());
        Self { status, members, retry_after: false }
    }

    pub(crate) fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// Says that the same request may be sent again after a second.
    pub(crate) fn retry_after(mut self) -> Self {
        self.retry_after = true;
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let json = Value::Object(self.members).to_string();
        let mut response = Response::new(Body::full(json));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
