//! The end of a claim, decided by the response of the upstream.

use std::time::Duration;

use http::{HeaderMap, HeaderName, response};
use oncekey_http::{NotExecuted, NotStored, OutcomeUnknown, Ttl, http_status_of_grpc};

use crate::config::{Outcome, Outcomes};
use crate::report::metrics;

const OUTCOME: HeaderName = HeaderName::from_static("oncekey-outcome");
const STORE: HeaderName = HeaderName::from_static("oncekey-store");
const TTL: HeaderName = HeaderName::from_static("oncekey-ttl");

/// The longest TTL that an upstream may request, in seconds: a year.
const MAX_TTL: u64 = 31_536_000;

/// The declarations of the upstream about an execution, in its headers `Oncekey-…`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    outcome: Option<Outcome>,
    not_stored: bool,
    ttl: Option<Duration>,
}

impl Said {
    /// Takes these headers out of a response, so that no client sees them. A header that is not understood is
    /// ignored, logged and counted.
    pub(crate) fn take(headers: &mut HeaderMap) -> Self {
        let mut said = Self::default();
        if let Some(value) = take(headers, &OUTCOME) {
            said.outcome = match value.as_deref() {
                Some("executed") => Some(Outcome::Stored),
                Some("not-executed") => Some(Outcome::Freed),
                Some("unknown") => Some(Outcome::Unknown),
                _ => ignored(&OUTCOME),
            };
        }
        if let Some(value) = take(headers, &STORE) {
            said.not_stored = match value.as_deref() {
                Some("no") => true,
                _ => ignored(&STORE).unwrap_or_default(),
            };
        }
        if let Some(value) = take(headers, &TTL) {
            // Rust accepts a sign in a number, but the header has none.
            let digits = value.filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
            said.ttl = match digits.and_then(|digits| digits.parse().ok()) {
                Some(seconds @ 1..=MAX_TTL) => Some(Duration::from_secs(seconds)),
                _ => ignored(&TTL),
            };
        }
        said
    }

    /// Puts the end of the claim, and the treatment of the response, into the extensions for the layer.
    pub(crate) fn apply(self, response: &mut response::Parts, outcomes: &Outcomes) {
        let status = http_status_of_grpc(response).unwrap_or(response.status);
        match self.outcome.unwrap_or_else(|| outcomes.of(status)) {
            Outcome::Freed => {
                response.extensions.insert(NotExecuted);
            }
            Outcome::Stored if self.not_stored || NotStored::is_meant_by(&response.headers) => {
                response.extensions.insert(NotStored);
            }
            Outcome::Unknown => {
                response.extensions.insert(OutcomeUnknown);
            }
            Outcome::Stored => {}
        }
        if let Some(ttl) = self.ttl {
            response.extensions.insert(Ttl(ttl));
        }
    }
}

/// Removes a header and returns its value: `Some(None)` when it is not text or occurs twice.
fn take(headers: &mut HeaderMap, name: &HeaderName) -> Option<Option<String>> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    let one = values.next().is_none();
    let value = value.to_str().ok().filter(|_| one).map(|value| value.trim().to_owned());
    headers.remove(name);
    Some(value)
}

fn ignored<T>(name: &HeaderName) -> Option<T> {
    metrics::ignored(name);
    tracing::warn!(header = %name, "a header of the upstream is not understood and ignored");
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use http::StatusCode;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn rule(status: u16, pairs: &[(&'static str, &'static str)]) -> (Outcome, response::Parts) {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(status).unwrap();
        parts.headers = headers(pairs);
        let said = Said::take(&mut parts.headers);
        said.apply(&mut parts, &Outcomes::default());
        let freed = parts.extensions.get::<NotExecuted>().is_some();
        let unknown = parts.extensions.get::<OutcomeUnknown>().is_some();
        let outcome = match (freed, unknown) {
            (false, false) => Outcome::Stored,
            (true, false) => Outcome::Freed,
            (false, true) => Outcome::Unknown,
            (true, true) => panic!("both freed and unknown"),
        };
        (outcome, parts)
    }

    #[test]
    fn a_status_says_what_becomes_of_the_key() {
        for (statuses, expected) in [
            (&[200, 201, 302, 400, 404, 408, 409, 422, 500, 501, 503, 505][..], Outcome::Stored),
            (&[401, 425, 429], Outcome::Freed),
            (&[502, 504], Outcome::Unknown),
        ] {
            for status in statuses {
                assert_eq!(rule(*status, &[]).0, expected, "{status}");
            }
        }
    }

    #[test]
    fn a_status_of_grpc_counts_as_the_one_of_http_that_says_the_same() {
        for (status, expected) in [
            ("0", Outcome::Stored),
            ("3", Outcome::Stored),
            ("16", Outcome::Freed),
            ("8", Outcome::Freed),
            ("4", Outcome::Unknown),
            ("14", Outcome::Stored),
        ] {
            let call = [("content-type", "application/grpc"), ("grpc-status", status)];
            assert_eq!(rule(200, &call).0, expected, "{status}");
            assert_eq!(rule(200, &[("grpc-status", status)]).0, Outcome::Stored, "{status}");
        }
    }

    #[test]
    fn the_word_of_the_upstream_stands_above_its_status() {
        for status in [201, 401, 429, 500, 502, 503] {
            for (word, expected) in [
                ("executed", Outcome::Stored),
                ("not-executed", Outcome::Freed),
                ("unknown", Outcome::Unknown),
            ] {
                let (outcome, parts) = rule(status, &[("oncekey-outcome", word)]);
                assert_eq!(outcome, expected, "{status} {word}");
                assert!(parts.headers.is_empty());
            }
        }
    }

    #[test]
    fn headers_that_are_not_understood_are_removed_and_ignored() {
        for pair in [
            ("oncekey-outcome", "Executed"),
            ("oncekey-outcome", ""),
            ("oncekey-ttl", "0"),
            ("oncekey-ttl", "31536001"),
            ("oncekey-ttl", "+5"),
            ("oncekey-ttl", "1.5"),
            ("oncekey-store", "yes"),
        ] {
            let (outcome, parts) = rule(201, &[pair]);
            assert_eq!(outcome, Outcome::Stored, "{pair:?}");
            assert!(parts.headers.is_empty() && parts.extensions.is_empty(), "{pair:?}");
        }
        let twice = [("oncekey-ttl", "1"), ("oncekey-ttl", "2")];
        assert_eq!(Said::take(&mut headers(&twice)), Said::default());
    }

    #[test]
    fn streams_and_what_is_not_to_be_stored_are_passed_on() {
        let not_stored = |pairs: &[_]| rule(200, pairs).1.extensions.get::<NotStored>().is_some();
        assert!(not_stored(&[("oncekey-store", "no")]));
        assert!(not_stored(&[("content-type", "Text/Event-Stream; charset=utf-8")]));
        // The layer tells a unary call from a stream.
        assert!(!not_stored(&[("content-type", "application/grpc+proto")]));
        assert!(not_stored(&[("content-type", "application/grpc-web-text")]));
        assert!(!not_stored(&[("content-type", "application/json")]));
        assert!(!not_stored(&[]));
    }

    #[test]
    fn a_ttl_is_up_to_a_year() {
        for seconds in ["1", "31536000"] {
            let (_, parts) = rule(201, &[("oncekey-ttl", seconds)]);
            let expected = Ttl(Duration::from_secs(seconds.parse().unwrap()));
            assert_eq!(parts.extensions.get::<Ttl>(), Some(&expected));
        }
    }
}
