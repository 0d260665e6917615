//! What makes two HTTP requests the same request: the one rule of the Rust layer and the C interface.
//!
//! The parts, in this order, with their labels:
//!
//! - `method`: the method, byte for byte.
//! - `target`: path and query, byte for byte, without a fragment. An empty path is `/`.
//! - `authority`: host and port, normalized, when the request has one.
//! - `header NAME` for each header that counts and that the request has, NAME in lower case, in the
//!   order of the names: its values in order, each without the blanks around it, joined by a NUL
//!   byte, which no value contains.
//! - `body`: the body, byte for byte.

use std::borrow::Cow;
use std::fmt;

use crate::base::bytes::Hidden;
use crate::base::error::{Error, Result};
use crate::semantics::fingerprint::{Fingerprint, FingerprintBuilder, MAX_LABEL_LEN, MAX_PARTS};

/// The most headers that can count. Method, target, authority and body are parts of their own.
pub const MAX_FINGERPRINTED_HEADERS: usize = MAX_PARTS - 4;

/// The first capacity of the buffer of parts, in bytes. Few requests exceed it; a buffer that grows
/// is copied each time.
const TYPICAL_BYTES: usize = 512;

/// The headers that count unless the caller says otherwise, sorted, with their labels.
const DEFAULT: [(&str, &str); 8] = [
    ("authorization", "header authorization"),
    ("content-encoding", "header content-encoding"),
    ("content-type", "header content-type"),
    ("if-match", "header if-match"),
    ("if-none-match", "header if-none-match"),
    ("if-unmodified-since", "header if-unmodified-since"),
    ("x-api-key", "header x-api-key"),
    ("x-http-method-override", "header x-http-method-override"),
];

/// The headers of an HTTP request that count in its [`Fingerprint`].
///
/// The default is those that change the meaning of a request: Authorization, Content-Encoding,
/// Content-Type, If-Match, If-None-Match, If-Unmodified-Since, X-API-Key and
/// X-HTTP-Method-Override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintedHeaders {
    /// Names in lower case, sorted, each once, with their labels.
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
}

impl Default for FingerprintedHeaders {
    fn default() -> Self {
        let headers = DEFAULT.map(|(name, label)| (name.into(), label.into()));
        Self { headers: headers.into() }
    }
}

impl FingerprintedHeaders {
    /// These headers and no others, in any order and case. `Host` is left out, since the authority
    /// is a part of every fingerprint.
    ///
    /// # Errors
    /// `InvalidInput` with more than [`MAX_FINGERPRINTED_HEADERS`] names, or when one is not ASCII.
    pub fn new<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Result<Self> {
        let mut names: Vec<_> =
            names.into_iter().map(|name| name.as_ref().to_ascii_lowercase()).collect();
        if !names.iter().all(|name| name.is_ascii()) {
            return Err(Error::invalid("a header name is not ASCII"));
        }
        names.retain(|name| name != "host");
        // The order of parts counts, but must not depend on the order of the caller's list.
        names.sort();
        names.dedup();
        if names.len() > MAX_FINGERPRINTED_HEADERS {
            return Err(Error::invalid(format!(
                "at most {MAX_FINGERPRINTED_HEADERS} headers can be fingerprinted, not {}",
                names.len()
            )));
        }
        let labelled = names.into_iter().map(|name| {
            let mut label = format!("header {name}");
            // Names are ASCII, so a cut at any byte is valid. Only the label in a mismatch is cut.
            label.truncate(MAX_LABEL_LEN);
            (name.into(), label.into())
        });
        Ok(Self { headers: labelled.collect() })
    }
}

/// An HTTP request without its headers, for [`Fingerprint::of_http`].
#[derive(Clone, Copy)]
pub struct HttpRequest<'a> {
    /// The method, such as `POST`.
    pub method: &'a [u8],
    /// The target in any form of RFC 9112, section 3.2: path and query, or an absolute URL.
    pub target: &'a [u8],
    /// `:authority` of HTTP/2 and 3, unless the target has it. It takes precedence over `Host`.
    pub authority: Option<&'a [u8]>,
    /// The whole body.
    pub body: &'a [u8],
}

/// Prints lengths: a target may hold secrets as well as a body.
impl fmt::Debug for HttpRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &Hidden(self.method))
            .field("target", &Hidden(self.target))
            .field("authority", &self.authority.map(Hidden))
            .field("body", &Hidden(self.body))
            .finish()
    }
}

impl Fingerprint {
    /// The fingerprint of an HTTP request. Two requests are identical when method, target,
    /// authority, the counted headers and the body are.
    ///
    /// `values` returns the values of the header with a name, in the order in which they were sent.
    /// The name is in lower case; `host` is one of the names.
    ///
    /// Blanks (space and tab) around a value do not count. The host of the authority counts in
    /// lower case. An empty port, 80 and 443 do not count, because a server often does not know the
    /// scheme; the scheme is no part of the fingerprint either. The target's own authority takes
    /// precedence over `authority`, and `authority` over `Host` (RFC 9112, section 3.2.2; RFC 9113,
    /// section 8.3.1). An empty authority is the same as none.
    ///
    /// ```
    /// use oncekey::{Fingerprint, FingerprintedHeaders, HttpRequest};
    /// let headers = [("host", "api.example"), ("content-type", "text/plain")];
    /// let request =
    ///     HttpRequest { method: b"POST", target: b"/orders", authority: None, body: b"2 apples" };
    /// let fingerprint = Fingerprint::of_http(request, &FingerprintedHeaders::default(), |name| {
    ///     let named = headers.iter().filter(move |(other, _)| *other == name);
    ///     named.map(|(_, value)| value.as_bytes())
    /// });
    /// # let _ = fingerprint;
    /// ```
    pub fn of_http<'a, V>(
        request: HttpRequest<'a>,
        counted: &'a FingerprintedHeaders,
        values: impl Fn(&'a str) -> V,
    ) -> Self
    where
        V: Iterator<Item = &'a [u8]>,
    {
        let target = Target::parse(request.target);
        let mut builder =
            FingerprintBuilder::with_capacity(TYPICAL_BYTES).part("method", request.method);
        builder = match target.path {
            [b'?', ..] => builder.part_in_pieces("target", [b"/", target.path]),
            path => builder.part("target", path),
        };
        let stated = [target.authority, request.authority];
        if let Some(authority) = authority(stated.into_iter().flatten(), values("host")) {
            builder = builder.part("authority", authority);
        }
        for (name, label) in &counted.headers {
            builder = header(builder, label.clone(), values(name));
        }
        builder.part("body", request.body).finish()
    }
}

/// Adds the part of a header that the request has.
fn header<'a>(
    builder: FingerprintBuilder,
    label: Cow<'static, str>,
    values: impl Iterator<Item = &'a [u8]>,
) -> FingerprintBuilder {
    let mut values = values.map(without_blanks);
    let Some(first) = values.next() else { return builder };
    let Some(second) = values.next() else { return builder.part(label, first) };
    let rest = std::iter::once(second).chain(values).flat_map(|value| [&b"\0"[..], value]);
    builder.part_in_pieces(label, std::iter::once(first).chain(rest))
}

/// A value without the optional blanks around it, as HTTP/1 parsers give it. HTTP/2 does not strip
/// them. Source: RFC 9110, section 5.5.
fn without_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A request target, taken apart.
struct Target<'a> {
    authority: Option<&'a [u8]>,
    /// Path and query; empty for the authority of a CONNECT.
    path: &'a [u8],
}

impl<'a> Target<'a> {
    fn parse(target: &'a [u8]) -> Self {
        let end = target.iter().position(|byte| *byte == b'#').unwrap_or(target.len());
        let target = &target[..end];
        if let [] | [b'/' | b'?', ..] | b"*" = target {
            return Self { authority: None, path: target };
        }
        let Some(scheme_len) = target.windows(3).position(|window| window == b"://") else {
            return Self { authority: Some(target), path: b"" };
        };
        let rest = &target[scheme_len + 3..];
        let len = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(len);
        Self { authority: Some(authority), path: if path.is_empty() { b"/" } else { path } }
    }
}

/// The authority that counts: the first that is stated, else that of `Host`.
fn authority<'a>(
    stated: impl Iterator<Item = &'a [u8]>,
    hosts: impl Iterator<Item = &'a [u8]>,
) -> Option<Vec<u8>> {
    let named = |authority: &Vec<u8>| !authority.is_empty();
    stated.map(normalized).find(named).or_else(|| {
        // More than one `Host` is not valid HTTP, and most servers refuse it. Here all of them
        // count.
        hosts.map(normalized).filter(named).reduce(|mut all, host| {
            all.push(0);
            all.extend(host);
            all
        })
    })
}

/// An authority with its host in lower case and without a default port. User information, a dot at
/// the end and the spelling of an IPv6 address count as they are.
fn normalized(authority: &[u8]) -> Vec<u8> {
    let authority = without_blanks(authority);
    let host_at = authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    let (user, mut host) = authority.split_at(host_at);
    // A colon inside the brackets of an IPv6 address does not match: the bracket follows it.
    if let Some(colon) = host.iter().rposition(|byte| *byte == b':')
        && let b"" | b"80" | b"443" = &host[colon + 1..]
    {
        host = &host[..colon];
    }
    let mut normalized = [user, host].concat();
    normalized[host_at..].make_ascii_lowercase();
    normalized
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: HttpRequest<'static> =
        HttpRequest { method: b"POST", target: b"/orders?b=1&a=%20", authority: None, body: b"{}" };

    fn of(request: HttpRequest<'_>, headers: &[(&str, &[u8])]) -> Fingerprint {
        with(request, &FingerprintedHeaders::default(), headers)
    }

    fn with(
        request: HttpRequest<'_>,
        counted: &FingerprintedHeaders,
        headers: &[(&str, &[u8])],
    ) -> Fingerprint {
        Fingerprint::of_http(request, counted, |name| {
            let named = headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name));
            named.map(|(_, value)| *value)
        })
    }

    fn made_of(parts: &[(&'static str, &[u8])]) -> Fingerprint {
        parts
            .iter()
            .fold(Fingerprint::builder(), |builder, (label, value)| builder.part(*label, value))
            .finish()
    }

    fn of_host(host: &str) -> Fingerprint {
        of(REQUEST, &[("host", host.as_bytes())])
    }

    #[test]
    fn it_is_made_of_the_documented_parts() {
        let headers: [(&str, &[u8]); 12] = [
            ("x-http-method-override", b"PATCH"),
            ("X-Api-Key", b"k"),
            ("content-type", b"a"),
            ("Host", b"API.example:443"),
            ("accept", b"x"),
            ("authorization", b"t"),
            ("if-unmodified-since", b"s"),
            ("if-none-match", b"*"),
            ("if-match", b"\"e\""),
            ("content-encoding", b"gzip"),
            ("content-type", b"b"),
            ("x-http-method", b"not counted"),
        ];
        let expected: [(&'static str, &[u8]); 12] = [
            ("method", b"POST"),
            ("target", b"/orders?b=1&a=%20"),
            ("authority", b"api.example"),
            ("header authorization", b"t"),
            ("header content-encoding", b"gzip"),
            ("header content-type", b"a\0b"),
            ("header if-match", b"\"e\""),
            ("header if-none-match", b"*"),
            ("header if-unmodified-since", b"s"),
            ("header x-api-key", b"k"),
            ("header x-http-method-override", b"PATCH"),
            ("body", b"{}"),
        ];
        assert_eq!(of(REQUEST, &headers), made_of(&expected));
    }

    #[test]
    fn every_byte_of_a_part_counts() {
        let headers: [(&str, &[u8]); 2] = [("host", b"a"), ("content-type", b"t")];
        let base = of(REQUEST, &headers);
        for other in [
            of(HttpRequest { method: b"PUT", ..REQUEST }, &headers),
            of(HttpRequest { target: b"/orders", ..REQUEST }, &headers),
            of(HttpRequest { target: b"/orders?b=1&a=+", ..REQUEST }, &headers),
            of(HttpRequest { body: b"{} ", ..REQUEST }, &headers),
            of(HttpRequest { authority: Some(b"b"), ..REQUEST }, &headers),
            of(REQUEST, &headers[..1]),
            of(REQUEST, &headers[1..]),
            of(REQUEST, &[headers[0], ("content-type", b"")]),
            of(REQUEST, &[headers[0], ("content-type", b"T")]),
            of(REQUEST, &[headers[0], headers[1], headers[1]]),
            of(REQUEST, &[headers[0], headers[1], ("content-encoding", b"\xff")]),
        ] {
            assert_ne!(other, base);
        }
    }

    #[test]
    fn a_virtual_host_is_a_request_of_its_own_however_it_is_spelled() {
        for (same, host) in [
            (
                "a.example",
                &["A.Example", "a.example:", "a.example:80", "A.example:443", " a.example\t"][..],
            ),
            ("a.example:8080", &["A.EXAMPLE:8080"]),
            ("[::1]", &["[::1]:80", "[::1]:443", "[::1]:"]),
            ("[fe80::a]:8443", &["[FE80::A]:8443"]),
            ("", &[":80", " ", ":"]),
        ] {
            for host in host {
                assert_eq!(of_host(host), of_host(same), "{host}");
            }
        }
        let others = [
            "",
            "a.example",
            "a.example.",
            "b.example",
            "a.example:8080",
            "a.example:8443",
            "a.example:08",
            "u@a.example",
            "U@a.example",
            "[::1]",
            "[::80]",
            "[::443]",
            "[::]",
            "[::1]:8080",
        ];
        for (index, one) in others.iter().enumerate() {
            for other in &others[..index] {
                assert_ne!(of_host(one), of_host(other), "{one} {other}");
            }
        }
        assert_eq!(of_host(""), of(REQUEST, &[]));
    }

    #[test]
    fn a_target_in_any_form_is_its_path_and_query_and_authority() {
        let expected = |path: &'static str, authority: &'static str| {
            of(
                HttpRequest { target: path.as_bytes(), ..REQUEST },
                &[("host", authority.as_bytes())],
            )
        };
        for (target, path, authority) in [
            ("http://A.example:80/o?q", "/o?q", "a.example"),
            ("https://a.example:443/o?q#f", "/o?q", "a.example"),
            ("https://a.example", "/", "a.example"),
            ("https://a.example?q=/", "/?q=/", "a.example"),
            ("https://u:P@A.example/", "/", "u:P@a.example"),
            ("/o?to=http://other.example/", "/o?to=http://other.example/", "host.example"),
            ("http:///o", "/o", "host.example"),
            ("*", "*", "host.example"),
            ("?q", "/?q", "host.example"),
            ("", "", "host.example"),
        ] {
            let request = HttpRequest { target: target.as_bytes(), ..REQUEST };
            let made = of(request, &[("host", b"host.example")]);
            assert_eq!(made, expected(path, authority), "{target}");
        }
        let connect = HttpRequest { target: b"A.example:8443", ..REQUEST };
        assert_eq!(of(connect, &[]), expected("", "a.example:8443"));
    }

    /// Over HTTP/2 the authority is stated, over HTTP/1.1 it is in `Host`.
    #[test]
    fn the_target_goes_before_the_stated_authority_and_that_before_host() {
        let host: [(&str, &[u8]); 1] = [("host", b"c.example")];
        let stated = HttpRequest { authority: Some(b"B.example:443"), ..REQUEST };
        assert_eq!(of(stated, &host), of_host("b.example"));
        assert_eq!(of(stated, &[]), of_host("b.example"));
        let absolute = HttpRequest { target: b"http://a.example/orders?b=1&a=%20", ..stated };
        assert_eq!(of(absolute, &host), of_host("a.example"));
        let empty = HttpRequest { authority: Some(b""), ..REQUEST };
        assert_eq!(of(empty, &host), of_host("c.example"));
        let two: [(&str, &[u8]); 2] = [("host", b"a"), ("host", b"b")];
        assert_ne!(of(REQUEST, &two), of_host("a"));
    }

    #[test]
    fn blanks_around_a_value_do_not_count_and_all_other_bytes_do() {
        let of_value = |value: &[u8]| of(REQUEST, &[("content-type", value)]);
        for same in [&b"a b "[..], b" a b", b"\t a b \t"] {
            assert_eq!(of_value(same), of_value(b"a b"));
        }
        for other in [&b"a  b"[..], b"ab", b"a b\x0b", b"\xa0a b", b"a b\n", b""] {
            assert_ne!(of_value(other), of_value(b"a b"));
        }
        assert_eq!(of_value(b" \t"), of_value(b""));
        let repeated = |values: [&[u8]; 2]| of(REQUEST, &values.map(|value| ("if-match", value)));
        assert_eq!(repeated([b"a ", b" b"]), repeated([b"a", b"b"]));
        assert_ne!(repeated([b"a", b"b"]), repeated([b"b", b"a"]));
        assert_ne!(repeated([b"a", b"b"]), of(REQUEST, &[("if-match", b"a, b")]));
    }

    #[test]
    fn headers_can_be_chosen_in_any_order_and_case() {
        let counted = FingerprintedHeaders::new(["X-B", "x-a", "HOST", "x-b"]).unwrap();
        let reversed = FingerprintedHeaders::new(["x-a", "x-b"]).unwrap();
        assert_eq!(counted, reversed);
        let headers: [(&str, &[u8]); 4] =
            [("x-b", b"2"), ("x-a", b"1"), ("authorization", b"ignored"), ("host", b"h")];
        let parts: [(&'static str, &[u8]); 6] = [
            ("method", b"POST"),
            ("target", REQUEST.target),
            ("authority", b"h"),
            ("header x-a", b"1"),
            ("header x-b", b"2"),
            ("body", b"{}"),
        ];
        assert_eq!(with(REQUEST, &counted, &headers), made_of(&parts));
    }

    #[test]
    fn limits_of_the_list_are_checked_and_a_label_is_cut() {
        let many = |count| (0..count).map(|n| format!("x-{n}"));
        let most = FingerprintedHeaders::new(many(MAX_FINGERPRINTED_HEADERS)).unwrap();
        assert!(FingerprintedHeaders::new(many(MAX_FINGERPRINTED_HEADERS + 1)).is_err());
        assert!(FingerprintedHeaders::new(["\u{fc}"]).is_err());
        let names: Vec<_> = many(MAX_FINGERPRINTED_HEADERS).collect();
        let all: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), &b"1"[..]))
            .chain([("host", &b"h"[..])])
            .collect();
        with(REQUEST, &most, &all).validate().unwrap();
        let long = "x".repeat(500);
        let counted = FingerprintedHeaders::new([&long]).unwrap();
        with(REQUEST, &counted, &[(&long, b"1"), ("host", b"h")]).validate().unwrap();
    }
}
