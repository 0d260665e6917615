//! Request bodies over the limit, responses that are too large or that stream, and bodies that the
//! layer leaves alone.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use oncekey_http::{IdempotencyLayer, NotStored, Policy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Gate, KEY, PATIENCE, Server, Store, channel_body, response};

async fn echo(request: Request) -> Response {
    let body = axum::body::to_bytes(request.into_body(), 16 << 20).await.unwrap();
    response(200, body)
}

#[tokio::test]
async fn a_request_body_over_the_limit_is_refused_and_the_key_is_unused() {
    let limited = |layer: IdempotencyLayer| layer.policy(Policy::new().max_request_body(1000));
    let server = Server::with(Store::new(), limited, echo).await;
    let reply = server.post("k", vec![b'x'; 1001]).await;
    reply.assert_problem(413, "idempotency_body_too_large");
    // Without Content-Length the limit is only met while reading.
    let chunk = format!("{:x}\r\n{}\r\n", 600, "x".repeat(600));
    let request = format!(
        "POST /orders HTTP/1.1\r\nHost: x\r\n{KEY}: k\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    assert!(server.raw(request.as_bytes()).await.starts_with(b"HTTP/1.1 413 "));
    assert_eq!(server.runs(), 0);
    assert_eq!(server.layer.stats().body_refused, 2);
    // A body at the limit is accepted. Without a key there is no limit.
    assert_eq!(server.post("k", vec![b'x'; 1000]).await.body.len(), 1000);
    let request = server.request(Method::POST, "/orders");
    assert_eq!(server.send(request, vec![b'x'; 1001]).await.unwrap().body.len(), 1001);
    assert_eq!(server.runs(), 2);
}

/// A client that reads nothing before it has sent everything learns why it was refused. If the
/// server closed the connection earlier, the client would only see a reset.
#[tokio::test]
async fn a_refused_body_is_read_to_its_end() {
    let limited = |layer: IdempotencyLayer| layer.policy(Policy::new().max_request_body(1000));
    let server = Server::with(Store::new(), limited, echo).await;
    let len = 6 << 20;
    for (key, status) in [("k", "413"), ("", "400")] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\n{KEY}: {key}\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n"
        );
        let answer = server.raw(&[head.as_bytes(), &vec![b'x'; len]].concat()).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(expected.as_bytes()), "{}", answer.escape_ascii());
    }
    assert_eq!(server.runs(), 0);
}

/// A client that asks before it sends a large body is told at once.
#[tokio::test]
async fn a_client_that_waits_for_leave_is_refused_without_it() {
    let limited = |layer: IdempotencyLayer| layer.policy(Policy::new().max_request_body(1000));
    let server = Server::with(Store::new(), limited, echo).await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{KEY}: k\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n"
    );
    let answer = server.raw(head.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", answer.escape_ascii());
}

/// The handler gets the body in one piece, with the headers that the client sent.
#[tokio::test]
async fn a_request_body_in_chunks_arrives_whole() {
    let server = Server::start(echo).await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: x\r\n{KEY}: k\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
    );
    assert!(server.raw(request.as_bytes()).await.ends_with(b"\r\n\r\nabcde"));
    // The cuts between the pieces do not make the request another one.
    let request = server.request(Method::POST, "/").header(KEY, "k");
    assert_eq!(server.send(request, "abcde").await.unwrap().body, "abcde");
    assert_eq!(server.runs(), 1);
}

#[tokio::test]
async fn a_request_that_breaks_off_does_not_use_its_key() {
    let server = Server::start(echo).await;
    let mut stream = server.connect().await;
    let head =
        format!("POST /orders HTTP/1.1\r\nHost: x\r\n{KEY}: k\r\nContent-Length: 9\r\n\r\nhalf");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    // The server closes, with or without an answer.
    drop(stream.read_to_end(&mut Vec::new()).await);
    assert_eq!(server.runs(), 0);
    assert_eq!(server.post("k", "whole").await.body, "whole");
    assert_eq!(server.runs(), 1);
}

/// Over the limit with a known length, without one, and by the headers alone.
#[tokio::test]
async fn a_response_over_the_limit_is_sent_but_never_executed_again() {
    let limited = |layer: IdempotencyLayer| layer.policy(Policy::new().max_response(1000));
    let server = Server::with(Store::new(), limited, |request: Request| async move {
        match request.uri().path() {
            "/known" => response(200, vec![b'x'; 5000]),
            "/unknown" => {
                let (sender, body) = channel_body::<std::io::Error>();
                for _ in 0..50 {
                    sender.send(Ok(Bytes::from(vec![b'x'; 100]))).unwrap();
                }
                response(200, body)
            }
            _ => {
                let mut answer = response(200, vec![b'x'; 5000]);
                answer.headers_mut().insert("x-long", "x".repeat(1000).parse().unwrap());
                answer
            }
        }
    })
    .await;
    for (index, path) in ["/known", "/unknown", "/headers"].into_iter().enumerate() {
        let send = || {
            let request = server.request(Method::POST, path).header(KEY, path);
            server.send(request, "")
        };
        let first = send().await.unwrap();
        assert_eq!((first.status, first.body), (200, Bytes::from(vec![b'x'; 5000])));
        for _ in 0..2 {
            let retry = send().await.unwrap();
            retry.assert_problem(409, "idempotency_response_not_stored");
        }
        assert_eq!(server.runs(), index + 1);
        assert_eq!(server.layer.stats().not_stored, index as u64 + 1);
    }
}

/// The engine has a limit of its own, which the layer does not know.
#[tokio::test]
async fn a_response_over_the_limit_of_the_engine_is_sent_but_never_executed_again() {
    let store = Store::with(|options| options.max_response(100));
    let server = Server::with(store, |layer| layer, echo).await;
    assert_eq!(server.post("k", vec![b'x'; 101]).await.body.len(), 101);
    let retry = server.post("k", vec![b'x'; 101]).await;
    retry.assert_problem(409, "idempotency_response_not_stored");
    assert_eq!((server.runs(), server.layer.stats().not_stored), (1, 1));
}

/// Reads from a connection until `expected` has come.
async fn read_until(stream: &mut TcpStream, expected: &str) {
    let mut read = Vec::new();
    while !read.ends_with(expected.as_bytes()) {
        let mut buffer = [0; 1024];
        let len = tokio::time::timeout(PATIENCE, stream.read(&mut buffer));
        let len = len.await.expect("more").unwrap();
        assert_ne!(len, 0, "closed after {}", read.escape_ascii());
        read.extend_from_slice(&buffer[..len]);
    }
}

type Senders = Arc<Mutex<Vec<tokio::sync::mpsc::UnboundedSender<Result<Bytes, std::io::Error>>>>>;

/// A server whose responses stream what the test sends, as `path` says.
async fn streaming() -> (Server, Senders) {
    let senders = Senders::default();
    let kept = senders.clone();
    let server = Server::start(move |request: Request| {
        let (sender, body) = channel_body();
        kept.lock().unwrap().push(sender);
        async move {
            let mut answer = response(200, body);
            let content_type = match request.uri().path() {
                "/events" => "Text/Event-Stream; charset=utf-8",
                "/frames" => "multipart/x-mixed-replace; boundary=b",
                "/grpc" => "application/grpc-web-text+proto",
                _ => "text/plain",
            };
            answer.headers_mut().insert("content-type", content_type.parse().unwrap());
            if request.uri().path() == "/marked" {
                answer.extensions_mut().insert(NotStored);
            }
            answer
        }
    })
    .await;
    (server, senders)
}

#[tokio::test]
async fn a_stream_flows_while_it_grows_and_is_never_executed_again() {
    let (server, senders) = streaming().await;
    for (index, path) in ["/events", "/frames", "/grpc", "/marked"].into_iter().enumerate() {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\n{KEY}: {path}\r\nContent-Length: 0\r\n\r\n"
        );
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        for chunk in ["one", "two"] {
            let sender = senders.lock().unwrap()[index].clone();
            sender.send(Ok(Bytes::from(chunk))).unwrap();
            read_until(&mut stream, &format!("3\r\n{chunk}\r\n")).await;
        }
        // The handler is still running, and a retry is already refused.
        let retry = server.send(server.request(Method::POST, path).header(KEY, path), "");
        retry.await.unwrap().assert_problem(409, "idempotency_response_not_stored");
        assert_eq!(server.runs(), index + 1);
    }
}

/// Without a key nothing is held back, in neither direction.
#[tokio::test]
async fn without_a_key_bodies_are_not_buffered() {
    let gate = Gate::new();
    let passing = gate.clone();
    let server = Server::start(move |request: Request| {
        let gate = passing.clone();
        async move {
            let mut body = request.into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(first, "one");
            gate.pass().await;
            response(200, Body::new(body))
        }
    })
    .await;
    let mut stream = server.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    gate.entered().await;
    gate.open(1);
    read_until(&mut stream, "\r\n\r\n").await;
    for chunk in ["3\r\ntwo\r\n", "4\r\nmore\r\n"] {
        stream.write_all(chunk.as_bytes()).await.unwrap();
        read_until(&mut stream, chunk).await;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    read_until(&mut stream, "0\r\n\r\n").await;
}

/// With a key the first byte is sent after the last one is stored.
#[tokio::test]
async fn a_response_is_stored_before_its_first_byte_is_sent() {
    let (server, senders) = streaming().await;
    let server = Arc::new(server);
    let first = server.post_later("k", "");
    while senders.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let sender = senders.lock().unwrap()[0].clone();
    sender.send(Ok(Bytes::from("one "))).unwrap();
    server.post("k", "").await.assert_problem(409, "idempotency_key_locked");
    assert!(!first.is_finished());
    sender.send(Ok(Bytes::from("two"))).unwrap();
    senders.lock().unwrap().clear();
    drop(sender);
    let first = first.await.unwrap();
    assert_eq!(&first.body[..], b"one two");
    assert_eq!(first.headers["content-length"], "7");
    assert_eq!(server.store.engine.stats().completed, 1);
    server.post("k", "").await.assert_same(&first);
    assert_eq!(server.runs(), 1);
}

/// A piece of a body that is counted while its memory lives.
struct Piece(Arc<AtomicUsize>);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        b"x"
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Yields single bytes, and fails when more than one of them lives.
struct Pieces {
    left: usize,
    living: Arc<AtomicUsize>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        let living = self.living.clone();
        Poll::Ready(Some(match living.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(Frame::data(Bytes::from_owner(Piece(living)))),
            _ => Err("the layer keeps the pieces"),
        }))
    }
}

/// Else a body of single bytes takes many times its length.
#[tokio::test]
async fn the_pieces_of_a_response_are_not_kept() {
    let server = Server::start(async |_| {
        let body = Pieces { left: 1000, living: Arc::default() };
        response(200, Body::new(body))
    })
    .await;
    let first = server.post("k", "").await;
    assert_eq!(first.body, "x".repeat(1000));
    server.post("k", "").await.assert_same(&first);
    assert_eq!(server.runs(), 1);
}
