//! Heads of requests and responses, from the bytes of a client to the bytes for the upstream. Each request arrives as
//! one request, with the body that was read. It has no header that could be taken for one of the proxy's, and none
//! about the client's connection.
#![no_main]
#![allow(dead_code, unused_imports)]

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

#[path = "../../program/src/base/mod.rs"]
mod base;
#[path = "../../program/src/report/mod.rs"]
mod report;
#[path = "../../program/src/wire/mod.rs"]
mod wire;

use wire::hygiene::{self, Hygiene};
use wire::names::Names;

const PEER: &str = "10.1.2.3";
const VIA: &str = "1.1 oncekey (0123)";
const HOPS: [&str; 7] = [
    "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
    "transfer-encoding", "upgrade",
];

fn rules(trusted: bool) -> Hygiene {
    let ours = ["idempotency-key", "x-idempotency-key", "x-tenant"].map(HeaderName::from_static).into();
    Hygiene {
        names: Arc::new(Names { ours, forwarded: true }),
        trusted: if trusted { vec!["10.0.0.0/8".parse().unwrap()] } else { Vec::new() },
        via: HeaderValue::from_static(VIA),
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((mode, bytes)) = input.split_first() else { return };
    if mode & 2 == 2 {
        return response(bytes);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(connection(bytes, mode & 1 == 1));
});

/// A client that sends these bytes and goes away.
async fn connection(bytes: &[u8], trusted: bool) {
    let (mut ours, theirs) = tokio::io::duplex(bytes.len().max(1) + 1024);
    ours.write_all(bytes).await.unwrap();
    ours.shutdown().await.unwrap();
    let service = service_fn(move |request| async move {
        forward(request, trusted).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let serving = server::Builder::new().max_headers(100).serve_connection(TokioIo::new(theirs), service);
    // The answers are of no interest, but must have room.
    let reading = async { drop(ours.read_to_end(&mut Vec::new()).await) };
    let _ = tokio::join!(serving, reading);
}

/// One request, as the proxy takes it, cleans it, and sends it on without a key.
async fn forward(request: Request<Incoming>, trusted: bool) {
    let (mut parts, body) = request.into_parts();
    let sent = parts.headers.clone();
    let Ok(()) = rules(trusted).request(&mut parts, Some(PEER.parse().unwrap()), false) else { return };
    check(&sent, &parts.headers, trusted);
    let Ok(body) = body.collect().await else { return };
    let body = body.to_bytes();
    // As the upstream's side writes them.
    parts.version = http::Version::HTTP_11;
    parts.uri = match parts.uri.path_and_query() {
        Some(path) => path.as_str().parse().unwrap_or_default(),
        None => http::Uri::from_static("/"),
    };
    parts.headers.entry(http::header::HOST).or_insert(HeaderValue::from_static("up"));
    hygiene::without_upgrade(&mut parts.headers);
    parts.headers.remove(http::header::EXPECT);
    parts.headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let method = parts.method.clone();
    let (near, far) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) = client::handshake(TokioIo::new(near)).await.unwrap();
    let request = Request::from_parts(parts, Full::new(body.clone()));
    let asked = async {
        let answer = sender.send_request(request).await;
        drop(sender);
        answer.map(drop)
    };
    let (_, _, arrived) = tokio::join!(connection, asked, upstream(far));
    let Some((line, headers, rest)) = arrived else { return };
    assert!(line.starts_with(&format!("{method} ")) && line.ends_with(" HTTP/1.1"), "{line:?}");
    assert_eq!(line.matches(' ').count(), 2, "{line:?}");
    let of = |wanted: &str| headers.iter().filter(|(name, _)| name == wanted).count();
    assert_eq!((of("transfer-encoding"), of("content-length"), of("host")), (0, 1, 1), "{headers:?}");
    assert_eq!(rest, body, "the body of one request, and nothing behind it");
}

/// What arrives, read strictly: the request line, the headers, and all that follows.
async fn upstream(mut far: DuplexStream) -> Option<(String, Vec<(String, String)>, Vec<u8>)> {
    let mut all = Vec::new();
    let head = loop {
        if let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if far.read_buf(&mut all).await.unwrap() == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&all[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<_> = lines
        .map(|line| {
            assert!(!line.contains(['\r', '\n', '\0']) && !line.starts_with([' ', '\t']), "{line:?}");
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?}"));
            assert!(!name.is_empty() && !name.contains([' ', '\t']), "{line:?}");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(0, |(_, length)| length.parse().unwrap());
    while all.len() < head + 4 + length {
        if far.read_buf(&mut all).await.unwrap() == 0 {
            break;
        }
    }
    far.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.ok()?;
    // Any bytes behind it were smuggled.
    far.read_to_end(&mut all).await.ok()?;
    Some((line, headers, all[head + 4..].to_vec()))
}

fn dashed(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// The names that the values of `Connection` list.
fn listed(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all("connection").iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase()).collect()
}

fn check(sent: &HeaderMap, headers: &HeaderMap, trusted: bool) {
    let ours = ["idempotency-key", "x-idempotency-key", "x-tenant"];
    for name in headers.keys() {
        let plain = dashed(name);
        assert!(!plain.starts_with("oncekey-"), "{name}");
        let is_spelled = name.as_str().contains('_');
        let is_ours = ours.contains(&&*plain) || plain == "forwarded" || plain.starts_with("x-forwarded-");
        assert!(!is_spelled || !is_ours, "{name}");
    }
    let upgrades = listed(sent).iter().any(|name| name == "upgrade") && sent.contains_key("upgrade");
    for hop in HOPS {
        let kept = upgrades && ["connection", "upgrade"].contains(&hop);
        assert!(kept || !headers.contains_key(hop), "{hop}");
    }
    if let Some(connection) = headers.get("connection") {
        assert_eq!(connection, "upgrade");
    }
    let kept = ["host", "content-length", "content-type", "te", "upgrade", "via", "connection"];
    let written = |name: &str| name.starts_with("x-forwarded-");
    for name in listed(sent) {
        let stays = kept.contains(&&*name) || ours.contains(&&*name) || written(&name);
        assert!(stays || !headers.contains_key(&*name), "{name}");
    }
    headers.get_all("te").iter().for_each(|te| assert_eq!(te, "trailers"));
    assert!(!(sent.contains_key("transfer-encoding") && sent.contains_key("content-length")));
    for name in ours {
        assert!(headers.get_all(name).iter().eq(sent.get_all(name).iter()), "{name}");
    }
    assert_eq!(headers.get_all("via").iter().next_back().unwrap(), VIA);
    let chain = headers["x-forwarded-for"].as_bytes();
    assert!(chain == PEER.as_bytes() || trusted && chain.ends_with(PEER.as_bytes()), "{chain:?}");
    assert!(trusted || !headers.contains_key("forwarded"));
}

/// A head of a response: lines of names and values.
fn response(bytes: &[u8]) {
    let mut sent = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            sent.append(name, value);
        }
    }
    let mut headers = sent.clone();
    hygiene::response(&mut headers);
    for hop in HOPS {
        assert!(!headers.contains_key(hop), "{hop}");
    }
    assert!(!headers.contains_key("te"));
    let stays = |name: &str| name == "content-length" && !sent.contains_key("transfer-encoding");
    for name in listed(&sent) {
        assert!(stays(&name) || !headers.contains_key(&*name), "{name}");
    }
    assert!(!(sent.contains_key("transfer-encoding") && headers.contains_key("content-length")));
}
