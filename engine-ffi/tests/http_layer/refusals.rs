//! Refusals: the same answers in three languages.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use oncekey::{Begin, Engine, Fingerprint, Key};
use oncekey_http::{Contract, IdempotencyLayer, Policy, RequestBody};
use oncekey_testing::InMemory;
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

use crate::vectors::{Handler, text, vectors};

/// Brings the operation `k` (POST /orders, "2 apples", no header in the fingerprint) into the state that a vector asks
/// for. The returned claim keeps it there.
fn prepare(engine: &Engine, state: &str) -> Option<oncekey::Claim> {
    let fingerprint = Fingerprint::builder()
        .part("method", "POST")
        .part("target", "/orders")
        .part("body", "2 apples")
        .finish();
    let claim = || match engine.begin(&Key::new("", "k").unwrap(), fingerprint.clone()).wait() {
        Ok(Begin::Claimed(claim)) => claim,
        other => panic!("{other:?}"),
    };
    match state {
        "new" => {}
        "in flight" => return Some(claim()),
        "completed" => drop(claim().complete(b"not a response").wait().unwrap()),
        "completed without response" => drop(claim().complete_with(None, None).wait().unwrap()),
        "orphaned" => drop(claim()),
        "closed" => drop(engine.close().unwrap()),
        other => panic!("no state {other}"),
    }
    None
}

/// The body of a vector, which may never end.
struct Arriving {
    text: Option<Bytes>,
    stalls: bool,
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.text.take() {
            Some(text) => Poll::Ready(Some(Ok(Frame::data(text)))),
            None if self.stalls => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

fn layer(engine: Engine, vector: &Value) -> IdempotencyLayer {
    let mut policy = Policy::new()
        .required(vector["required"].as_bool().unwrap())
        .fingerprint_headers([])
        .scope({
            let scope = text(&vector["scope"]).to_owned();
            move |_| scope.clone()
        });
    if let Some(limit @ 1..) = vector["maxRequestBody"].as_u64() {
        policy = policy.max_request_body(usize::try_from(limit).unwrap());
    }
    let mut layer = match vector["startsHandlers"].as_bool() {
        Some(false) => IdempotencyLayer::with_spawner(engine, drop),
        _ => IdempotencyLayer::new(engine).body_idle(Duration::from_millis(1)),
    };
    if let Some(limit) = vector["maxBuffered"].as_u64() {
        layer = layer.max_buffered(usize::try_from(limit).unwrap());
    }
    layer.policy(policy)
}

/// The forms of a refusal: those of the presets, and that of a call of gRPC.
const FORMS: [&str; 4] = ["default", "ietf", "stripe", "grpc"];

/// The answer of the Rust layer to the request of a vector, in one form.
async fn answer(vector: &Value, form: &str) -> Value {
    let contract = match form {
        "ietf" => Contract::ietf(),
        "stripe" => Contract::stripe(),
        _ => Contract::default(),
    };
    // Its clock stands still: the advice when to retry, which grows with the age of a claim, is the least one.
    let store = InMemory::new();
    let held = prepare(store.engine(), text(&vector["store"]));
    let runs = Arc::new(AtomicUsize::new(0));
    let mut service =
        layer(store.engine().clone(), vector).contract(contract).layer(Handler(runs.clone()));
    let body = Arriving {
        text: Some(text(&vector["body"]).to_owned().into()),
        stalls: vector["stalls"].as_bool() == Some(true),
    };
    let mut request = Request::post("/orders").body(RequestBody::new(body)).unwrap();
    for key in vector["keys"].as_array().unwrap() {
        let value = HeaderValue::from_str(text(key)).unwrap();
        request.headers_mut().append("x-idempotency-key", value);
    }
    if form == "grpc" {
        request
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc+proto"));
    }
    let (head, body) = service.call(request).await.unwrap().into_parts();
    assert_eq!(runs.load(Ordering::Relaxed), 0, "{form}: {}", vector["name"]);
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap())));
    let headers: serde_json::Map<String, Value> = headers.collect();
    let body = body.collect().await.unwrap().to_bytes();
    drop(held);
    serde_json::json!({
        "status": head.status.as_u16(),
        "headers": headers,
        "body": std::str::from_utf8(&body).unwrap(),
    })
}

/// The answers in the file are those of the Rust layer. `ONCEKEY_BLESS=1` writes them anew, for the commit whose
/// change explains them.
#[tokio::test]
async fn the_rust_layer_refuses_as_the_vectors_say() {
    let written = include_str!("../vectors/refusals.json");
    let mut vectors = vectors(written);
    for vector in vectors.as_array_mut().unwrap() {
        let forms = match vector["forms"].as_array() {
            Some(some) => some.iter().map(|form| text(form).to_owned()).collect(),
            None => FORMS.map(str::to_owned).to_vec(),
        };
        let mut answers = serde_json::Map::new();
        for form in forms {
            let answer = answer(vector, &form).await;
            answers.insert(form, answer);
        }
        vector["answers"] = answers.into();
    }
    let found = serde_json::to_string_pretty(&vectors).unwrap() + "\n";
    if std::env::var_os("ONCEKEY_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/refusals.json");
        std::fs::write(path, found).unwrap();
    } else {
        for (line, (found, written)) in found.lines().zip(written.lines()).enumerate() {
            assert_eq!(found, written, "line {} of refusals.json", line + 1);
        }
        assert_eq!(found.len(), written.len());
    }
}
