//! Keys that are refused, and the options about keys.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;
use oncekey_http::{Contract, Policy};

use crate::support::{KEY, Server, Store, response};

async fn created(_: Request) -> Response {
    response(201, "created")
}

#[tokio::test]
async fn a_bad_key_is_refused_and_nothing_runs() {
    let server = Server::start(created).await;
    let long = "k".repeat(256);
    for bad in [&b""[..], b"  ", b"a\tb", long.as_bytes()] {
        let value = HeaderValue::from_bytes(bad).unwrap();
        let request = server.request(Method::POST, "/orders").header(KEY, value);
        let reply = server.send(request, "body").await.unwrap();
        reply.assert_problem(400, "idempotency_key_invalid");
    }
    for second in ["a", "b"] {
        let request = server.request(Method::POST, "/orders").header(KEY, "a").header(KEY, second);
        let reply = server.send(request, "body").await.unwrap();
        reply.assert_problem(400, "idempotency_key_invalid");
    }
    assert_eq!(server.runs(), 0);
    assert_eq!(server.layer.stats().key_refused, 6);
    // A key at the limit is accepted, and a refused request did not use the key.
    for good in ["k".repeat(255).as_str(), "a", "with blanks, \"quotes\"; and more"] {
        assert_eq!(server.post(good, "body").await.status, 201);
    }
    assert_eq!(server.runs(), 3);
}

#[tokio::test]
async fn in_required_mode_a_missing_key_is_refused() {
    let server =
        Server::with(Store::new(), |layer| layer.policy(Policy::new().required(true)), created)
            .await;
    let reply = server.send(server.request(Method::POST, "/orders"), "body").await.unwrap();
    reply.assert_problem(400, "idempotency_key_missing");
    assert!(reply.json()["detail"].as_str().unwrap().contains(KEY));
    assert_eq!(server.runs(), 0);
    let get = server.request(Method::GET, "/orders");
    assert_eq!(server.send(get, "").await.unwrap().status, 201);
    assert_eq!(server.post("k", "body").await.status, 201);
    assert_eq!(server.runs(), 2);
}

#[tokio::test]
async fn the_header_can_have_another_name() {
    let mut contract = Contract::default();
    contract.headers = vec![HeaderName::from_static("idempotency-key")];
    let server = Server::with(Store::new(), |layer| layer.contract(contract), created).await;
    for _ in 0..2 {
        let request = server.request(Method::POST, "/orders").header("Idempotency-Key", "k");
        assert_eq!(server.send(request, "").await.unwrap().status, 201);
    }
    assert_eq!(server.runs(), 1);
    for _ in 0..2 {
        assert_eq!(server.post("k", "").await.status, 201);
    }
    assert_eq!(server.runs(), 3, "the default name does not count any more");
}

#[tokio::test]
async fn other_headers_can_be_fingerprinted() {
    let names = [HeaderName::from_static("x-currency")];
    let policy = Policy::new().fingerprint_headers(names);
    let configured = |layer: oncekey_http::IdempotencyLayer| layer.policy(policy);
    let server = Server::with(Store::new(), configured, created).await;
    let send = async |currency: &str, token: &str| {
        let request = server.request(Method::POST, "/").header(KEY, "k");
        let request = request.header("x-currency", currency).header("authorization", token);
        server.send(request, "").await.unwrap()
    };
    let first = send("EUR", "a").await;
    send("EUR", "b").await.assert_same(&first);
    let other = send("USD", "a").await;
    other.assert_problem(409, "idempotency_key_mismatch");
    assert_eq!(other.json()["parts"], serde_json::json!(["header x-currency"]));
    assert_eq!(server.runs(), 1);
}
