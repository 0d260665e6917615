//! The rules for headers: which headers pass the proxy, and which ones the proxy writes.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use oncekey_http::{HOP_BY_HOP, list_members};

use super::names::{Names, is_forwarded};
use super::problem::Problem;
use crate::base::network::Network;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The rules for requests.
pub(crate) struct Hygiene {
    pub(crate) names: Arc<Names>,
    /// Peers whose `Forwarded` and `X-Forwarded-*` are trusted.
    pub(crate) trusted: Vec<Network>,
    /// `1.1 oncekey (ID)`, with the id of this process.
    pub(crate) via: HeaderValue,
}

impl Hygiene {
    /// Cleans the head of a request, or returns its refusal. `peer` is `None` on a Unix socket; `secure` says
    /// whether the client connected over TLS.
    pub(crate) fn request(
        &self,
        parts: &mut Parts,
        peer: Option<IpAddr>,
        secure: bool,
    ) -> Result<(), Problem> {
        if parts.method == Method::CONNECT {
            let detail = "The proxy opens no tunnels.";
            return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "connect_refused", detail));
        }
        if let Some(detail) = malformed(parts) {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "request_malformed", detail));
        }
        let headers = &mut parts.headers;
        if headers.get_all(header::VIA).iter().any(|via| contains(via, &self.via)) {
            let detail = "The request came through this proxy before.";
            return Err(Problem::new(StatusCode::LOOP_DETECTED, "loop_detected", detail));
        }
        // The authority of an absolute target wins over Host. Source: RFC 9112, section 3.2.2.
        if let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(header::HOST, host);
        }
        self.names.strip(headers);
        self.hop_by_hop(headers);
        if self.names.forwarded {
            self.write_forwarded(headers, peer, secure);
        }
        headers.append(header::VIA, self.via.clone());
        Ok(())
    }

    fn hop_by_hop(&self, headers: &mut HeaderMap) {
        let trailers = lists(headers, &header::TE, "trailers");
        let upgrade = lists(headers, &header::CONNECTION, "upgrade")
            .then(|| headers.get(header::UPGRADE).cloned())
            .flatten();
        let keep = |name: &HeaderName| {
            self.names.ours.contains(name)
                || [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE].contains(name)
        };
        remove_hop_by_hop(headers, keep);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(protocol) = upgrade {
            headers.insert(header::UPGRADE, protocol);
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
    }

    /// Whether `Forwarded` and the verified tokens of a peer are trusted.
    pub(crate) fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_some_and(|peer| self.trusted.iter().any(|net| net.contains(peer)))
    }

    fn write_forwarded(&self, headers: &mut HeaderMap, peer: Option<IpAddr>, secure: bool) {
        if !self.trusts(peer) {
            let theirs: Vec<_> =
                headers.keys().filter(|name| is_forwarded(name)).cloned().collect();
            for name in theirs {
                headers.remove(name);
            }
        }
        if let Some(peer) = peer {
            let mut chain: Vec<_> = headers
                .get_all(FORWARDED_FOR)
                .iter()
                .map(|value| value.as_bytes().to_vec())
                .collect();
            chain.push(peer.to_canonical().to_string().into_bytes());
            if let Ok(chain) = HeaderValue::from_bytes(&chain.join(&b", "[..])) {
                headers.insert(FORWARDED_FOR, chain);
            }
        }
        if !headers.contains_key(FORWARDED_PROTO) {
            headers.insert(
                FORWARDED_PROTO,
                HeaderValue::from_static(if secure { "https" } else { "http" }),
            );
        }
        if !headers.contains_key(FORWARDED_HOST)
            && let Some(host) = headers.get(header::HOST).cloned()
        {
            headers.insert(FORWARDED_HOST, host);
        }
    }
}

/// Finds what HTTP forbids in the head of a request because servers read it differently: two of them could
/// then disagree about the end of the request or its host. Content-Length beside Transfer-Encoding is not
/// refused here: the HTTP/1.1 server drops the length and ends the connection. Source: RFC 9112, sections 3.2
/// and 6.1.
fn malformed(parts: &Parts) -> Option<&'static str> {
    let (headers, uri) = (&parts.headers, &parts.uri);
    let codings = codings(headers);
    if codings.len() > 1 || codings.iter().any(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Some("The request has another Transfer-Encoding than chunked, once.");
    }
    let is_authority = uri.scheme().is_none() && uri.authority().is_some();
    if is_authority || (uri.path() == "*" && parts.method != Method::OPTIONS) {
        return Some("The target of the request is neither a path nor a URL.");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Some("The request has more than one Host."),
        (Some(host), None) if !is_host(host) => Some("The Host of the request is no host."),
        (None, None) if parts.version == Version::HTTP_11 => Some("The request has no Host."),
        _ => None,
    }
}

/// Whether the value of `Host` is valid. An empty value means that the target has no authority.
fn is_host(host: &HeaderValue) -> bool {
    let is_authority =
        |host: &str| !host.contains('@') && host.parse::<http::uri::Authority>().is_ok();
    host.to_str().is_ok_and(|host| host.is_empty() || is_authority(host))
}

/// The members of `Transfer-Encoding`.
fn codings(headers: &HeaderMap) -> Vec<&[u8]> {
    list_members(headers, &header::TRANSFER_ENCODING).filter(|coding| !coding.is_empty()).collect()
}

/// Whether a request carries a header that looks like a misspelled key header, and that is not one of
/// `known`.
pub(crate) fn has_unrecognized_key(headers: &HeaderMap, known: &[HeaderName]) -> bool {
    const ALIKE: [&str; 4] =
        ["idempotency-key", "x-idempotency-key", "idempotence-key", "x-request-idempotency-key"];
    headers
        .keys()
        .any(|name| ALIKE.contains(&&*name.as_str().replace('_', "-")) && !known.contains(name))
}

/// Whether the body of a response can be read: it must not have a transfer coding that gets lost when its
/// header is removed.
pub(crate) fn is_readable(headers: &HeaderMap) -> bool {
    let known = |coding: &[u8]| {
        coding.eq_ignore_ascii_case(b"chunked") || coding.eq_ignore_ascii_case(b"identity")
    };
    codings(headers).into_iter().all(known)
}

/// Removes the headers of a response that belong to the connection to the upstream.
pub(crate) fn response(headers: &mut HeaderMap) {
    // With a transfer coding, which is removed, Content-Length has no meaning. A list of equal lengths was
    // understood; the server writes the length again.
    let is_list = |length: &HeaderValue| !length.as_bytes().iter().all(u8::is_ascii_digit);
    if headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(is_list)
    {
        headers.remove(header::CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers, |name| *name == header::CONTENT_LENGTH);
}

/// Makes a keyed request an ordinary one: no store can replay another protocol.
pub(crate) fn without_upgrade(headers: &mut HeaderMap) {
    headers.remove(header::UPGRADE);
    headers.remove(header::CONNECTION);
}

/// Removes the headers of one connection and those that `Connection` lists, except the ones that `keep`
/// selects.
fn remove_hop_by_hop(headers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    let listed: Vec<HeaderName> = list_members(headers, &header::CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !keep(name))
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Whether `token` is a member of the list header `name`.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    list_members(headers, name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

fn contains(value: &HeaderValue, part: &HeaderValue) -> bool {
    let part = part.as_bytes();
    value.as_bytes().windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn hygiene(trusted: &[&str]) -> Hygiene {
        let ours = vec![HeaderName::from_static("idempotency-key")];
        Hygiene {
            names: Arc::new(Names { ours, forwarded: true }),
            trusted: trusted.iter().map(|net| net.parse().unwrap()).collect(),
            via: HeaderValue::from_static("1.1 oncekey (0123)"),
        }
    }

    fn cleaned(rules: &Hygiene, sent: &[(&str, &str)]) -> Result<HeaderMap, Problem> {
        let mut request = Request::post("/");
        if !sent.iter().any(|(name, _)| *name == "Host") {
            request = request.header("host", "h");
        }
        for (name, value) in sent {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        rules.request(&mut parts, Some("10.1.2.3".parse().unwrap()), false)?;
        Ok(parts.headers)
    }

    #[test]
    fn our_headers_from_outside_are_removed_in_every_spelling() {
        let sent = [
            ("Oncekey-Attempt", "9"),
            ("Oncekey_Token", "x"),
            ("oncekey_-x", "x"),
            ("Idempotency_Key", "k"),
            ("X_Forwarded_For", "1.1.1.1"),
            ("x-forwarded_for", "1.1.1.1"),
            ("Content_Length", "9"),
            ("Transfer_Encoding", "chunked"),
            ("Under_Score", "stays"),
            ("Idempotency-Key", "k"),
        ];
        let headers = cleaned(&hygiene(&[]), &sent).ok().unwrap();
        let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert!(names.contains(&"under_score") && names.contains(&"idempotency-key"));
        assert!(names.iter().all(|name| !name.contains("oncekey")), "{names:?}");
        for gone in ["idempotency_key", "content_length", "transfer_encoding"] {
            assert!(!names.contains(&gone), "{names:?}");
        }
        assert_eq!(headers["x-forwarded-for"], "10.1.2.3");
    }

    #[test]
    fn what_connection_lists_is_removed_but_not_the_key() {
        let sent = [
            ("Connection", "x-hop , Idempotency-Key,keep-alive"),
            ("Connection", "Content-Length"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Idempotency-Key", "k"),
            ("Content-Length", "2"),
            ("TE", "gzip, Trailers"),
        ];
        let headers = cleaned(&hygiene(&[]), &sent).ok().unwrap();
        for gone in ["connection", "x-hop", "keep-alive"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["idempotency-key"], "k");
        assert_eq!(headers["content-length"], "2");
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn forwarded_headers_are_believed_of_trusted_peers_alone() {
        let sent = [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Proto", "https"), ("Host", "h")];
        let headers = cleaned(&hygiene(&[]), &sent).ok().unwrap();
        assert_eq!(headers["x-forwarded-for"], "10.1.2.3");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "h");
        let headers = cleaned(&hygiene(&["10.0.0.0/8"]), &sent).ok().unwrap();
        assert_eq!(headers["x-forwarded-for"], "1.2.3.4, 10.1.2.3");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn forwarded_headers_are_left_alone_where_that_is_said() {
        let names = Names { ours: Vec::new(), forwarded: false };
        let rules = Hygiene { names: Arc::new(names), ..hygiene(&[]) };
        let sent =
            [("X-Forwarded-For", "1.2.3.4"), ("X_Forwarded_For", "5"), ("Forwarded", "for=6")];
        let headers = cleaned(&rules, &sent).ok().unwrap();
        for (name, value) in sent {
            assert_eq!(headers[name.to_ascii_lowercase().as_str()], value);
        }
        assert!(!headers.contains_key("x-forwarded-proto"));
    }

    #[test]
    fn an_upgrade_is_kept_until_the_request_is_keyed() {
        let sent = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket")];
        let mut headers = cleaned(&hygiene(&[]), &sent).ok().unwrap();
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&HeaderValue::from_static("upgrade"), &HeaderValue::from_static("websocket"))
        );
        without_upgrade(&mut headers);
        assert!(!headers.contains_key("connection") && !headers.contains_key("upgrade"));
        let alone = cleaned(&hygiene(&[]), &[("Upgrade", "websocket")]).ok().unwrap();
        assert!(!alone.contains_key("upgrade"));
    }

    #[test]
    fn the_authority_of_the_target_is_the_host() {
        let request = Request::get("http://a.example/x").header("host", "b.example");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        assert!(hygiene(&[]).request(&mut parts, None, false).is_ok());
        assert_eq!(parts.headers["host"], "a.example");
    }

    #[test]
    fn requests_that_are_refused() {
        let refused = |sent: &[(&str, &str)]| {
            let problem = cleaned(&hygiene(&[]), sent).err().unwrap();
            problem.into_response().status().as_u16()
        };
        for codings in ["gzip, chunked", "chunked, chunked", "identity", "xchunked", "\"chunked\""]
        {
            assert_eq!(refused(&[("Transfer-Encoding", codings)]), 400, "{codings}");
        }
        assert_eq!(
            refused(&[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")]),
            400
        );
        for codings in ["chunked", "Chunked", ", chunked,"] {
            assert!(cleaned(&hygiene(&[]), &[("Transfer-Encoding", codings)]).is_ok(), "{codings}");
        }
        for host in ["a b", "a/b", "u@h", "h\u{e9}", "h?q"] {
            assert_eq!(refused(&[("Host", host)]), 400, "{host}");
        }
        for host in ["", "h:80", "[::1]:80", "a_b.example"] {
            assert!(cleaned(&hygiene(&[]), &[("Host", host)]).is_ok(), "{host}");
        }
        assert_eq!(refused(&[("Host", "h"), ("Host", "h")]), 400);
        assert_eq!(refused(&[("Via", "1.0 a, 1.1 oncekey (0123)")]), 508);
        assert!(cleaned(&hygiene(&[]), &[("Via", "1.1 oncekey (9999)")]).is_ok());
    }

    #[test]
    fn targets_and_hosts_that_are_refused() {
        let refused = |request: http::request::Builder| {
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            hygiene(&[]).request(&mut parts, None, false).is_err()
        };
        assert!(refused(Request::post("/")), "no host");
        assert!(!refused(Request::post("/").version(Version::HTTP_10)));
        assert!(!refused(Request::post("http://h/").version(Version::HTTP_2)));
        for (target, is_refused) in [("a", true), ("a:80", true), ("/a", false), ("*", true)] {
            assert_eq!(refused(Request::post(target).header("host", "h")), is_refused, "{target}");
        }
        assert!(!refused(Request::options("*").header("host", "h")));
    }

    #[test]
    fn a_body_in_a_coding_that_nobody_would_know_of_is_not_read() {
        for (coding, expected) in
            [("chunked", true), ("identity", true), ("gzip, chunked", false), ("gzip", false)]
        {
            let coding = (header::TRANSFER_ENCODING, HeaderValue::from_static(coding));
            assert_eq!(is_readable(&[coding].into_iter().collect()), expected);
        }
        assert!(is_readable(&HeaderMap::new()));
    }

    #[test]
    fn a_list_of_lengths_is_not_passed_on() {
        for (length, stays) in [("2", true), ("2, 2", false)] {
            let length = (header::CONTENT_LENGTH, HeaderValue::from_static(length));
            let mut headers: HeaderMap = [length].into_iter().collect();
            response(&mut headers);
            assert_eq!(headers.contains_key(header::CONTENT_LENGTH), stays);
        }
    }

    #[test]
    fn a_response_loses_what_was_about_the_connection() {
        let mut headers: HeaderMap = [
            (header::CONNECTION, "x-hop"),
            (HeaderName::from_static("x-hop"), "1"),
            (header::TRANSFER_ENCODING, "chunked"),
            (header::CONTENT_LENGTH, "5"),
            (header::ETAG, "stays"),
        ]
        .into_iter()
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .collect();
        response(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["etag"], "stays");
    }
}
