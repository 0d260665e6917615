//! What the layer costs: without a key next to nothing, with one the two syncs of the engine. Run
//! with `cargo bench -p oncekey-http --bench layer`.
//!
//! Beside every figure stand those to compare it with: the same service without the layer, and the
//! engine's own begin and complete with the same response.
#![allow(missing_docs)]
#![expect(clippy::unwrap_used, reason = "a bench fails as it likes")]

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use oncekey::{Begin, Engine, Fingerprint, Key};
use oncekey_http::{IdempotencyLayer, IdempotencyService, StoredResponse};
use tower_layer::Layer;
use tower_service::Service;

type Body = Full<Bytes>;

/// Answers at once with 1 KiB.
#[derive(Clone)]
struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Full::from(&[b'x'; 1024][..]))))
    }
}

/// A store beside the build, not in a temporary directory that may lie in memory.
struct Store {
    engine: Option<Engine>,
    directory: PathBuf,
}

impl Store {
    fn create() -> Self {
        let built_in = std::env::current_exe().unwrap();
        let directory = built_in.with_file_name(format!("layer-bench-{}", std::process::id()));
        Self { engine: Some(Engine::open(&directory).unwrap()), directory }
    }

    fn engine(&self) -> Engine {
        self.engine.clone().unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.engine = None;
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("{} could not be removed: {error}", self.directory.display());
        }
    }
}

/// A request with the headers of a real one, so that the look for a key takes its time.
fn request(key: Option<String>) -> Request<Body> {
    let mut request = Request::post("/api/v2/orders?page=1")
        .header("host", "localhost")
        .header("user-agent", "bench")
        .header("accept", "*/*")
        .header("content-type", "application/json")
        .header("authorization", "Bearer 0123456789abcdef0123456789abcdef");
    if let Some(key) = key {
        request = request.header("x-idempotency-key", key);
    }
    request
        .body(Full::from(r#"{"customerId":"c-1","items":[{"sku":"tea","quantity":2}]}"#))
        .unwrap()
}

/// The answer of a service that needs no waiting.
fn at_once<S: Service<Request<Body>>>(service: &mut S, request: Request<Body>) -> S::Response {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    match pin!(service.call(request)).poll(&mut context) {
        Poll::Ready(Ok(response)) => response,
        _ => panic!("the service does not wait"),
    }
}

fn without_a_key(criterion: &mut Criterion) {
    let store = Store::create();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let layered = IdempotencyLayer::new(store.engine()).layer(Inner);
    let mut group = criterion.benchmark_group("without a key");
    // Making the request costs more than the layer: it is not timed.
    let timed = |iterations: u64, service: &mut dyn FnMut(Request<Body>)| {
        let requests: Vec<_> = (0..iterations).map(|_| request(None)).collect();
        let start = Instant::now();
        requests.into_iter().for_each(service);
        start.elapsed()
    };
    group.bench_function("the service alone", |bencher| {
        let mut service = Inner;
        bencher.iter_custom(|iterations| {
            timed(iterations, &mut |request| drop(black_box(at_once(&mut service, request))))
        });
    });
    group.bench_function("behind the layer", |bencher| {
        let mut service = layered.clone();
        bencher.iter_custom(|iterations| {
            timed(iterations, &mut |request| drop(black_box(at_once(&mut service, request))))
        });
    });
    group.finish();
}

async fn answer(service: &mut IdempotencyService<Inner>, key: String, status: StatusCode) {
    std::future::poll_fn(|context| service.poll_ready(context)).await.unwrap();
    let response = service.call(request(Some(key))).await.unwrap();
    assert_eq!(response.status(), status);
}

/// Two syncs, as the engine makes them for a direct caller.
async fn pair(engine: &Engine, key: &str, response: &[u8]) {
    let fingerprint = Fingerprint::builder().part("body", "two").finish();
    match engine.begin(&Key::new("", key).unwrap(), fingerprint).await.unwrap() {
        Begin::Claimed(claim) => drop(claim.complete(response).await.unwrap()),
        other => panic!("the key is new: {other:?}"),
    }
}

fn with_a_key(criterion: &mut Criterion) {
    let store = Store::create();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let service = IdempotencyLayer::new(store.engine()).layer(Inner);
    let response = StoredResponse::new(StatusCode::OK, &HeaderMap::new(), vec![b'x'; 1024]);
    let response = response.encode().unwrap();
    let mut made = 0;
    let mut key = move || {
        made += 1;
        format!("00000000-0000-4000-8000-{made:012}")
    };
    let mut group = criterion.benchmark_group("with a key");
    group.sample_size(30);
    // In turn, so that a disk that slows down slows both.
    for round in 1..=2 {
        group.bench_function(format!("the engine's begin and complete, {round}"), |bencher| {
            let engine = store.engine();
            bencher.iter(|| runtime.block_on(pair(&engine, &key(), &response)));
        });
        group.bench_function(format!("first request, {round}"), |bencher| {
            let mut service = service.clone();
            bencher.iter(|| runtime.block_on(answer(&mut service, key(), StatusCode::OK)));
        });
    }
    group.bench_function("replay", |bencher| {
        let mut service = service.clone();
        runtime.block_on(answer(&mut service, "replayed".to_owned(), StatusCode::OK));
        bencher
            .iter(|| runtime.block_on(answer(&mut service, "replayed".to_owned(), StatusCode::OK)));
    });
    group.finish();
}

criterion_group!(benches, without_a_key, with_a_key);
criterion_main!(benches);
