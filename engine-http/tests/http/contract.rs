//! First request, retry, duplicate, other request, expiry; and the requests that the layer never
//! touches.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use oncekey::Key;
use oncekey_http::{IdempotencyLayer, Policy, StoredResponse};

use crate::support::{KEY, Server, Store, left_out, response};

/// Repeated names, an order that no sorting would give, and bytes that are no text.
async fn order(request: Request) -> axum::response::Response {
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let mut response = response(201, [&b"\0\xff"[..], &body].concat());
    for (name, value) in [
        ("x-zulu", "1"),
        ("set-cookie", "a=1; Path=/"),
        ("location", "/orders/7"),
        ("set-cookie", "b=2"),
        ("content-type", "application/octet-stream"),
    ] {
        response.headers_mut().append(name, value.parse().unwrap());
    }
    response
}

#[tokio::test]
async fn a_retry_gets_the_first_response_and_the_handler_runs_once() {
    let server = Server::start(order).await;
    let first = server.post("k", "one").await;
    assert_eq!((first.status, &first.body[..]), (201, &b"\0\xffone"[..]));
    assert_eq!(first.headers.get_all("set-cookie").iter().count(), 2);
    for _ in 0..3 {
        server.post("k", "one").await.assert_same(&first);
    }
    assert_eq!(server.runs(), 1);
    server.post("another", "one").await;
    assert_eq!(server.runs(), 2);
}

/// The answers are the same on the wire, not only for a client that sorts headers into a map.
#[tokio::test]
async fn a_retry_is_the_same_on_the_wire_but_for_its_date() {
    let server = Server::start(order).await;
    let request = format!(
        "POST /orders?a=%20 HTTP/1.1\r\nHost: x\r\n{KEY}: k\r\nContent-Length: 3\r\nConnection: close\r\n\r\none"
    );
    let without_date = |answer: Vec<u8>| {
        let start = answer.windows(8).position(|window| window == b"\r\ndate: ").unwrap();
        let date = b"\r\ndate: Tue, 24 Nov 2026 07:17:50 GMT".len();
        [&answer[..start], &answer[start + date..]].concat()
    };
    let first = without_date(server.raw(request.as_bytes()).await);
    let retry = without_date(server.raw(request.as_bytes()).await);
    assert_eq!(first.escape_ascii().to_string(), retry.escape_ascii().to_string());
    assert!(first.starts_with(b"HTTP/1.1 201 Created\r\nx-zulu: 1\r\nset-cookie: a=1"));
    assert!(first.ends_with(b"\r\n\r\n\0\xffone"));
    assert_eq!(server.runs(), 1);
}

/// A replay repeats no header of the handler about its connection or the moment.
#[tokio::test]
async fn hop_by_hop_headers_and_the_date_are_not_replayed() {
    let server = Server::start(|_| async {
        let mut response = response(200, "body");
        for (name, value) in [
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=7"),
            ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("x-kept", "1"),
        ] {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        response
    })
    .await;
    let first = server.post("k", "").await;
    assert_eq!(first.headers["x-hop"], "1");
    let retry = server.post("k", "").await;
    for name in ["connection", "x-hop", "keep-alive"] {
        assert!(!retry.headers.contains_key(name), "{name}");
    }
    assert_ne!(retry.headers["date"], first.headers["date"]);
    assert_eq!(retry.headers["content-length"], "4");
    assert_eq!(
        (&retry.headers["x-kept"], &retry.body[..]),
        (&first.headers["x-kept"], &b"body"[..])
    );
    assert_eq!(server.runs(), 1);
}

/// Every response is stored: the handler may have acted before it failed.
#[tokio::test]
async fn errors_are_replayed_too() {
    let server = Server::start(|request: Request| async move {
        let status = request.uri().path()[1..].parse().unwrap();
        response(status, if status == 204 { "" } else { "text" })
    })
    .await;
    for status in [200, 204, 303, 400, 403, 404, 408, 409, 422, 500, 502, 503, 504] {
        let before = server.runs();
        let send = || {
            let request = server.request(Method::POST, &format!("/{status}"));
            server.send(request.header(KEY, format!("k-{status}")), "")
        };
        let first = send().await.unwrap();
        assert_eq!(first.status, status);
        send().await.unwrap().assert_same(&first);
        assert_eq!(server.runs(), before + 1, "{status}");
    }
}

#[tokio::test]
async fn these_answers_free_the_key() {
    let server = Server::start(|request: Request| async move {
        let status = request.uri().path()[1..].parse::<u16>().unwrap();
        let mut answer = response(status, "nothing happened");
        if status == 503 {
            answer.extensions_mut().insert(oncekey_http::NotExecuted);
        }
        answer
    })
    .await;
    for status in [401, 425, 429, 503] {
        let before = server.runs();
        for run in 1..=2 {
            let request = server.request(Method::POST, &format!("/{status}"));
            let reply = server.send(request.header(KEY, format!("k-{status}")), "").await.unwrap();
            assert_eq!((reply.status, &reply.body[..]), (status, &b"nothing happened"[..]));
            assert_eq!(server.runs(), before + run);
        }
    }
    assert_eq!(server.layer.stats().not_executed, 8);
    assert_eq!(server.store.engine.stats().in_flight, 0);
}

/// A key that is free can be used for any URL.
#[tokio::test]
async fn a_freed_key_takes_another_request() {
    let server = Server::start(|_| async { response(429, "later") }).await;
    assert_eq!(server.post("k", "one").await.status, 429);
    assert_eq!(server.post("k", "two").await.status, 429);
    assert_eq!(server.runs(), 2);
}

#[tokio::test]
async fn a_duplicate_is_refused_while_the_first_runs() {
    if left_out("clock of the test's own") {
        return;
    }
    let (server, gate) = Server::gated(Policy::new()).await;
    let first = server.post_later("k", "one");
    gate.entered().await;
    for running in [0, 250, 60_000] {
        server.store.clock.advance(Duration::from_millis(running));
        let duplicate = server.post("k", "one").await;
        duplicate.assert_problem(409, "idempotency_key_locked");
        assert_eq!(duplicate.headers["retry-after"], "1");
        let retry_after = duplicate.json()["retryAfterMs"].as_u64().unwrap();
        assert_eq!(retry_after, running.clamp(100, 500));
    }
    // A mismatch is told before the state of the key.
    server.post("k", "two").await.assert_problem(409, "idempotency_key_mismatch");
    gate.open(1);
    let first = first.await.unwrap();
    assert_eq!(first.status, 201);
    server.post("k", "one").await.assert_same(&first);
    assert_eq!(server.runs(), 1);
}

/// Many requests at once, and a fast handler: one runs, the others are locked or replayed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_duplicates_at_once_one_runs() {
    let server = Arc::new(Server::start(|_| async { response(201, "done") }).await);
    for round in 0..20 {
        let key = format!("k-{round}");
        let duplicates: Vec<_> = (0..8).map(|_| server.post_later(&key, "same")).collect();
        let mut done = 0;
        for duplicate in duplicates {
            let reply = duplicate.await.unwrap();
            match reply.status {
                201 => done += 1,
                _ => reply.assert_problem(409, "idempotency_key_locked"),
            }
        }
        assert!(done >= 1);
        assert_eq!(server.runs(), round + 1);
    }
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused_with_what_differs() {
    let server = Server::start(order).await;
    let base = || {
        let request = server.request(Method::POST, "/orders?page=1").header(KEY, "k");
        request.header("content-type", "text/plain").header("authorization", "Bearer a")
    };
    let first = server.send(base(), "body").await.unwrap();
    let uri = |target| format!("http://{}{target}", server.address);
    let cases = [
        (base().method(Method::PUT), "body", vec!["method"]),
        (base().uri(uri("/orders?page=2")), "body", vec!["target"]),
        (base().uri(uri("/orders")), "body", vec!["target"]),
        (base().uri(uri("/Orders?page=1")), "body", vec!["target"]),
        (base(), "body ", vec!["body"]),
        (base().header("content-type", "text/html"), "body", vec!["header content-type"]),
        (base().header("x-api-key", "k"), "body", vec!["header x-api-key"]),
        (base().header("authorization", "Bearer b"), "other", vec!["header authorization", "body"]),
    ];
    for (request, body, parts) in cases {
        let reply = server.send(request, body).await.unwrap();
        reply.assert_problem(409, "idempotency_key_mismatch");
        assert_eq!(reply.json()["parts"], serde_json::json!(parts));
        assert!(!reply.headers.contains_key("retry-after"));
    }
    // Headers that do not count may differ, and so may the case and order of those that do.
    let request =
        server.request(Method::POST, "/orders?page=1").header("Authorization", "Bearer a");
    let request = request.header("user-agent", "other").header("CONTENT-TYPE", "text/plain");
    server
        .send(request.header("X-Idempotency-Key", "k"), "body")
        .await
        .unwrap()
        .assert_same(&first);
    assert_eq!(server.runs(), 1);
}

#[tokio::test]
async fn a_key_is_new_again_24_hours_after_its_response() {
    if left_out("clock of the test's own") {
        return;
    }
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let server = Server::start(order).await;
    let first = server.post("k", "one").await;
    server.store.clock.advance(DAY - Duration::from_millis(1));
    server.post("k", "one").await.assert_same(&first);
    assert_eq!(server.runs(), 1);
    server.store.clock.advance(Duration::from_millis(1));
    assert_eq!(server.post("k", "another order").await.status, 201);
    assert_eq!(server.runs(), 2);
}

#[tokio::test]
async fn safe_methods_and_requests_without_a_key_pass_through() {
    let server = Server::start(order).await;
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
        for _ in 0..2 {
            // Even a key that would be refused does not matter.
            let request = server.request(method.clone(), "/orders").header(KEY, "a");
            assert_eq!(server.send(request.header(KEY, "b"), "").await.unwrap().status, 201);
        }
    }
    assert_eq!(server.runs(), 8);
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        for _ in 0..2 {
            let request = server.request(method.clone(), "/orders");
            assert_eq!(server.send(request, "body").await.unwrap().status, 201);
        }
    }
    assert_eq!(server.runs(), 16);
    assert_eq!(server.store.engine.stats().claimed, 0);
}

#[tokio::test]
async fn every_unsafe_method_takes_part() {
    let server = Server::start(order).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "REPORT"] {
        let method: Method = method.parse().unwrap();
        let before = server.runs();
        for _ in 0..2 {
            let request = server.request(method.clone(), "/orders").header(KEY, method.as_str());
            assert_eq!(server.send(request, "body").await.unwrap().status, 201);
        }
        assert_eq!(server.runs(), before + 1, "{method}");
    }
}

#[tokio::test]
async fn the_same_key_in_two_scopes_is_two_operations() {
    let by_tenant = |layer: IdempotencyLayer| {
        layer.policy(Policy::new().scope(|request| match request.headers.get("x-tenant") {
            Some(tenant) => tenant.as_bytes().to_vec(),
            None => Vec::new(),
        }))
    };
    let server = Server::with(Store::new(), by_tenant, order).await;
    let send = async |tenant: &str| {
        let request = server.request(Method::POST, "/").header(KEY, "k");
        server.send(request.header("x-tenant", tenant), "body").await.unwrap()
    };
    let one = send("one").await;
    let two = send("two").await;
    assert_eq!(server.runs(), 2);
    send("one").await.assert_same(&one);
    send("two").await.assert_same(&two);
    assert_eq!(server.runs(), 2);
    send(&"t".repeat(256)).await.assert_problem(400, "idempotency_key_invalid");
    assert_eq!(server.runs(), 2);
}

/// `get` returns the response that clients get.
#[tokio::test]
async fn what_is_stored_can_be_decoded_from_the_engine() {
    let server = Server::start(order).await;
    server.post("k", "one").await;
    let key = Key::new("", "k").unwrap();
    let oncekey::Lookup::Completed(recorded) = server.store.engine.get(&key).unwrap() else {
        panic!("the operation was completed");
    };
    let stored = StoredResponse::decode(recorded.response().unwrap().to_vec()).unwrap();
    assert_eq!(stored.status(), StatusCode::CREATED);
    assert_eq!(&stored.body()[..], b"\0\xffone");
}
