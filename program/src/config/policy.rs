//! The rules for the requests of a route.

use std::time::Duration;

use http::{HeaderName, Method};
use oncekey_http::Recovery;

use super::outcomes::Outcomes;
use super::scope::Scope;

/// The default headers of a fingerprint: those of [`oncekey::FingerprintedHeaders`].
const FINGERPRINTED: [&str; 8] = [
    "authorization",
    "content-encoding",
    "content-type",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "x-api-key",
    "x-http-method-override",
];

/// The rules for the requests of a route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    pub(crate) keys: bool,
    pub(crate) required: bool,
    pub(crate) recovery: Recovery,
    pub(crate) ttl: Duration,
    pub(crate) wait: Duration,
    pub(crate) scope: Scope,
    /// `None`: the list of the layer, without `authorization` when the scope comes from it.
    pub(crate) fingerprint_headers: Option<Vec<HeaderName>>,
    pub(crate) drop_headers: Vec<HeaderName>,
    pub(crate) max_request_body: usize,
    pub(crate) max_response: usize,
    pub(crate) answer_within: Duration,
    pub(crate) give_up_after: Duration,
    pub(crate) outcomes: Outcomes,
}

#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) path: String,
    /// Empty: every method.
    pub(crate) methods: Vec<Method>,
    pub(crate) policy: Policy,
}

impl Route {
    /// The methods that both routes would take, for a message.
    pub(crate) fn takes_also(&self, other: &Self) -> Option<String> {
        if self.path != other.path {
            return None;
        }
        if self.methods.is_empty() && other.methods.is_empty() {
            return Some("every method".to_owned());
        }
        self.methods.iter().find(|method| other.methods.contains(method)).map(Method::to_string)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            keys: true,
            required: false,
            recovery: Recovery::Hold,
            ttl: Duration::from_secs(24 * 60 * 60),
            wait: Duration::ZERO,
            scope: Scope::None,
            fingerprint_headers: None,
            drop_headers: Vec::new(),
            max_request_body: 2 << 20,
            max_response: 1 << 20,
            answer_within: Duration::from_secs(30),
            give_up_after: Duration::from_secs(600),
            outcomes: Outcomes::default(),
        }
    }
}

impl Policy {
    /// The headers that count for a fingerprint. `authorization` does not count when the scope comes from it:
    /// a token that is refreshed between two tries would make the retry another request.
    pub(crate) fn fingerprinted(&self) -> Vec<HeaderName> {
        if let Some(headers) = &self.fingerprint_headers {
            return headers.clone();
        }
        let counts = |name: &&str| !self.scope.is_credential() || *name != "authorization";
        FINGERPRINTED.iter().copied().filter(counts).map(HeaderName::from_static).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_that_are_printed_are_those_that_count() {
        let names = Policy::default().fingerprinted();
        let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
        let printed = oncekey::FingerprintedHeaders::new(names).unwrap();
        assert_eq!(printed, oncekey::FingerprintedHeaders::default());
    }

    #[test]
    fn the_user_is_no_part_of_the_fingerprint_when_it_is_the_scope() {
        let policy = Policy { scope: Scope::BasicUser, ..Policy::default() };
        assert!(!policy.fingerprinted().contains(&http::header::AUTHORIZATION));
    }
}
