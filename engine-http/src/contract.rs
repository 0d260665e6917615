//! The contract as clients see it: names, statuses, the form of keys.

use http::{HeaderName, HeaderValue, Method, StatusCode};

/// The contract as clients see it: how a client sends a key, and how it is refused. One value serves a whole
/// API, while a [`Policy`](crate::Policy) is about a route.
///
/// There are three presets, and their fields can be changed. `docs/http.md` compares them, with sources.
///
/// ```
/// use oncekey_http::Contract;
/// let mut contract = Contract::ietf();
/// contract.documentation = Some("https://example.org/idempotency".to_owned());
/// contract.statuses.locked = http::StatusCode::TOO_EARLY;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contract {
    /// The request headers that may carry the key. A request that sends more than one key in them is refused.
    /// Refusals name the first header.
    pub headers: Vec<HeaderName>,
    /// The forms of a key that are accepted.
    pub key_form: KeyForm,
    /// The methods that take part.
    pub methods: Methods,
    /// The status of each refusal.
    pub statuses: Statuses,
    /// The form of the bodies of refusals.
    pub refusals: Refusals,
    /// A header that replayed responses carry and first responses do not. It replaces a stored header of the
    /// same name. `None`: a replay has exactly the headers of the first response.
    pub replay_marker: Option<(HeaderName, HeaderValue)>,
    /// A URL that explains keys to the developers of clients: the `type` of problem documents, the `doc_url`
    /// of Stripe's errors. `None`: the type is `about:blank`, and there is no `doc_url`.
    pub documentation: Option<String>,
}

/// How a key is written in its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyForm {
    /// The value of the header is the key, quotes and all.
    #[default]
    Verbatim,
    /// A value that begins with a double quote is a String of RFC 8941, section 3.3.3, and the key is the
    /// content of that string: `"k"` and `k` are the same key. Every other value is the key itself.
    StringOrVerbatim,
}

/// How the body of a refusal is written. A gRPC call is always refused with a gRPC status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusals {
    /// `application/problem+json` (RFC 9457) with the code in the member `code`.
    #[default]
    ProblemDocuments,
    /// Stripe's error objects, `{"error": {"type": …, "code": …, "message": …}}`, with the header
    /// `Stripe-Should-Retry`. The code of *locked* is Stripe's `idempotency_key_in_use`; all other codes are
    /// those of the problem documents.
    StripeErrors,
}

/// Which methods take part. A request with another method passes through, and its key is ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Methods {
    /// Every method but CONNECT and the safe ones: GET, HEAD, OPTIONS, TRACE.
    #[default]
    Unsafe,
    /// These methods, without CONNECT and the safe ones among them.
    Only(Vec<Method>),
}

impl Methods {
    /// Whether a request with this method takes part.
    #[doc(hidden)]
    pub fn contain(&self, method: &Method) -> bool {
        // The answer to CONNECT is a tunnel, which no store can replay.
        !method.is_safe()
            && method != Method::CONNECT
            && match self {
                Self::Unsafe => true,
                Self::Only(methods) => methods.contains(method),
            }
    }
}

/// The status of each refusal. The `code` of its problem document stays the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statuses {
    /// `idempotency_key_invalid`: 400.
    pub key_invalid: StatusCode,
    /// `idempotency_key_missing`: 400.
    pub key_missing: StatusCode,
    /// `idempotency_body_too_large`: 413.
    pub body_too_large: StatusCode,
    /// `idempotency_body_unreadable`: 400.
    pub body_unreadable: StatusCode,
    /// `idempotency_body_timeout`: 408.
    pub body_timeout: StatusCode,
    /// `idempotency_key_locked`: 409.
    pub locked: StatusCode,
    /// `idempotency_key_mismatch`: 409; 422 in [`Contract::ietf`], 400 in [`Contract::stripe`].
    pub mismatch: StatusCode,
    /// `idempotency_outcome_unknown`: 409.
    pub outcome_unknown: StatusCode,
    /// `idempotency_response_not_stored`: 409.
    pub response_not_stored: StatusCode,
    /// `idempotency_store_unavailable`: 503.
    pub store_unavailable: StatusCode,
    /// `idempotency_overloaded`: 503.
    pub overloaded: StatusCode,
}

impl Default for Statuses {
    fn default() -> Self {
        Self {
            key_invalid: StatusCode::BAD_REQUEST,
            key_missing: StatusCode::BAD_REQUEST,
            body_too_large: StatusCode::PAYLOAD_TOO_LARGE,
            body_unreadable: StatusCode::BAD_REQUEST,
            body_timeout: StatusCode::REQUEST_TIMEOUT,
            locked: StatusCode::CONFLICT,
            mismatch: StatusCode::CONFLICT,
            outcome_unknown: StatusCode::CONFLICT,
            response_not_stored: StatusCode::CONFLICT,
            store_unavailable: StatusCode::SERVICE_UNAVAILABLE,
            overloaded: StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The header `X-Idempotency-Key` or `Idempotency-Key`, its value verbatim; every conflict is 409; replays carry no
/// marker.
impl Default for Contract {
    fn default() -> Self {
        Self {
            headers: vec![X_IDEMPOTENCY_KEY, IDEMPOTENCY_KEY],
            key_form: KeyForm::default(),
            methods: Methods::default(),
            statuses: Statuses::default(),
            refusals: Refusals::default(),
            replay_marker: None,
            documentation: None,
        }
    }
}

/// The older name of the header. Every preset accepts both names: a client that uses the other name must not
/// silently run twice.
const X_IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");

/// `Idempotency-Key`, the name that the IETF draft and Stripe share.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl Contract {
    /// The contract of the draft `draft-ietf-httpapi-idempotency-key-header`: `Idempotency-Key` with quoted
    /// strings (bare keys are accepted too), 400 when a required key is missing, 409 while the first request
    /// runs, 422 for another request.
    ///
    /// The draft asks refusals to link to documentation: set [`documentation`](Self::documentation).
    pub fn ietf() -> Self {
        let statuses =
            Statuses { mismatch: StatusCode::UNPROCESSABLE_ENTITY, ..Statuses::default() };
        Self {
            headers: vec![IDEMPOTENCY_KEY, X_IDEMPOTENCY_KEY],
            key_form: KeyForm::StringOrVerbatim,
            statuses,
            ..Self::default()
        }
    }

    /// The contract of Stripe's API, version 1: `Idempotency-Key` on POST alone, 409 while the first request
    /// runs, 400 for another request, `Idempotent-Replayed: true` on replays, and refusals as Stripe's error
    /// objects, so that Stripe's clients retry and raise errors as they do at Stripe.
    pub fn stripe() -> Self {
        let marker = HeaderName::from_static("idempotent-replayed");
        Self {
            headers: vec![IDEMPOTENCY_KEY, X_IDEMPOTENCY_KEY],
            methods: Methods::Only(vec![Method::POST]),
            statuses: Statuses { mismatch: StatusCode::BAD_REQUEST, ..Statuses::default() },
            refusals: Refusals::StripeErrors,
            replay_marker: Some((marker, HeaderValue::from_static("true"))),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_methods_never_take_part() {
        let asked_for = Methods::Only(vec![Method::GET, Method::POST]);
        for (methods, method, expected) in [
            (Methods::Unsafe, Method::POST, true),
            (Methods::Unsafe, Method::DELETE, true),
            (Methods::Unsafe, Method::GET, false),
            (Methods::Unsafe, Method::CONNECT, false),
            (asked_for.clone(), Method::POST, true),
            (asked_for.clone(), Method::PUT, false),
            (asked_for, Method::GET, false),
        ] {
            assert_eq!(methods.contain(&method), expected, "{methods:?} {method}");
        }
    }
}
