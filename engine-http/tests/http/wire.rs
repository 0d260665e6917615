//! Requests as they come over the wire: protocols, bodies of every kind, bytes that are no text,
//! mounted routers.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use oncekey::{Key, Lookup};
use oncekey_http::{IdempotencyLayer, Policy};
use tokio::sync::Semaphore;

use crate::support::{Gate, KEY, Server, Store, response};

/// Answers with the body of the request.
async fn echo(request: Request) -> Response {
    let body = axum::body::to_bytes(request.into_body(), 16 << 20).await.unwrap();
    response(200, body)
}

/// HTTP/2 keeps blanks around values, bodies come without a length, and responses can end with
/// trailers.
#[tokio::test]
async fn over_http_2_the_contract_is_the_same() {
    let server = Server::start(|request: Request| async move {
        assert_eq!(request.version(), http::Version::HTTP_2);
        let body = axum::body::to_bytes(request.into_body(), 1000).await.unwrap();
        let trailers = [(http::header::ETAG, HeaderValue::from_static("t"))].into_iter().collect();
        let frames = [Frame::data(body), Frame::trailers(trailers)].map(Ok::<_, std::io::Error>);
        response(201, axum::body::Body::new(StreamBody::new(Frames(frames.into_iter()))))
    })
    .await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let send = async |key: &str, body: &'static str| {
        let request = server.request(Method::POST, "/orders?a=%20").header(KEY, key);
        let request = request.version(http::Version::HTTP_2).body(Full::new(Bytes::from(body)));
        let answer: http::Response<hyper::body::Incoming> =
            client.request(request.unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let body = answer.into_body().collect().await.unwrap();
        (status, headers, body.trailers().cloned(), body.to_bytes())
    };
    let first = send("k", "one").await;
    assert_eq!((first.0, &first.3[..]), (201, &b"one"[..]));
    assert_eq!(first.2.as_ref().unwrap()["etag"], "t");
    let retry = send(" k\t", "one").await;
    assert_eq!((retry.0, &retry.2, &retry.3), (first.0, &first.2, &first.3));
    assert_eq!(send("k", "two").await.0, 409);
    assert_eq!(send("", "one").await.0, 400);
    // HTTP/1.1 reaches the same operation.
    let host = server.address.to_string();
    let request = server.request(Method::POST, "/orders?a=%20").header(KEY, "k");
    let request = request.header("host", host);
    let retry = server.send(request, "one").await.unwrap();
    assert_eq!((retry.status, &retry.body[..]), (201, &b"one"[..]));
    assert_eq!(server.runs(), 1);
}

struct Frames<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for Frames<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

/// Header values are bytes: in keys, in fingerprints, and in responses.
#[tokio::test]
async fn values_above_0x7f_are_kept_byte_for_byte() {
    let server = Server::start(|_| async {
        let mut answer = response(201, "created");
        let value = HeaderValue::from_bytes(b"caf\xe9 \x80\xff").unwrap();
        answer.headers_mut().insert("x-name", value);
        answer
    })
    .await;
    let send = |key: &[u8], token: &[u8]| {
        let value = |bytes| HeaderValue::from_bytes(bytes).unwrap();
        let request = server.request(Method::POST, "/").header(KEY, value(key));
        server.send(request.header("authorization", value(token)), "")
    };
    let first = send(b"\xff\x80", b"\xe9").await.unwrap();
    assert_eq!(first.headers["x-name"].as_bytes(), b"caf\xe9 \x80\xff");
    send(b"\xff\x80", b"\xe9").await.unwrap().assert_same(&first);
    let mismatch = send(b"\xff\x80", b"\xe8").await.unwrap();
    mismatch.assert_problem(409, "idempotency_key_mismatch");
    assert_eq!(server.runs(), 1);
    assert_eq!(send(b"\xff\x81", b"\xe9").await.unwrap().status, 201);
    assert_eq!(server.runs(), 2);
    let stored = server.store.engine.get(&Key::new("", b"\xff\x80").unwrap()).unwrap();
    assert!(matches!(stored, Lookup::Completed(_)), "{stored:?}");
}

#[tokio::test]
async fn a_header_that_is_repeated_counts_with_all_its_values_in_order() {
    let server = Server::start(echo).await;
    let send = |keys: &[&'static str]| {
        let mut request = server.request(Method::POST, "/").header(KEY, "k");
        for key in keys {
            request = request.header("x-api-key", *key);
        }
        server.send(request, "")
    };
    let first = send(&["a", "b"]).await.unwrap();
    send(&["a", "b"]).await.unwrap().assert_same(&first);
    for other in [&["b", "a"][..], &["a"], &["a", "b", "b"], &["a, b"]] {
        let mismatch = send(other).await.unwrap();
        assert_eq!(mismatch.json()["parts"], serde_json::json!(["header x-api-key"]));
    }
    assert_eq!(server.runs(), 1);
}

#[tokio::test]
async fn bodies_of_every_kind_are_replayed_as_they_were() {
    let server = Server::start(echo).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    for (index, body) in
        [vec![], vec![0], every_byte.clone(), every_byte.repeat(1000)].into_iter().enumerate()
    {
        let key = format!("k-{index}");
        let first = server.post(&key, body.clone()).await;
        assert_eq!(first.body, body);
        assert_eq!(first.headers["content-length"], body.len().to_string());
        let retry = server.post(&key, body.clone()).await;
        retry.assert_same(&first);
        assert_eq!(server.runs(), index + 1);
        // An empty body is not no body at all.
        server
            .post(&key, [&body[..], b"\0"].concat())
            .await
            .assert_problem(409, "idempotency_key_mismatch");
    }
}

/// On the wire, where a client may not even look for a body.
#[tokio::test]
async fn a_204_has_no_body_and_no_length_on_a_retry_either() {
    let server = Server::start(|_| async { response(204, "") }).await;
    let request = format!("DELETE / HTTP/1.1\r\nHost: x\r\n{KEY}: k\r\nConnection: close\r\n\r\n");
    for _ in 0..2 {
        let answer = String::from_utf8(server.raw(request.as_bytes()).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\n") && !answer.contains("content-length"), "{answer}");
    }
    assert_eq!(server.runs(), 1);
}

/// The body comes in pieces of unknown length. The limit counts the bytes that came.
#[tokio::test]
async fn a_chunked_request_at_the_limit_is_taken_and_one_byte_more_is_not() {
    let policy = Policy::new().max_request_body(1000);
    let server = Server::with(Store::new(), |layer| layer.policy(policy), echo).await;
    for (len, status) in [(1000, 200), (1001, 413), (1000, 200)] {
        let rest = len - 600;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: x\r\n{KEY}: k\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
             258\r\n{}\r\n{rest:x}\r\n{}\r\n0\r\n\r\n",
            "x".repeat(600),
            "x".repeat(rest),
        );
        let answer = server.raw(request.as_bytes()).await;
        assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{len}");
    }
    assert_eq!((server.runs(), server.layer.stats().body_refused), (1, 1));
}

/// Both limits, of the layer and of the engine, count the length of the stored response with status
/// and headers.
#[tokio::test]
async fn a_response_at_the_limit_is_stored_and_one_byte_more_is_not() {
    let body = vec![b'x'; 1000];
    let roomy = Server::start(echo).await;
    roomy.post("k", body.clone()).await;
    let Lookup::Completed(recorded) = roomy.store.engine.get(&Key::new("", "k").unwrap()).unwrap()
    else {
        panic!("the operation was completed");
    };
    let len = recorded.response().unwrap().len();
    for (of_layer, of_engine, kept) in
        [(len, len, true), (len - 1, len, false), (len, len - 1, false)]
    {
        let store = Store::with(|options| options.max_response(of_engine));
        let policy = Policy::new().max_response(of_layer);
        let server = Server::with(store, |layer| layer.policy(policy), echo).await;
        let first = server.post("k", body.clone()).await;
        assert_eq!(first.body, body);
        let retry = server.post("k", body.clone()).await;
        if kept {
            retry.assert_same(&first);
        } else {
            retry.assert_problem(409, "idempotency_response_not_stored");
        }
        assert_eq!((server.runs(), server.layer.stats().not_stored), (1, u64::from(!kept)));
    }
}

/// A layer outside that gives up on the response drops its future; the handler does not notice.
#[tokio::test]
async fn an_outer_timeout_does_not_stop_the_handler() {
    let store = Store::new();
    let layer = IdempotencyLayer::new(store.engine.clone());
    let (gate, expired) = (Gate::new(), Arc::new(Semaphore::new(0)));
    let (passing, timer) = (gate.clone(), expired.clone());
    let handler = move || {
        let gate = passing.clone();
        async move {
            gate.pass().await;
            response(201, "created")
        }
    };
    let timeout = from_fn(move |request: Request, next: Next| {
        let timer = timer.clone();
        async move {
            tokio::select! {
                response = next.run(request) => response,
                permit = timer.acquire() => {
                    permit.unwrap().forget();
                    response(504, "too late")
                }
            }
        }
    });
    let app = Router::new().route("/orders", post(handler)).layer(layer.clone()).layer(timeout);
    let server = Arc::new(Server::serve(store, layer, app).await);
    let first = server.post_later("k", "");
    gate.entered().await;
    expired.add_permits(1);
    assert_eq!(first.await.unwrap().status, 504);
    server.post("k", "").await.assert_problem(409, "idempotency_key_locked");
    gate.open(1);
    server.layer.drained().await;
    let retry = server.post("k", "").await;
    assert_eq!((retry.status, &retry.body[..]), (201, &b"created"[..]));
    let stats = server.store.engine.stats();
    assert_eq!((stats.claimed, stats.completed, stats.orphans), (1, 1, 0));
}

/// A nested router strips the prefix that it is nested under. Two mounts of one router are two
/// targets all the same, wherever the layer stands.
#[cfg(feature = "axum")]
#[tokio::test]
async fn two_mounts_of_a_router_are_two_targets() {
    for inside in [true, false] {
        let store = Store::new();
        let layer = IdempotencyLayer::new(store.engine.clone());
        let paths = |request: Request| async move { response(200, request.uri().to_string()) };
        let mut mounted = Router::new().route("/orders", post(paths));
        if inside {
            mounted = mounted.layer(layer.clone());
        }
        let mut app = Router::new().nest("/v1", mounted.clone()).nest("/api/v2", mounted);
        if !inside {
            app = app.layer(layer.clone());
        }
        let server = Server::serve(store, layer, app).await;
        let send =
            |target: &str| server.send(server.request(Method::POST, target).header(KEY, "k"), "");
        let first = send("/v1/orders?a=1").await.unwrap();
        assert_eq!(&first.body[..], b"/orders?a=1", "the handler sees the rest");
        for other in ["/api/v2/orders?a=1", "/v1/orders?a=2"] {
            let mismatch = send(other).await.unwrap();
            mismatch.assert_problem(409, "idempotency_key_mismatch");
            assert_eq!(mismatch.json()["parts"], serde_json::json!(["target"]));
        }
        send("/v1/orders?a=1").await.unwrap().assert_same(&first);
        assert_eq!(server.store.engine.stats().claimed, 1);
    }
}
