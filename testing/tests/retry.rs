//! The example of docs/testing.md: a handler is called once although its client retries.
#![allow(missing_docs, clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use oncekey_http::IdempotencyLayer;
use oncekey_testing::{Fault, InMemory, OpKind};
use tower::{Layer, Service, ServiceExt, service_fn};

/// The service under test: your router stands here.
fn service(
    store: &InMemory,
    runs: Arc<AtomicUsize>,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<impl http_body::Body<Data = Bytes>>,
    Error = Infallible,
> + Clone {
    let handler = service_fn(move |_: Request<Full<Bytes>>| {
        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Ok::<_, Infallible>(Response::new(Full::from(format!("order {run}")))) }
    });
    IdempotencyLayer::new(store.engine().clone()).layer(handler)
}

/// Sends the request of a client; status and body.
async fn send<S, R>(service: &S, key: &str) -> (u16, Bytes)
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible> + Clone,
    R: http_body::Body<Data = Bytes>,
{
    let request = Request::post("/orders").header("idempotency-key", key);
    let request = request.body(Full::from("two apples")).unwrap();
    let response = service.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let Ok(body) = response.into_body().collect().await else { panic!("the body is whole") };
    (status, body.to_bytes())
}

#[tokio::test]
async fn my_handler_is_called_once_although_the_client_retries() {
    let (store, runs) = (InMemory::new(), Arc::new(AtomicUsize::new(0)));
    let service = service(&store, runs.clone());
    let first = send(&service, "k").await;
    assert_eq!(first, (200, Bytes::from("order 1")));
    for _ in 0..3 {
        assert_eq!(send(&service, "k").await, first);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);

    // The server is killed and started again.
    let store = store.after_kill().unwrap();
    let service = self::service(&store, runs.clone());
    assert_eq!(send(&service, "k").await, first);

    // A day later the key is a new operation.
    store.clock().advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(send(&service, "k").await, (200, Bytes::from("order 2")));
}

#[tokio::test]
async fn my_client_is_told_to_come_again_while_the_disk_fails() {
    let (store, runs) = (InMemory::new(), Arc::new(AtomicUsize::new(0)));
    let service = service(&store, runs.clone());
    store.disk().inject(Fault::at_kind(OpKind::Sync, 0).errno(Fault::EIO).forever());
    assert_eq!(send(&service, "k").await.0, 503);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    store.disk().clear_faults();
    store.engine().reopen().unwrap();
    assert_ne!(send(&service, "k").await.0, 503);
}
