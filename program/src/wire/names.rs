//! Names of headers that only the proxy may write, or only the head of a message may carry.

use http::header::{self, HeaderMap, HeaderName};

use crate::report::metrics;

/// The names that a client's headers and trailers are held against.
pub(crate) struct Names {
    /// Names that `Connection` cannot remove and whose spellings with an underscore are removed:
    /// the headers of keys and of the scope.
    pub(crate) ours: Vec<HeaderName>,
    /// Whether `Forwarded` and `X-Forwarded-*` are written here; else they pass as they came.
    pub(crate) forwarded: bool,
}

impl Names {
    /// Removes what would be taken for a header of the proxy: `Oncekey-*`, and names that a server
    /// which reads `_` as `-` takes for others.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        let stripped = remove(headers, |name| self.is_forged(name));
        if stripped > 0 {
            metrics::stripped(stripped);
        }
    }

    /// Removes from the trailers of a request what only its head may say, or the proxy: servers merge
    /// trailers into the head.
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

/// Whether a header says how a request came to the proxy.
pub(super) fn is_forwarded(name: &HeaderName) -> bool {
    *name == header::FORWARDED || name.as_str().starts_with("x-forwarded-")
}

/// Removes from the trailers of a response what an upstream says to the proxy.
pub(super) fn clean_response_trailers(trailers: &mut HeaderMap) {
    remove(trailers, |name| name.as_str().starts_with("oncekey-"));
}

/// Removes headers by their names, and tells how many names.
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
