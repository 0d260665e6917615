//! The service without a server: errors of the inner service, readiness, spawners.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use oncekey_http::{Admission, Idempotency, IdempotencyLayer, RequestBody, Ruling};
use tower_layer::Layer;
use tower_service::Service;

use crate::support::{KEY, Store};

type Body = RequestBody<Full<Bytes>>;

/// Answers with the body of its request, or fails with it. Must be polled ready for each call.
struct Inner {
    mode: Mode,
    ready: bool,
    runs: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
enum Mode {
    Answer,
    SwitchProtocols,
    Fail,
    Panic,
    Hang,
    /// Refuses in `poll_ready`, as a limit that sheds load does.
    Shed,
    /// Panics in `poll_ready`.
    ShedByPanic,
}

impl Inner {
    fn new(mode: Mode) -> Self {
        Self { mode, ready: false, runs: Arc::default() }
    }
}

/// The clone is not the one that was polled ready, as with a real service.
impl Clone for Inner {
    fn clone(&self) -> Self {
        Self { mode: self.mode, ready: false, runs: self.runs.clone() }
    }
}

impl Service<Request<Body>> for Inner {
    type Response = Response<Full<Bytes>>;
    type Error = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Bytes>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Bytes>> {
        if matches!(self.mode, Mode::Shed) {
            return Poll::Ready(Err(Bytes::from("shed")));
        }
        assert!(!matches!(self.mode, Mode::ShedByPanic), "not ready");
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.runs.fetch_add(1, Ordering::SeqCst);
        let mode = self.mode;
        Box::pin(async move {
            let text = request.into_body().collect().await.unwrap().to_bytes();
            match mode {
                Mode::Answer => Ok(Response::new(Full::new(text))),
                Mode::SwitchProtocols => {
                    let mut response = Response::new(Full::new(text));
                    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    Ok(response)
                }
                Mode::Fail => Err(text),
                Mode::Panic => std::panic::panic_any(text),
                Mode::Hang => std::future::pending().await,
                Mode::Shed | Mode::ShedByPanic => unreachable!("it is never ready"),
            }
        })
    }
}

fn post(key: Option<&str>, body: &'static str) -> Request<Body> {
    let mut request = Request::post("/orders");
    if let Some(key) = key {
        request = request.header(KEY, key);
    }
    request.body(RequestBody::new(Full::from(body))).unwrap()
}

async fn call<S: Service<Request<Body>>>(
    service: &mut S,
    request: Request<Body>,
) -> Result<S::Response, S::Error> {
    poll_fn(|context| service.poll_ready(context)).await?;
    service.call(request).await
}

#[tokio::test]
async fn an_error_of_the_inner_service_is_passed_on_and_the_outcome_unknown() {
    let layer = IdempotencyLayer::new(Store::new().engine);
    let mut service = layer.layer(Inner::new(Mode::Fail));
    assert_eq!(call(&mut service, post(None, "no key")).await.unwrap_err(), "no key");
    assert_eq!(call(&mut service, post(Some("k"), "key")).await.unwrap_err(), "key");
    let retry = call(&mut service, post(Some("k"), "key")).await.unwrap();
    assert_eq!(retry.status(), 409);
    let body = retry.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("idempotency_outcome_unknown"));
    assert_eq!(layer.stats().abandoned, 1);
}

/// A layer outside that catches panics sees the handler's own.
#[test]
fn a_panic_is_passed_on_as_it_is() {
    let layer = IdempotencyLayer::with_spawner(Store::new().engine, |task| {
        std::thread::spawn(move || block_on(task));
    });
    let mut service = layer.layer(Inner::new(Mode::Panic));
    let request = call(&mut service, post(Some("k"), "the payload"));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| block_on(request)));
    assert_eq!(caught.unwrap_err().downcast_ref::<Bytes>().unwrap(), "the payload");
    let retry = block_on(call(&mut service, post(Some("k"), "the payload")));
    assert_eq!(retry.unwrap().status(), 409);
}

/// The bytes that follow the head are no response body.
#[tokio::test]
async fn a_switch_of_protocols_is_passed_on_and_never_executed_again() {
    let layer = IdempotencyLayer::new(Store::new().engine);
    let mut service = layer.layer(Inner::new(Mode::SwitchProtocols));
    for status in [101, 409] {
        let response = call(&mut service, post(Some("k"), "")).await.unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(layer.stats().not_stored, 1);
}

/// Inside a stack of layers, whose error type stays that of the service.
#[tokio::test]
async fn it_is_one_layer_of_a_stack() {
    let layer = IdempotencyLayer::new(Store::new().engine);
    let mut service = tower::ServiceBuilder::new()
        .layer_fn(|inner| inner)
        .layer(layer.clone())
        .map_request(|request: Request<Body>| request)
        .service(Inner::new(Mode::Fail));
    let failed: Result<_, Bytes> = call(&mut service, post(Some("k"), "why")).await;
    assert_eq!(failed.unwrap_err(), "why");
    assert_eq!(layer.stats().abandoned, 1);
}

#[tokio::test]
async fn the_service_that_was_polled_ready_is_the_one_that_is_called() {
    let layer = IdempotencyLayer::new(Store::new().engine);
    let inner = Inner::new(Mode::Answer);
    let runs = inner.runs.clone();
    let mut service = layer.layer(inner);
    for key in [Some("a"), Some("b"), None, Some("a"), Some("c"), None] {
        assert_eq!(call(&mut service, post(key, "text")).await.unwrap().status(), 200);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 5);
}

/// Without tokio, on a thread for each execution.
#[test]
fn any_executor_can_run_the_handlers() {
    let spawned = Arc::new(AtomicUsize::new(0));
    let counted = spawned.clone();
    let layer = IdempotencyLayer::with_spawner(Store::new().engine, move |task| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || block_on(task));
    });
    let mut service = layer.layer(Inner::new(Mode::Answer));
    for _ in 0..2 {
        let response = block_on(call(&mut service, post(Some("k"), "text"))).unwrap();
        let body = block_on(response.into_body().collect()).unwrap().to_bytes();
        assert_eq!(body, "text");
    }
    assert_eq!(spawned.load(Ordering::SeqCst), 1);
}

/// It is moved into its allocation for each request.
#[test]
fn the_task_of_a_handler_is_small() {
    let layer = IdempotencyLayer::with_spawner(Store::new().engine, move |task| {
        let size = size_of_val(&*task);
        assert!(size < 2500, "{size} bytes");
        block_on(task);
    });
    let mut service = layer.layer(Inner::new(Mode::Answer));
    let response = block_on(call(&mut service, post(Some("k"), "text"))).unwrap();
    assert_eq!(response.status(), 200);
}

/// An executor that is shut down drops its tasks: the handler may have acted or not.
#[test]
fn a_task_that_is_dropped_leaves_the_outcome_unknown() {
    let layer = IdempotencyLayer::with_spawner(Store::new().engine, |mut task| {
        let started = task.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(started.is_pending());
    });
    let mut service = layer.layer(Inner::new(Mode::Hang));
    for _ in 0..2 {
        let response = block_on(call(&mut service, post(Some("k"), "text"))).unwrap();
        assert_eq!(response.status(), 409);
    }
    assert_eq!(layer.engine().stats().in_flight, 0);
    assert_eq!(layer.engine().orphans().unwrap().len(), 1);
    assert_eq!(layer.stats().abandoned, 1);
    block_on(layer.drained());
}

/// A committed transaction decides, however its handler ends.
#[test]
fn an_execution_that_a_transaction_completed_is_not_abandoned() {
    for (completed, abandoned) in [(true, 0), (false, 1)] {
        let idempotency = Idempotency::new(Store::new().engine);
        let (parts, body) = post(Some("k"), "").into_parts();
        let Admission::Keyed(keyed) = idempotency.admit(&parts) else { panic!("it has a key") };
        let body = block_on(keyed.read(&parts, body)).unwrap();
        let ruling = block_on(keyed.begin(&parts, &body));
        let Ruling::Execute(execution) = ruling else { panic!("the key is new") };
        execution.start();
        let taken = execution.attempt().take(&http::Response::new("")).unwrap();
        execution.attempt().give_back(taken.claim, completed);
        drop(execution);
        assert_eq!(idempotency.stats().abandoned, abandoned);
    }
}

/// "Nothing happened" is certain: the handler was never called.
#[test]
fn a_task_that_is_dropped_before_its_handler_is_called_leaves_the_key_free() {
    let going_down = Arc::new(AtomicUsize::new(2));
    let left = going_down.clone();
    let layer = IdempotencyLayer::with_spawner(Store::new().engine, move |task| {
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => drop(task),
            Err(_) => drop(std::thread::spawn(move || block_on(task))),
        }
    });
    let mut service = layer.layer(Inner::new(Mode::Answer));
    for status in [503, 503, 200, 200] {
        let response = block_on(call(&mut service, post(Some("k"), "text"))).unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key("retry-after"), status == 503);
    }
    assert!(layer.engine().orphans().unwrap().is_empty());
}

#[test]
fn a_spawner_that_panics_leaves_the_key_free() {
    let layer = IdempotencyLayer::with_spawner(Store::new().engine, |_| panic!("no thread"));
    let mut service = layer.layer(Inner::new(Mode::Answer));
    for _ in 0..2 {
        let request = call(&mut service, post(Some("k"), "text"));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| block_on(request)));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"no thread"));
    }
    assert!(layer.engine().orphans().unwrap().is_empty());
}

/// The layer is ready; the service that would run the handler refuses.
#[tokio::test]
async fn an_inner_service_that_refuses_before_it_is_called_frees_the_key() {
    let layer = IdempotencyLayer::new(Store::new().engine);
    let mut service = layer.layer(Inner::new(Mode::Shed));
    for freed in 1..3 {
        assert_eq!(service.call(post(Some("k"), "")).await.unwrap_err(), "shed");
        assert_eq!(layer.stats().not_executed, freed);
    }
    // The same without a key.
    assert_eq!(service.call(post(None, "")).await.unwrap_err(), "shed");
    assert_eq!(layer.stats().abandoned, 0);
    assert!(layer.engine().orphans().unwrap().is_empty());
}

#[test]
fn an_inner_service_that_panics_before_it_is_called_frees_the_key() {
    let layer = IdempotencyLayer::with_spawner(Store::new().engine, |task| {
        std::thread::spawn(move || block_on(task));
    });
    let mut service = layer.layer(Inner::new(Mode::ShedByPanic));
    for freed in 1..3 {
        let request = service.call(post(Some("k"), ""));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| block_on(request)));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"not ready"));
        assert_eq!((layer.stats().not_executed, layer.stats().abandoned), (freed, 0));
    }
    assert!(layer.engine().orphans().unwrap().is_empty());
}

fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
