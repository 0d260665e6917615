//! Which parts of a request make it the same request.
//!
//! The parts, in this order, with their labels:
//!
//! - `method`: the method.
//! - `target`: path and query as the client sent them, byte for byte.
//! - `header NAME` for each fingerprinted header that the request has, NAME in lower case, in the
//!   order of the names: its values in order, joined by a NUL byte, which no value contains.
//! - `body`: the body, byte for byte.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderName, Uri, header};
use oncekey::{Fingerprint, MAX_LABEL_LEN, MAX_PARTS};

/// Method, target and body are parts of every fingerprint.
const MAX_HEADERS: usize = MAX_PARTS - 3;

/// The headers that count, by name, with their labels.
#[derive(Clone, Debug)]
pub(crate) struct Fingerprinter {
    headers: Vec<(HeaderName, Cow<'static, str>)>,
}

impl Default for Fingerprinter {
    fn default() -> Self {
        Self {
            headers: vec![
                (header::AUTHORIZATION, "header authorization".into()),
                (header::CONTENT_TYPE, "header content-type".into()),
                (HeaderName::from_static("x-api-key"), "header x-api-key".into()),
            ],
        }
    }
}

impl Fingerprinter {
    /// # Panics
    /// When there are more headers than a fingerprint has parts.
    pub(crate) fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let mut names: Vec<_> = names.into_iter().collect();
        // The order of parts counts for the engine, but must not for whoever configures this.
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        assert!(
            names.len() <= MAX_HEADERS,
            "at most {MAX_HEADERS} headers can be fingerprinted, not {}",
            names.len()
        );
        let label = |name: &HeaderName| {
            let mut label = format!("header {name}");
            // Header names are ASCII; only what a mismatch calls it is cut.
            label.truncate(MAX_LABEL_LEN);
            label.into()
        };
        Self { headers: names.into_iter().map(|name| (name.clone(), label(&name))).collect() }
    }

    pub(crate) fn fingerprint(&self, request: &Parts, body: &[u8]) -> Fingerprint {
        let target = target(request).path_and_query().map_or("", |target| target.as_str());
        let mut builder =
            Fingerprint::builder().part("method", request.method.as_str()).part("target", target);
        for (name, label) in &self.headers {
            let mut values = request.headers.get_all(name).iter();
            let Some(first) = values.next() else { continue };
            let rest = values.flat_map(|value| [&b"\0"[..], value.as_bytes()]);
            let pieces = std::iter::once(first.as_bytes()).chain(rest);
            builder = builder.part_in_pieces(label.clone(), pieces);
        }
        builder.part("body", body).finish()
    }
}

/// A router of axum hands nested routes a URI without the prefix that they are nested under, which
/// would make two mounts look alike, and keeps the original beside it.
#[cfg(feature = "axum")]
fn target(request: &Parts) -> &Uri {
    use axum::extract::OriginalUri;
    request.extensions.get::<OriginalUri>().map_or(&request.uri, |OriginalUri(uri)| uri)
}

#[cfg(not(feature = "axum"))]
fn target(request: &Parts) -> &Uri {
    &request.uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Method, Request};

    fn request(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().method(Method::POST).uri(target);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn of(target: &str, headers: &[(&str, &str)], body: &str) -> Fingerprint {
        Fingerprinter::default().fingerprint(&request(target, headers), body.as_bytes())
    }

    #[test]
    fn it_is_made_of_the_documented_parts() {
        let headers =
            [("X-Api-Key", "k"), ("content-type", "a"), ("accept", "x"), ("content-type", "b")];
        let expected = Fingerprint::builder()
            .part("method", "POST")
            .part("target", "/orders?b=1&a=%20")
            .part("header content-type", "a\0b")
            .part("header x-api-key", "k")
            .part("body", "{}")
            .finish();
        assert_eq!(of("/orders?b=1&a=%20", &headers, "{}"), expected);
        assert_eq!(of("http://example.org/orders?b=1&a=%20", &headers, "{}"), expected);
    }

    #[test]
    fn header_order_and_name_case_do_not_count() {
        let one = of("/", &[("authorization", "a"), ("X-API-KEY", "k"), ("accept", "1")], "");
        let two = of("/", &[("accept", "2"), ("x-api-key", "k"), ("Authorization", "a")], "");
        assert_eq!(one, two);
    }

    #[test]
    fn every_byte_of_a_part_counts() {
        let base = of("/a?b", &[("content-type", "t")], "body");
        for other in [
            of("/a?B", &[("content-type", "t")], "body"),
            of("/a", &[("content-type", "t")], "body"),
            of("/%61?b", &[("content-type", "t")], "body"),
            of("/a?b", &[("content-type", "T")], "body"),
            of("/a?b", &[("content-type", "")], "body"),
            of("/a?b", &[], "body"),
            of("/a?b", &[("content-type", "t"), ("content-type", "t")], "body"),
            of("/a?b", &[("content-type", "t")], "body "),
        ] {
            assert_ne!(other, base);
        }
        let mut put = request("/a?b", &[("content-type", "t")]);
        put.method = Method::PUT;
        assert_ne!(Fingerprinter::default().fingerprint(&put, b"body"), base);
    }

    #[test]
    fn headers_can_be_chosen_in_any_order() {
        let names = ["x-b", "x-a", "x-b"].map(HeaderName::from_static);
        let reversed = ["x-a", "x-b"].map(HeaderName::from_static);
        let request = request("/", &[("x-b", "2"), ("x-a", "1"), ("authorization", "ignored")]);
        let expected = Fingerprint::builder()
            .part("method", "POST")
            .part("target", "/")
            .part("header x-a", "1")
            .part("header x-b", "2")
            .part("body", "")
            .finish();
        assert_eq!(Fingerprinter::new(names).fingerprint(&request, b""), expected);
        assert_eq!(Fingerprinter::new(reversed).fingerprint(&request, b""), expected);
    }

    #[test]
    #[should_panic(expected = "at most 61 headers")]
    fn more_headers_than_parts_are_a_mistake_at_start() {
        let many = (0..62).map(|n| HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap());
        Fingerprinter::new(many);
    }

    #[test]
    fn a_header_name_of_any_length_can_be_fingerprinted() {
        let long = HeaderName::from_bytes(&[b'x'; 500]).unwrap();
        let mut parts = request("/", &[]);
        parts.headers.insert(long.clone(), HeaderValue::from_static("1"));
        let fingerprint = Fingerprinter::new([long]).fingerprint(&parts, b"");
        let label = format!("header {}", "x".repeat(121));
        assert_eq!(
            fingerprint,
            Fingerprint::builder()
                .part("method", "POST")
                .part("target", "/")
                .part(label, "1")
                .part("body", "")
                .finish()
        );
    }
}
