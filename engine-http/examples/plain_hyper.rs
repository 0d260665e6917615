//! Idempotency keys on a plain hyper server: no framework, no router.
//!
//! ```text
//! cargo run --example plain_hyper
//! curl -i http://127.0.0.1:8080/ -H 'X-Idempotency-Key: k-1' -d hello
//! ```
//!
//! Arguments: the address to listen on, and the directory of the store.

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use oncekey_http::{IdempotencyLayer, RequestBody};
use tokio::net::TcpListener;
use tower::ServiceBuilder;

static RUNS: AtomicU64 = AtomicU64::new(0);

/// Answers with what it got and how often it ran.
async fn handler(
    request: Request<RequestBody<Incoming>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let run = RUNS.fetch_add(1, Ordering::SeqCst) + 1;
    let answer = match request.into_body().collect().await {
        Ok(body) => format!("run {run}: {}", body.to_bytes().escape_ascii()),
        // Only without a key: with one, the layer has read the body before.
        Err(error) => format!("run {run}: {error}"),
    };
    Ok(Response::new(Full::from(answer)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let store = arguments.next().unwrap_or_else(|| "./plain-hyper-store".to_owned());

    let service = ServiceBuilder::new()
        // hyper's body cannot be made from bytes, which the layer has read: this one can.
        .map_request(|request: Request<Incoming>| request.map(RequestBody::new))
        .layer(IdempotencyLayer::new(oncekey::Engine::open(store)?))
        .service_fn(handler);
    let service = TowerToHyperService::new(service);

    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}
