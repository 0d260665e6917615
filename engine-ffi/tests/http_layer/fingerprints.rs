//! Stored responses, fingerprints and keys for calls downstream: the same bytes in three languages.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use oncekey::{Begin, Engine, Fingerprint, Key};
use oncekey_ffi as ffi;
use oncekey_http::{Admission, Idempotency, IdempotencyLayer, Policy, Ruling, StoredResponse};
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

use crate::vectors::{Handler, headers, hex, text, vectors};

fn responses() -> Value {
    vectors(include_str!("../vectors/responses.json"))
}

fn fingerprints() -> Vec<Value> {
    vectors(include_str!("../vectors/fingerprints.json")).as_array().unwrap().clone()
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

#[tokio::test]
async fn the_rust_layer_makes_the_downstream_keys_of_the_vectors() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    for vector in vectors(include_str!("../vectors/downstream_keys.json")).as_array().unwrap() {
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
