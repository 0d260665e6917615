//! Where HTTP and its stacks have edges: two names of the key, cookies, tunnels, trailers, permits,
//! requests within requests, task-locals.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::{Next, from_fn};
use axum::{Router, routing::post};
use bytes::Bytes;
use http_body::Frame;
use oncekey_http::{IdempotencyLayer, Policy};
use tokio::io::AsyncWriteExt;
use tower::ServiceExt;

use crate::support::{Gate, KEY, PATIENCE, Server, Store, response};

/// The name of the standard; `KEY` is the other.
const STANDARD: &str = "idempotency-key";

#[tokio::test]
async fn a_key_has_two_names_and_may_be_sent_under_one_of_them() {
    let server = Server::start(async |_| response(201, "created")).await;
    for (name, key) in [(STANDARD, "a"), (KEY, "a"), (STANDARD, "b"), (STANDARD, "b")] {
        let request = server.request(Method::POST, "/").header(name, key);
        assert_eq!(server.send(request, "").await.unwrap().status, 201);
    }
    assert_eq!(server.runs(), 2);
    for names in [[KEY, STANDARD], [STANDARD, STANDARD], [KEY, KEY]] {
        let request = server.request(Method::POST, "/").header(names[0], "k").header(names[1], "k");
        let reply = server.send(request, "").await.unwrap();
        reply.assert_problem(400, "idempotency_key_invalid");
    }
    assert_eq!(server.runs(), 2);
}

#[tokio::test]
async fn a_virtual_host_is_a_request_of_its_own() {
    let server = Server::start(async |_| response(201, "created")).await;
    for (host, status) in
        [("a.example", 201), ("A.example:80", 201), ("b.example", 409), ("a.example:81", 409)]
    {
        let request = server.request(Method::POST, "/").header(KEY, "k").header("host", host);
        assert_eq!(server.send(request, "").await.unwrap().status, status, "{host}");
    }
    assert_eq!(server.runs(), 1);
}

#[tokio::test]
async fn a_cookie_without_a_scope_is_counted() {
    for (scoped, expected) in [(false, 2), (true, 0)] {
        let policy = if scoped { Policy::new().scope(|_| "user") } else { Policy::new() };
        let with = |layer: IdempotencyLayer| layer.policy(policy);
        let server = Server::with(Store::new(), with, async |_| response(200, "")).await;
        for (key, cookie) in
            [(KEY, "cookie"), (KEY, "cookie"), (KEY, "x-none"), ("x-none", "cookie")]
        {
            let request = server.request(Method::POST, "/").header(key, "k").header(cookie, "s=1");
            server.send(request, "").await.unwrap();
        }
        assert_eq!(server.layer.stats().unscoped_cookies, expected);
    }
}

#[tokio::test]
async fn a_tunnel_is_not_replayed() {
    let server = Server::start(async |_| response(200, "")).await;
    for runs in 1..3 {
        let mut stream = server.connect().await;
        let head = format!("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n{KEY}: k\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        while server.runs() < runs {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(server.store.engine.stats().claimed, 0);
}

struct Frames(std::vec::IntoIter<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        std::task::Poll::Ready(self.0.next().map(Ok))
    }
}

#[tokio::test]
async fn trailers_are_replayed_over_http_1() {
    let server = Server::start(async |_| {
        let trailers = [("x-checksum".parse().unwrap(), "abc123".parse().unwrap())];
        let trailers = Frame::trailers(trailers.into_iter().collect());
        let frames = vec![Frame::data(Bytes::from("hello")), trailers];
        let mut answer = response(200, Body::new(Frames(frames.into_iter())));
        answer.headers_mut().insert("trailer", "x-checksum".parse().unwrap());
        answer
    })
    .await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\n{KEY}: k\r\nContent-Length: 0\r\n\r\n"
    );
    for _ in 0..2 {
        let answer = server.raw(request.as_bytes()).await;
        assert!(answer.ends_with(b"0\r\nx-checksum: abc123\r\n\r\n"), "{}", answer.escape_ascii());
    }
    assert_eq!(server.runs(), 1);
}

/// A batch hands the parts of its own request on, with other keys.
#[tokio::test]
async fn a_request_that_a_handler_makes_under_another_key_is_an_operation_of_its_own() {
    let keys = IdempotencyLayer::new(Store::new().engine);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let orders = Router::new()
        .route("/orders", post(async move || counted.fetch_add(1, Ordering::SeqCst).to_string()))
        .layer(keys.clone());
    let inner = orders.clone();
    let batch = async move |request: Request| {
        let (parts, _) = request.into_parts();
        for key in ["s", "s", "t", "b"] {
            let mut parts = parts.clone();
            parts.uri = "/orders".parse().unwrap();
            parts.headers.insert(KEY, key.parse().unwrap());
            let sub = Request::from_parts(parts, Body::empty());
            assert_eq!(inner.clone().oneshot(sub).await.unwrap().status(), 200);
        }
    };
    let app = Router::new().route("/batch", post(batch)).layer(keys);
    let request = http::Request::post("/batch").header(KEY, "b").body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), 200);
    // Twice under keys of their own, and once under the key that the batch holds.
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

/// The parts of the batch have the URI that its client sent in their extensions.
#[cfg(feature = "axum")]
#[tokio::test]
async fn a_request_that_a_handler_makes_has_a_target_of_its_own() {
    for batch_key in [KEY, "x-none"] {
        let keys = IdempotencyLayer::new(Store::new().engine);
        let inner = Router::new()
            .route("/orders", post(async || "ordered"))
            .route("/refunds", post(async || "refunded"))
            .layer(keys.clone());
        let batch = async move |request: Request| {
            let (parts, _) = request.into_parts();
            for (uri, status) in [
                ("/orders", 200),
                ("/orders", 200),
                ("/refunds", 409),
                ("/orders?a", 409),
                ("http://other.example/orders", 409),
            ] {
                let mut parts = parts.clone();
                parts.uri = uri.parse().unwrap();
                parts.headers.insert(KEY, "s".parse().unwrap());
                let sub = Request::from_parts(parts, Body::empty());
                let answer = inner.clone().oneshot(sub).await.unwrap();
                assert_eq!(answer.status(), status, "{uri}");
            }
        };
        let app = Router::new().route("/batch", post(batch)).layer(keys);
        let request = http::Request::post("/batch").header(batch_key, "b").body(Body::empty());
        assert_eq!(app.oneshot(request.unwrap()).await.unwrap().status(), 200);
    }
}

/// The outermost of the three holds the key that the innermost would begin.
#[tokio::test]
async fn a_layer_lets_a_key_pass_that_any_layer_around_it_holds() {
    let keys = IdempotencyLayer::new(Store::new().engine);
    let scoped = keys.clone().policy(Policy::new().scope(|_| "tenant"));
    let app = Router::new().route("/", post(async || "done")).layer(keys.clone());
    let app = app.layer(scoped).layer(keys.clone());
    for _ in 0..2 {
        let request = http::Request::post("/").header(KEY, "k").body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), 200);
    }
    assert_eq!(keys.engine().stats().claimed, 2);
}

tokio::task_local! { static TENANT: u32; }

#[tokio::test]
async fn a_spawner_takes_a_task_local_along() {
    let layer = IdempotencyLayer::with_spawner(Store::new().engine, |task| {
        tokio::spawn(TENANT.scope(TENANT.get(), task));
    });
    let app = Router::new()
        .route("/", post(async || TENANT.get().to_string()))
        .layer(layer)
        .layer(from_fn(|request: Request, next: Next| TENANT.scope(7, next.run(request))));
    for key in [STANDARD, "x-none"] {
        let request = http::Request::post("/").header(key, "k").body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), 200);
    }
}

/// The only permit is taken by the first request. It is taken with `poll_ready` and given back with the answer.
#[tokio::test]
async fn duplicates_need_no_permit_of_a_limit_inside() {
    let gate = Gate::new();
    let passing = gate.clone();
    let layer = IdempotencyLayer::new(Store::new().engine)
        .policy(Policy::new().wait(std::time::Duration::from_secs(20)));
    let inner = tower::service_fn(move |request: Request| {
        let gate = passing.clone();
        async move {
            if request.headers()[KEY].as_bytes().starts_with(b"slow") {
                gate.pass().await;
            }
            Ok::<_, std::convert::Infallible>(response(201, ""))
        }
    });
    let service = tower::ServiceBuilder::new().layer(layer).concurrency_limit(1).service(inner);
    let send = |key: &str| {
        let request = http::Request::post("/").header(KEY, key).body(Body::empty()).unwrap();
        tokio::spawn(tokio::time::timeout(PATIENCE, service.clone().oneshot(request)))
    };
    let status = async |request: tokio::task::JoinHandle<_>| {
        let answer: Result<Result<http::Response<_>, _>, _> = request.await.unwrap();
        answer.expect("an answer").unwrap().status().as_u16()
    };
    let done = send("done");
    assert_eq!(status(done).await, 201);
    let first = send("slow");
    gate.entered().await;
    // The waiting duplicates and the replay are in the layer, while no permit is left.
    let duplicates = [send("slow"), send("slow")];
    assert_eq!(status(send("done")).await, 201);
    let other = send("other");
    // A request that passes through needs a permit, and waits for it.
    let passes = service
        .clone()
        .oneshot(http::Request::get("/").header(KEY, "slow-get").body(Body::empty()).unwrap());
    let passes = tokio::spawn(passes);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!other.is_finished() && !passes.is_finished());
    // Either of those two may get the permit first.
    gate.open(2);
    assert_eq!(status(first).await, 201);
    for duplicate in duplicates {
        assert_eq!(status(duplicate).await, 201);
    }
    assert_eq!(status(other).await, 201);
    assert_eq!(passes.await.unwrap().unwrap().status(), 201);
}

/// Inside, the answer to one origin is part of what is stored.
#[tokio::test]
async fn cors_belongs_outside() {
    let origin = from_fn(|request: Request, next: Next| async {
        let origin = request.headers()["origin"].clone();
        let mut answer = next.run(request).await;
        answer.headers_mut().insert("access-control-allow-origin", origin);
        answer
    });
    for (outside, retry) in [(true, "b"), (false, "a")] {
        let keys = IdempotencyLayer::new(Store::new().engine);
        let app = Router::new().route("/", post(async || "created"));
        let app = if outside {
            app.layer(keys).layer(origin.clone())
        } else {
            app.layer(origin.clone()).layer(keys)
        };
        for (from, allowed) in [("a", "a"), ("b", retry)] {
            let request = http::Request::post("/").header(KEY, "k").header("origin", from);
            let answer = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.headers()["access-control-allow-origin"], allowed);
        }
    }
}
