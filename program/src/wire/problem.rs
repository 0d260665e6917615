//! The answers of the proxy itself: problem documents of RFC 9457, in the same form as the layer's.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value};

use crate::wire::body::Body;

/// A problem document.
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

    /// Allows the same request again after a second.
    pub(crate) fn retry_after(mut self) -> Self {
        self.retry_after = true;
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let member =
            |name: &str| self.members.get(name).and_then(Value::as_str).unwrap_or_default();
        let said = Said {
            code: member("code").to_owned(),
            detail: member("detail").to_owned(),
            retry_after: self.retry_after,
        };
        let json = Value::Object(self.members).to_string();
        let mut response = Response::new(Body::full(json));
        response.extensions_mut().insert(said);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The content of a problem document, in the extensions of its response.
#[derive(Clone)]
struct Said {
    code: String,
    detail: String,
    retry_after: bool,
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The time until another try, in milliseconds. Source: gRFC A6.
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Turns a response with a problem document into the end of a gRPC call with `content_type`: the status is
/// among the headers, and there is no body. Returns `None` for other responses, and leaves them unchanged.
pub(crate) fn as_grpc<B>(
    response: &mut Response<B>,
    content_type: &HeaderValue,
) -> Option<Response<Body>> {
    let Said { code, detail, retry_after } = response.extensions().get::<Said>()?.clone();
    let mut answer = Response::new(Body::default());
    std::mem::swap(answer.extensions_mut(), response.extensions_mut());
    let status = grpc_status(response.status(), &code);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type.clone());
    headers.insert(GRPC_STATUS, HeaderValue::from(status));
    // Codes and details have no characters that need escaping.
    if let Ok(message) = HeaderValue::try_from(format!("{code}: {detail}")) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if retry_after {
        headers.insert(GRPC_PUSHBACK, HeaderValue::from(1000));
    }
    Some(answer)
}

/// The gRPC status, equal to that of the layer's refusals. Source:
/// <https://grpc.io/docs/guides/status-codes/>.
fn grpc_status(status: StatusCode, code: &str) -> u16 {
    match (code, status.as_u16()) {
        // ABORTED: send the same call later. FAILED_PRECONDITION: never send the same call again.
        ("idempotency_key_locked", _) => 10,
        ("idempotency_outcome_unknown", _) => 9,
        (_, 400) => 3,
        (_, 501) => 12,
        (_, 502 | 503) => 14,
        (_, 504) => 4,
        _ => 2,
    }
}
