//! Refusals of the layer: problem documents of RFC 9457, Stripe's error objects, gRPC statuses.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::contract::{Contract, Refusals, Statuses};
use crate::grpc;
use crate::key::InvalidKey;
use crate::markers::Answered;

/// Why the layer answers a request instead of the handler.
#[derive(Clone, Debug)]
pub(crate) enum Rejection {
    InvalidKey(InvalidKey),
    /// The engine refused the input, for instance a scope that is too long. Holds the engine's message.
    InvalidInput(String),
    /// Holds the name of the preferred header.
    MissingKey(Option<HeaderName>),
    /// Over the limit of this layer, or over the unknown limit of a layer outside (`None`).
    BodyTooLarge(Option<usize>),
    BodyUnreadable,
    /// No data came for longer than the limit.
    BodyTimeout,
    Locked {
        retry_after: Duration,
    },
    Mismatch {
        parts: Vec<String>,
    },
    OutcomeUnknown,
    ResponseNotStored,
    StoreUnavailable,
    HandlerNotStarted,
    /// The bodies of all requests together take the whole budget.
    BodiesOverBudget,
}

impl Rejection {
    fn status(&self, statuses: &Statuses) -> StatusCode {
        match self {
            Self::InvalidKey(_) | Self::InvalidInput(_) => statuses.key_invalid,
            Self::MissingKey(_) => statuses.key_missing,
            Self::BodyTooLarge(_) => statuses.body_too_large,
            Self::BodyUnreadable => statuses.body_unreadable,
            Self::BodyTimeout => statuses.body_timeout,
            Self::Locked { .. } => statuses.locked,
            Self::Mismatch { .. } => statuses.mismatch,
            Self::OutcomeUnknown => statuses.outcome_unknown,
            Self::ResponseNotStored => statuses.response_not_stored,
            Self::StoreUnavailable => statuses.store_unavailable,
            Self::HandlerNotStarted | Self::BodiesOverBudget => statuses.overloaded,
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::InvalidKey(_) | Self::InvalidInput(_) => "idempotency_key_invalid",
            Self::MissingKey(_) => "idempotency_key_missing",
            Self::BodyTooLarge(_) => "idempotency_body_too_large",
            Self::BodyUnreadable => "idempotency_body_unreadable",
            Self::BodyTimeout => "idempotency_body_timeout",
            Self::Locked { .. } => "idempotency_key_locked",
            Self::Mismatch { .. } => "idempotency_key_mismatch",
            Self::OutcomeUnknown => "idempotency_outcome_unknown",
            Self::ResponseNotStored => "idempotency_response_not_stored",
            Self::StoreUnavailable => "idempotency_store_unavailable",
            Self::HandlerNotStarted | Self::BodiesOverBudget => "idempotency_overloaded",
        }
    }

    fn answered(&self) -> Answered {
        match self {
            Self::Locked { .. } => Answered::Locked,
            Self::Mismatch { .. } => Answered::Mismatched,
            Self::OutcomeUnknown => Answered::OutcomeUnknown,
            Self::ResponseNotStored => Answered::NotStored,
            _ => Answered::Refused,
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::InvalidKey(reason) => format!("The idempotency key is refused: {reason}."),
            Self::InvalidInput(reason) => format!("The request is refused: {reason}."),
            Self::MissingKey(None) => "This operation needs an idempotency key.".to_owned(),
            Self::MissingKey(Some(header)) => {
                format!("This operation needs an idempotency key in the header {header}.")
            }
            Self::BodyTooLarge(Some(limit)) => {
                format!("The request body has more than {limit} bytes. The key was not used.")
            }
            Self::BodyTooLarge(None) => {
                "The request body is too large. The key was not used.".to_owned()
            }
            Self::BodyUnreadable => {
                "The request body ended before it was complete. The key was not used.".to_owned()
            }
            Self::BodyTimeout => {
                "The request body did not arrive in time. The key was not used.".to_owned()
            }
            Self::Locked { .. } => {
                "A request with this idempotency key is being executed. Try again later.".to_owned()
            }
            Self::Mismatch { parts } => format!(
                "This idempotency key was used with another request. Different: {}.",
                parts.join(", ")
            ),
            Self::OutcomeUnknown => "An earlier attempt with this idempotency key ended without \
                saying how. It may or may not have had its effect."
                .to_owned(),
            Self::ResponseNotStored => "The operation was completed, but its response was not \
                stored. It is not executed again."
                .to_owned(),
            Self::BodiesOverBudget => {
                "The server holds as many request bodies as it can. The key was not used. Try again later."
                    .to_owned()
            }
            Self::HandlerNotStarted => {
                "The server could not start the operation. This request was not executed.".to_owned()
            }
            Self::StoreUnavailable => {
                "The idempotency store is unavailable. This request was not executed.".to_owned()
            }
        }
    }

    fn retry_after(&self) -> Option<HeaderValue> {
        let overloaded = matches!(self, Self::HandlerNotStarted | Self::BodiesOverBudget);
        let passes = matches!(self, Self::Locked { .. } | Self::StoreUnavailable);
        (overloaded || passes).then_some(HeaderValue::from_static("1"))
    }

    /// The `type` of Stripe's error object. Source: <https://docs.stripe.com/api/errors>.
    fn stripe_type(&self) -> &'static str {
        match self {
            Self::InvalidKey(_)
            | Self::InvalidInput(_)
            | Self::MissingKey(_)
            | Self::BodyTooLarge(_)
            | Self::BodyUnreadable
            | Self::BodyTimeout => "invalid_request_error",
            Self::Locked { .. }
            | Self::Mismatch { .. }
            | Self::OutcomeUnknown
            | Self::ResponseNotStored => "idempotency_error",
            Self::StoreUnavailable | Self::HandlerNotStarted | Self::BodiesOverBudget => {
                "api_error"
            }
        }
    }

    fn stripe_error(&self, contract: &Contract) -> String {
        let code = match self {
            // Source: <https://docs.stripe.com/error-codes>.
            Self::Locked { .. } => "idempotency_key_in_use",
            _ => self.code(),
        };
        let mut json = format!(
            "{{\"error\":{{\"type\":\"{}\",\"code\":\"{code}\",\"message\":",
            self.stripe_type()
        );
        push_string(&mut json, &self.detail());
        if let Some(url) = &contract.documentation {
            json.push_str(",\"doc_url\":");
            push_string(&mut json, url);
        }
        json.push_str("}}");
        json
    }

    fn problem_document(&self, contract: &Contract) -> String {
        let status = self.status(&contract.statuses);
        let mut json = String::from("{\"type\":");
        push_string(&mut json, contract.documentation.as_deref().unwrap_or("about:blank"));
        json.push_str(",\"title\":");
        push_string(&mut json, status.canonical_reason().unwrap_or_default());
        // Writing into a String cannot fail.
        let _ = write!(json, ",\"status\":{},\"code\":\"{}\"", status.as_u16(), self.code());
        json.push_str(",\"detail\":");
        push_string(&mut json, &self.detail());
        match self {
            Self::Locked { retry_after } => {
                let _ = write!(json, ",\"retryAfterMs\":{}", retry_after.as_millis());
            }
            Self::Mismatch { parts } => {
                json.push_str(",\"parts\":[");
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        json.push(',');
                    }
                    push_string(&mut json, part);
                }
                json.push(']');
            }
            _ => {}
        }
        json.push('}');
        json
    }

    /// Status, headers and body, in the form that `call` and the contract ask for.
    pub(crate) fn render(&self, contract: &Contract, call: &Call) -> Response<Bytes> {
        if let Call::Grpc(content_type) = call {
            let mut response = self.grpc_status(content_type.clone());
            response.extensions_mut().insert(self.answered());
            return response;
        }
        let (content_type, body) = match contract.refusals {
            Refusals::ProblemDocuments => {
                ("application/problem+json", self.problem_document(contract))
            }
            Refusals::StripeErrors => ("application/json", self.stripe_error(contract)),
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status(&contract.statuses);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let retry_after = self.retry_after();
        if contract.refusals == Refusals::StripeErrors {
            // Stripe's clients retry every 409 and 5xx that does not forbid it.
            let retry = if retry_after.is_some() { "true" } else { "false" };
            headers.insert("stripe-should-retry", HeaderValue::from_static(retry));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds);
        }
        response.extensions_mut().insert(self.answered());
        response
    }

    fn grpc_code(&self) -> grpc::Code {
        match self {
            Self::InvalidKey(_)
            | Self::InvalidInput(_)
            | Self::MissingKey(_)
            | Self::BodyUnreadable => grpc::Code::InvalidArgument,
            Self::BodyTimeout => grpc::Code::DeadlineExceeded,
            Self::BodyTooLarge(_) => grpc::Code::ResourceExhausted,
            Self::Locked { .. } => grpc::Code::Aborted,
            Self::Mismatch { .. } => grpc::Code::AlreadyExists,
            Self::OutcomeUnknown | Self::ResponseNotStored => grpc::Code::FailedPrecondition,
            Self::StoreUnavailable | Self::HandlerNotStarted | Self::BodiesOverBudget => {
                grpc::Code::Unavailable
            }
        }
    }

    /// A call that ends without a message has its status among the headers.
    fn grpc_status(&self, content_type: HeaderValue) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(grpc::STATUS, HeaderValue::from(self.grpc_code() as u16));
        let message = format!("{}: {}", self.code(), self.detail());
        headers.insert(grpc::MESSAGE, grpc::percent_encoded(&message));
        let pushback = match self {
            Self::Locked { retry_after } => u64::try_from(retry_after.as_millis()).ok(),
            _ => self.retry_after().map(|_| 1000),
        };
        if let Some(millis) = pushback {
            headers.insert(grpc::RETRY_PUSHBACK, HeaderValue::from(millis));
        }
        response
    }
}

/// The form of answer that the caller expects.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// As the contract says.
    Plain,
    /// A gRPC status, with the content type of the call.
    Grpc(HeaderValue),
}

impl Call {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        match headers.get(header::CONTENT_TYPE) {
            Some(content_type) if grpc::is_grpc(headers) => Self::Grpc(content_type.clone()),
            _ => Self::Plain,
        }
    }
}

/// Appends a JSON string. Source: RFC 8259, section 7.
fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(rejection: &Rejection) -> serde_json::Value {
        serde_json::from_str(&rejection.problem_document(&Contract::default())).unwrap()
    }

    #[test]
    fn a_problem_document_has_the_members_of_rfc_9457_and_a_code() {
        let problem = json(&Rejection::OutcomeUnknown);
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["title"], "Conflict");
        assert_eq!(problem["status"], 409);
        assert_eq!(problem["code"], "idempotency_outcome_unknown");
        assert!(problem["detail"].as_str().unwrap().contains("may or may not"));
    }

    #[test]
    fn labels_and_reasons_are_escaped() {
        let parts = vec!["header \"x\\y\"".to_owned(), "line\nbreak\u{1}".to_owned()];
        let problem = json(&Rejection::Mismatch { parts: parts.clone() });
        assert_eq!(problem["parts"], serde_json::json!(parts));
        let problem = json(&Rejection::InvalidInput("quote \" end".to_owned()));
        assert_eq!(problem["detail"], "The request is refused: quote \" end.");
    }

    #[test]
    fn only_what_may_pass_by_itself_says_when_to_retry() {
        let locked = Rejection::Locked { retry_after: Duration::from_millis(250) };
        assert_eq!(json(&locked)["retryAfterMs"], 250);
        for (rejection, expected) in [
            (locked, true),
            (Rejection::StoreUnavailable, true),
            (Rejection::HandlerNotStarted, true),
            (Rejection::BodiesOverBudget, true),
            (Rejection::BodyTimeout, false),
            (Rejection::OutcomeUnknown, false),
            (Rejection::ResponseNotStored, false),
        ] {
            let response = rejection.render(&Contract::default(), &Call::Plain);
            assert_eq!(response.headers().contains_key("retry-after"), expected);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            assert!(!response.headers().contains_key("stripe-should-retry"));
            let response = rejection.render(&Contract::stripe(), &Call::Plain);
            assert_eq!(response.headers().contains_key("retry-after"), expected);
            assert_eq!(response.headers()["stripe-should-retry"], expected.to_string());
            let error: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert!(error["error"]["type"].is_string(), "{error}");
            let grpc = Call::Grpc(HeaderValue::from_static("application/grpc+proto"));
            let response = rejection.render(&Contract::default(), &grpc);
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers().contains_key("grpc-retry-pushback-ms"), expected);
            assert!(
                response.headers()["grpc-message"].to_str().unwrap().contains(rejection.code())
            );
        }
    }

    #[test]
    fn the_stripe_preset_speaks_stripes_error_objects() {
        let mut contract = Contract::stripe();
        let error = |rejection: &Rejection, contract: &Contract| -> serde_json::Value {
            serde_json::from_slice(rejection.render(contract, &Call::Plain).body()).unwrap()
        };
        let locked = Rejection::Locked { retry_after: Duration::from_millis(250) };
        let said = error(&locked, &contract);
        assert_eq!(said["error"]["type"], "idempotency_error");
        assert_eq!(said["error"]["code"], "idempotency_key_in_use");
        assert!(said["error"].get("doc_url").is_none());
        contract.documentation = Some("https://example.org/\"keys\"".to_owned());
        let said = error(&Rejection::MissingKey(None), &contract);
        assert_eq!(said["error"]["type"], "invalid_request_error");
        assert_eq!(said["error"]["code"], "idempotency_key_missing");
        assert_eq!(said["error"]["doc_url"], "https://example.org/\"keys\"");
    }
}
