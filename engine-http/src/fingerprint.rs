//! The fingerprint of a request: the engine's rule over the types of `http`.

use std::borrow::Cow;

use http::HeaderName;
use http::Uri;
use http::request::Parts;
use oncekey::{Fingerprint, FingerprintedHeaders, HttpRequest};

/// The set of headers that count.
///
/// # Panics
/// When there are more headers than a fingerprint has parts.
pub(crate) fn counted(names: impl IntoIterator<Item = HeaderName>) -> FingerprintedHeaders {
    match FingerprintedHeaders::new(names.into_iter().map(|name| name.as_str().to_owned())) {
        Ok(headers) => headers,
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn of(request: &Parts, body: &[u8], counted: &FingerprintedHeaders) -> Fingerprint {
    let uri = original(request);
    let mut target = Cow::Borrowed(uri.path_and_query().map_or("", |target| target.as_str()));
    if !is_rest_of(uri, &request.uri) {
        // A handler handed the parts of its own request on, with another URI. No URI contains a space.
        target = format!("{target} {}", request.uri).into();
    }
    let http_request = HttpRequest {
        method: request.method.as_str().as_bytes(),
        target: target.as_bytes(),
        authority: uri.authority().map(|authority| authority.as_str().as_bytes()),
        body,
    };
    // A look-up by a name in text parses and hashes the name. A walk over the headers of a usual request
    // costs less.
    Fingerprint::of_http(http_request, counted, |name| {
        let named = request.headers.iter().filter(move |(other, _)| other.as_str() == name);
        named.map(|(_, value)| value.as_bytes())
    })
}

/// Whether `uri` is `original`, or all that a nested router leaves of it: the end of its path, with its query.
fn is_rest_of(original: &Uri, uri: &Uri) -> bool {
    std::ptr::eq(original, uri)
        || (original.path().ends_with(uri.path()) || uri.path() == "/")
            && original.query() == uri.query()
            && original.authority() == uri.authority()
}

/// The URI of a request as the client sent it. A router of axum strips the prefix of a nested route from the
/// URI, which would make two mounts look alike, and keeps the original in the extensions.
#[cfg(feature = "axum")]
fn original(request: &Parts) -> &Uri {
    use axum::extract::OriginalUri;
    request.extensions.get::<OriginalUri>().map_or(&request.uri, |OriginalUri(uri)| uri)
}

#[cfg(not(feature = "axum"))]
fn original(request: &Parts) -> &Uri {
    &request.uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn of_target(target: &str, headers: &[(&str, &str)]) -> Fingerprint {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        of(&parts, b"{}", &FingerprintedHeaders::default())
    }

    #[test]
    fn it_is_made_of_the_parts_of_the_request() {
        let headers =
            [("X-Api-Key", "k"), ("content-type", "a"), ("accept", "x"), ("content-type", "b")];
        let expected = Fingerprint::builder()
            .part("method", "POST")
            .part("target", "/orders?b=1&a=%20")
            .part("header content-type", "a\0b")
            .part("header x-api-key", "k")
            .part("body", "{}")
            .finish();
        assert_eq!(of_target("/orders?b=1&a=%20", &headers), expected);
    }

    /// A target of HTTP/2 has an authority; a target of HTTP/1.1 usually has none.
    #[test]
    fn the_authority_is_that_of_the_target_else_of_host() {
        let over_http_1 = of_target("/o?q", &[("host", "A.example:80")]);
        assert_eq!(of_target("http://a.example/o?q", &[]), over_http_1);
        assert_eq!(of_target("https://a.example:443/o?q", &[("host", "b.example")]), over_http_1);
        assert_ne!(of_target("/o?q", &[("host", "b.example")]), over_http_1);
        assert_ne!(of_target("/o?q", &[]), over_http_1);
        assert_eq!(of_target("http://a.example?q", &[]), of_target("http://a.example/?q", &[]));
    }

    #[test]
    #[should_panic(expected = "at most 60 headers")]
    fn more_headers_than_parts_are_a_mistake_at_start() {
        counted((0..61).map(|n| HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap()));
    }
}
