//! Header names that only the proxy may write, or that only the head of a message may carry.

use http::header::{self, HeaderMap, HeaderName};

use crate::report::metrics;

/// The names with which the headers and trailers of a client are compared.
pub(crate) struct Names {
    /// The headers of keys and of the scope. `Connection` cannot remove them, and their spellings with an
    /// underscore are removed.
    pub(crate) ours: Vec<HeaderName>,
    /// Whether the proxy writes `Forwarded` and `X-Forwarded-*`. If not, they pass unchanged.
    pub(crate) forwarded: bool,
}

impl Names {
    /// Removes headers that could be mistaken for the proxy's: `Oncekey-*`, and names that become others in a
    /// server that reads `_` as `-`.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        let stripped = remove(headers, |name| self.is_forged(name));
        if stripped > 0 {
            metrics::stripped(stripped);
        }
    }

    /// Removes fields from the trailers of a request that only its head, or the proxy, may set: some servers
    /// merge trailers into the head.
    pub(super) fn clean_trailers(&self, trailers: &mut HeaderMap) {
        self.strip(trailers);
        remove(trailers, |name| self.ours.contains(name) || (self.forwarded && is_forwarded(name)));
    }

    fn is_forged(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        if !name.contains('_') {
            return name.starts_with("oncekey-");
        }
        let dashed = name.replace('_', "-");
        dashed.starts_with("oncekey-")
            || (self.forwarded && dashed.starts_with("x-forwarded-"))
            || (self.forwarded && dashed == "forwarded")
            || [header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
                .iter()
                .chain(&self.ours)
                .any(|name| name.as_str() == dashed)
    }
}

/// Whether a header describes how a request came to the proxy.
pub(super) fn is_forwarded(name: &HeaderName) -> bool {
    *name == header::FORWARDED || name.as_str().starts_with("x-forwarded-")
}

/// Removes fields from the trailers of a response that an upstream addresses to the proxy.
pub(super) fn clean_response_trailers(trailers: &mut HeaderMap) {
    remove(trailers, |name| name.as_str().starts_with("oncekey-"));
}

/// Removes the headers with unwanted names. Returns the number of these names.
fn remove(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) -> usize {
    let names: Vec<_> = headers.keys().filter(|name| is_unwanted(name)).cloned().collect();
    for name in &names {
        headers.remove(name);
    }
    names.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn trailers_say_nothing_that_belongs_to_the_head() {
        let sent = ["oncekey-attempt", "oncekey_token", "idempotency-key", "forwarded", "x-sum"];
        let pair = |name| (HeaderName::from_static(name), HeaderValue::from_static("1"));
        let mut trailers: HeaderMap = sent.into_iter().map(pair).collect();
        let mut answered = trailers.clone();
        let ours = vec![HeaderName::from_static("idempotency-key")];
        Names { ours, forwarded: true }.clean_trailers(&mut trailers);
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-sum"]);
        clean_response_trailers(&mut answered);
        assert!(!answered.contains_key("oncekey-attempt") && answered.len() == 4);
    }
}
