//! The paths of a request through the HTTP layer, with its default features, around a service that answers at once.
//! A runtime of one thread, the caller's: handlers run there, too, as they do in a server beside its connections.

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::path::Path as Dir;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use oncekey_benches::Result;
use oncekey_http::{Contract, IdempotencyLayer, IdempotencyService};
use tokio::runtime::{Builder, Runtime};
use tower_layer::Layer;
use tower_service::Service;

use crate::paths::{MANY, count, leave, open};
use crate::stores::Store;

type Body = Full<Bytes>;

const BODY: &str = r#"{"customerId":"c-1042","items":[{"sku":"tea","quantity":2}]}"#;
const REPLAYED: &str = "idempotent-replayed";

/// Answers with 1 KiB.
#[derive(Clone)]
struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<std::result::Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut response = Response::new(Full::from(&[b'x'; 1024][..]));
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert(http::header::CONTENT_TYPE, json);
        ready(Ok(response))
    }
}

/// What serves requests.
struct Server {
    runtime: Runtime,
    service: IdempotencyService<Inner>,
    _store: Store,
}

impl Server {
    fn on(store: Store) -> Result<Self> {
        let mut contract = Contract::default();
        let mark = http::HeaderValue::from_static("true");
        contract.replay_marker = Some((http::HeaderName::from_static(REPLAYED), mark));
        let layer = IdempotencyLayer::new(store.engine.clone()).contract(contract);
        let runtime = Builder::new_current_thread().build()?;
        Ok(Self { runtime, service: layer.layer(Inner), _store: store })
    }

    /// Each request is answered before the next is made.
    fn answer(&mut self, requests: Vec<Request<Body>>, replayed: bool) -> Result<()> {
        let Self { runtime, service, .. } = self;
        runtime.block_on(async {
            for request in requests {
                poll_fn(|context| service.poll_ready(context)).await?;
                let response = service.call(request).await?;
                let marked = response.headers().contains_key(REPLAYED);
                if response.status() != StatusCode::OK || marked != replayed {
                    return Err(format!("a wrong answer: {:?}", response.headers()).into());
                }
            }
            Ok(())
        })
    }
}

/// Requests with the headers that a client sends; `keys` says where their keys begin.
fn requests(keys: Option<u64>) -> Result<Vec<Request<Body>>> {
    let request = |number| {
        let mut request = Request::post("/api/v2/orders?page=1")
            .header("host", "localhost")
            .header("user-agent", "instructions")
            .header("accept", "*/*")
            .header("content-type", "application/json")
            .header("content-length", BODY.len())
            .header("authorization", "Bearer 3f1c9a0b7d");
        if let Some(first) = keys {
            request = request.header("idempotency-key", format!("{:036}", first + number));
        }
        Ok(request.body(Full::from(BODY))?)
    };
    (0..MANY).map(request).collect()
}

pub(crate) fn no_key(dir: &Dir, operations: bool) -> Result<()> {
    measured(Server::on(open(dir)?)?, operations, None, false)
}

pub(crate) fn new_keys(dir: &Dir, operations: bool) -> Result<()> {
    let mut server = Server::on(open(dir)?)?;
    // What is made once, by the first of a kind, is not what is counted.
    server.answer(requests(Some(MANY))?, false)?;
    measured(server, operations, Some(0), false)
}

pub(crate) fn replays(dir: &Dir, operations: bool) -> Result<()> {
    let mut server = Server::on(open(dir)?)?;
    server.answer(requests(Some(0))?, false)?;
    measured(server, operations, Some(0), true)
}

fn measured(mut server: Server, operations: bool, keys: Option<u64>, replayed: bool) -> Result<()> {
    let mut made = requests(keys)?;
    count(operations, || server.answer(std::mem::take(&mut made), replayed))?;
    leave((server, made))
}
