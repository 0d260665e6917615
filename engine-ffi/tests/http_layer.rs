//! What the Rust layer, this library and the Go middleware must agree on: the bytes of stored
//! responses, the parts of fingerprints, and the refusals. The vectors are shared with the Go tests.
#![allow(missing_docs, clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use oncekey::{Begin, Engine, Fingerprint, Key};
use oncekey_ffi as ffi;
use oncekey_http::{
    Admission, Contract, Idempotency, IdempotencyLayer, Policy, RequestBody, Ruling, StoredResponse,
};
use oncekey_testing::InMemory;
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn responses() -> Value {
    vectors(include_str!("vectors/responses.json"))
}

fn fingerprints() -> Vec<Value> {
    vectors(include_str!("vectors/fingerprints.json")).as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    let digits = text(value);
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// Headers of a vector; values are Latin-1.
fn headers(value: &Value) -> HeaderMap {
    let pairs = value.as_array().unwrap().iter().map(|pair| {
        let value: Vec<u8> = text(&pair[1]).chars().map(|c| u8::try_from(c).unwrap()).collect();
        (text(&pair[0]).parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(&value).unwrap())
    });
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name, value);
    }
    map
}

fn parts(vector: &Value) -> Fingerprint {
    let parts = vector["parts"].as_array().unwrap();
    parts
        .iter()
        .fold(Fingerprint::builder(), |builder, part| {
            builder.part(text(&part[0]).to_owned(), hex(&part[1]))
        })
        .finish()
}

/// The target of a vector, with the authority that HTTP/2 states beside it.
fn target(vector: &Value) -> String {
    let authority = vector["authority"].as_str();
    authority.map(|authority| format!("https://{authority}")).unwrap_or_default()
        + text(&vector["target"])
}

#[test]
fn the_rust_layer_reads_and_writes_the_stored_responses() {
    let vectors = responses();
    for vector in vectors["responses"].as_array().unwrap() {
        let name = text(&vector["name"]);
        let decoded = StoredResponse::decode(hex(&vector["encoded"])).unwrap();
        assert_eq!(u64::from(decoded.status().as_u16()), vector["status"], "{name}");
        assert_eq!(decoded.headers(), &headers(&vector["headers"]), "{name}");
        assert_eq!(decoded.body()[..], hex(&vector["body"])[..], "{name}");
        assert_eq!(decoded.trailers(), &headers(&vector["trailers"]), "{name}");
        assert_eq!(decoded.encode().unwrap(), hex(&vector["encoded"]), "{name}");
    }
    for vector in vectors["invalid"].as_array().unwrap() {
        assert!(StoredResponse::decode(hex(&vector["encoded"])).is_err(), "{}", vector["name"]);
    }
}

fn slice(bytes: &[u8]) -> ffi::Slice {
    ffi::Slice { ptr: bytes.as_ptr(), len: bytes.len() }
}

/// The fingerprint that the C function makes, seen through a store: what an identical begin gets.
fn begin_from_c(engine: ffi::Engine, key: &[u8], vector: &Value) -> i32 {
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = vector["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| (text(&pair[0]).into(), text(&pair[1]).into()))
        .collect();
    let c_headers: Vec<_> = pairs
        .iter()
        .map(|(name, value)| ffi::Header { name: slice(name), value: slice(value) })
        .collect();
    let chosen: Option<Vec<ffi::Slice>> = vector["fingerprinted"]
        .as_array()
        .map(|names| names.iter().map(|name| slice(text(name).as_bytes())).collect());
    let body = hex(&vector["body"]);
    let target = target(vector);
    let request = ffi::Request {
        method: slice(text(&vector["method"]).as_bytes()),
        target: slice(target.as_bytes()),
        body: slice(&body),
        headers: c_headers.as_ptr(),
        header_count: c_headers.len(),
        fingerprinted: chosen.as_ref().map_or(ptr::null(), |names| names.as_ptr()),
        fingerprinted_count: chosen.as_ref().map_or(0, Vec::len),
    };
    let mut fingerprint = ffi::Fingerprint { id: 0 };
    let mut answer = std::mem::MaybeUninit::<ffi::Answer>::zeroed();
    let key = ffi::Key { scope: slice(b""), key: slice(key) };
    // SAFETY: all pointers are to values that live until the calls have returned.
    let answer = unsafe {
        let none = ptr::null_mut();
        assert_eq!(ffi::oncekey_fingerprint_from_request(&request, &mut fingerprint, none), 0);
        assert_eq!(ffi::oncekey_begin(engine, key, fingerprint, 0, answer.as_mut_ptr(), none), 0);
        answer.assume_init_mut()
    };
    ffi::oncekey_fingerprint_free(fingerprint);
    // SAFETY: the buffer is the one of the answer.
    unsafe { ffi::oncekey_buffer_free(&mut answer.data) };
    answer.outcome
}

/// Completes every vector's operation with the documented parts, through a Rust engine.
fn complete_all(engine: &Engine) {
    for (index, vector) in fingerprints().iter().enumerate() {
        let key = Key::new("", index.to_string()).unwrap();
        match engine.begin(&key, parts(vector)).wait().unwrap() {
            Begin::Claimed(claim) => {
                let response = StoredResponse::new(StatusCode::CREATED, &HeaderMap::new(), "first");
                claim.complete(&response.encode().unwrap()).wait().unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn c_makes_the_fingerprints_of_the_vectors() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    complete_all(&engine);
    engine.close().unwrap();
    let path = directory.path().to_str().unwrap();
    let mut opened = ffi::Engine { id: 0 };
    // SAFETY: the path and the output live until the call has returned.
    let status = unsafe {
        ffi::oncekey_engine_open(slice(path.as_bytes()), ptr::null(), &mut opened, ptr::null_mut())
    };
    assert_eq!(status, ffi::ONCEKEY_OK);
    for (index, vector) in fingerprints().iter().enumerate() {
        let outcome = begin_from_c(opened, index.to_string().as_bytes(), vector);
        assert_eq!(outcome, ffi::ONCEKEY_REPLAY, "{}", vector["name"]);
    }
    assert_eq!(ffi::oncekey_engine_free(opened), ffi::ONCEKEY_OK);
}

/// A handler that counts its runs.
#[derive(Clone)]
struct Handler(Arc<AtomicUsize>);

impl<B> Service<Request<B>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new(Full::from("second"))))
    }
}

#[tokio::test]
async fn the_rust_layer_makes_the_fingerprints_of_the_vectors() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    complete_all(&engine);
    for (index, vector) in fingerprints().iter().enumerate() {
        let mut layer = IdempotencyLayer::new(engine.clone());
        if let Some(names) = vector["fingerprinted"].as_array() {
            let names = names.iter().map(|name| text(name).parse().unwrap());
            layer = layer.policy(Policy::new().fingerprint_headers(names));
        }
        let runs = Arc::new(AtomicUsize::new(0));
        let mut service = layer.layer(Handler(runs.clone()));
        let mut request = Request::new(Full::<Bytes>::from(hex(&vector["body"])));
        *request.method_mut() = text(&vector["method"]).parse().unwrap();
        *request.uri_mut() = target(vector).parse().unwrap();
        *request.headers_mut() = headers(&vector["headers"]);
        request.headers_mut().insert("x-idempotency-key", HeaderValue::from(index));
        let response = service.call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED, "{}", vector["name"]);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "first");
        assert_eq!(runs.load(Ordering::Relaxed), 0);
    }
}

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

/// What the Rust layer answers to the request of a vector, in one form.
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
    let written = include_str!("vectors/refusals.json");
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

#[tokio::test]
async fn the_rust_layer_makes_the_downstream_keys_of_the_vectors() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    for vector in vectors(include_str!("vectors/downstream_keys.json")).as_array().unwrap() {
        let scope = text(&vector["scope"]).to_owned();
        let policy = Policy::new().scope(move |_| scope.clone());
        let idempotency = Idempotency::new(engine.clone()).policy(policy);
        let request = Request::post("/").header("idempotency-key", text(&vector["key"]));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let Admission::Keyed(keyed) = idempotency.admit(&parts) else { panic!("{vector}") };
        let Ruling::Execute(execution) = keyed.begin(&parts, b"").await else { panic!("{vector}") };
        let derived = execution.attempt().downstream_key(text(&vector["step"]));
        assert_eq!(derived, text(&vector["derived"]));
        // It was never started: the key is free for the next vector.
        execution.fail("it is not run").await;
    }
}

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
