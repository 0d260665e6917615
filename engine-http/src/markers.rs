//! Markers in the extensions of a response, which describe its execution.

use std::time::Duration;

use http::{HeaderMap, header};

/// In the extensions of a response: nothing happened. The key is freed, and the next request with it runs the
/// handler.
///
/// Only the first attempt can free a key. A later attempt ([`Recovery::Retry`](crate::Recovery)) cannot know
/// what the earlier ones did: the outcome stays unknown.
///
/// ```
/// use oncekey_http::NotExecuted;
/// let mut response = http::Response::new("the kitchen is closed");
/// *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
/// response.extensions_mut().insert(NotExecuted);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotExecuted;

/// In the extensions of a response: the operation may have happened or not. The response is sent as it comes
/// and not stored. The next request with the key gets `idempotency_outcome_unknown`, or takes the operation
/// over ([`Recovery::Retry`](crate::Recovery)). For handlers that pass a request on and lose the answer.
///
/// This marker wins over [`NotExecuted`], over [`NotStored`], and over the rule of [`Stored`](crate::Stored)
/// for the status.
///
/// ```
/// let mut response = http::Response::new("the upstream broke off");
/// *response.status_mut() = http::StatusCode::BAD_GATEWAY;
/// response.extensions_mut().insert(oncekey_http::OutcomeUnknown);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeUnknown;

/// In the extensions of a response: it is not stored. It is sent as it comes, and a retry gets
/// `idempotency_response_not_stored`. For streams, which would otherwise be held back until they end.
///
/// ```
/// let mut response = http::Response::new("line after line");
/// response.extensions_mut().insert(oncekey_http::NotStored);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotStored;

impl NotStored {
    /// Whether the content type of a response is one that clients read while it grows. The layer treats such
    /// a response as one that carries this marker.
    pub fn is_meant_by(headers: &HeaderMap) -> bool {
        const STREAMS: [&[u8]; 3] =
            [b"text/event-stream", b"multipart/x-mixed-replace", b"application/grpc-web-text"];
        let Some(content_type) = headers.get(header::CONTENT_TYPE) else { return false };
        STREAMS.iter().any(|stream| {
            let start = content_type.as_bytes().get(..stream.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(stream))
        })
    }
}

/// In the extensions of a response: how long it is replayed before its key is new again, instead of
/// [`Policy::ttl`](crate::Policy::ttl). The time counts from the completion of the operation. Less than a
/// millisecond counts as one millisecond; a retry after that runs the handler again.
///
/// ```
/// use std::time::Duration;
/// let mut response = http::Response::new("a quote, good for an hour");
/// response.extensions_mut().insert(oncekey_http::Ttl(Duration::from_secs(3600)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(pub Duration);

/// How the layer itself answered a request with a key, in the extensions of the response, for access logs and
/// metrics. A response that the handler made for this request has no such marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answered {
    /// With the stored response.
    Replayed,
    /// `idempotency_key_locked`: the first request is still running.
    Locked,
    /// `idempotency_key_mismatch`: the key belongs to another request.
    Mismatched,
    /// `idempotency_outcome_unknown`: an earlier attempt ended without saying how.
    OutcomeUnknown,
    /// `idempotency_response_not_stored`: the operation was completed without a response.
    NotStored,
    /// With another refusal: the key or the body is refused, or the store is unavailable.
    Refused,
}
