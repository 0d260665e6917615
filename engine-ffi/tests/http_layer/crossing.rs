//! A response that one language stored is replayed by another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use oncekey::Engine;
use oncekey_http::IdempotencyLayer;
use tower_layer::Layer;
use tower_service::Service;

use crate::vectors::Handler;

/// The request of the crossing: Go's `crossing_test.go` sends the same.
async fn cross(engine: &Engine, key: &'static str, runs: &Arc<AtomicUsize>) -> (HeaderMap, Bytes) {
    let mut service = IdempotencyLayer::new(engine.clone()).layer(Handler(runs.clone()));
    let request = Request::post("/orders?a=1&b=%20")
        .header("x-idempotency-key", key)
        .header("content-type", "application/json")
        .header("authorization", "Bearer t")
        .header("host", "Shop.example:443")
        .body(Full::<Bytes>::from("2 apples"))
        .unwrap();
    let (head, body) = service.call(request).await.unwrap().into_parts();
    assert_eq!(head.status, StatusCode::OK);
    (head.headers, body.collect().await.unwrap().to_bytes())
}

fn crossing() -> Engine {
    let directory = std::env::var("ONCEKEY_CROSSING").expect("ONCEKEY_CROSSING is a directory");
    Engine::open(directory).unwrap()
}

#[tokio::test]
#[ignore = "the first of three steps with Go: engine-ffi/test.sh runs them"]
async fn crossing_1_the_rust_layer_stores_a_response() {
    let (engine, runs) = (crossing(), Arc::default());
    assert_eq!(cross(&engine, "from rust", &runs).await.1, "second");
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    engine.close().unwrap();
}

#[tokio::test]
#[ignore = "the last of three steps with Go: engine-ffi/test.sh runs them"]
async fn crossing_3_the_rust_layer_replays_what_go_stored() {
    let (engine, runs) = (crossing(), Arc::default());
    let (headers, body) = cross(&engine, "from go", &runs).await;
    assert_eq!(body, "created by go");
    let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    engine.close().unwrap();
}
