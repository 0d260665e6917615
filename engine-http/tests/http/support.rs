//! A server with the layer, and a client. `ONCEKEY_TEST_STORE=postgres` gives each test tables in a PostgreSQL instead
//! of a store in memory.

use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Router, http::Method};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use oncekey::{Engine, Options};
use oncekey_http::{IdempotencyLayer, Policy};
use oncekey_testing::postgres::{self, PostgresServer};
use oncekey_testing::{ManualClock, SimDisk};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub(crate) const KEY: &str = "x-idempotency-key";
/// Longer than any wait of the tests takes, on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the store is a database, and the test needs `embedded`, which only a store in memory has. Prints that the
/// test is left out.
pub(crate) fn left_out(embedded: &str) -> bool {
    let left_out = postgres::is_chosen();
    if left_out {
        println!("LEFT OUT: a database has no {embedded}");
    }
    left_out
}

/// The engine under test. Its disk and clock are the test's own, unless the store is a database, which has neither.
pub(crate) struct Store {
    pub(crate) engine: Engine,
    pub(crate) disk: SimDisk,
    pub(crate) clock: ManualClock,
}

impl Store {
    pub(crate) fn new() -> Self {
        match postgres::is_chosen() {
            false => Self::with(|options| options),
            true => Self { engine: shared(), disk: SimDisk::new(), clock: ManualClock::new() },
        }
    }

    /// A store in memory, with these options.
    pub(crate) fn with(options: impl FnOnce(Options) -> Options) -> Self {
        let (disk, clock) = (SimDisk::new(), ManualClock::new());
        let base = Options::new()
            .segment_bytes(4 << 20)
            .disk(Arc::new(disk.clone()))
            .clock(Arc::new(clock.clone()));
        let engine = options(base).open("/store").unwrap();
        Self { engine, disk, clock }
    }

    /// Another store of the same disk.
    #[cfg(feature = "admin")]
    pub(crate) fn reopen_at(&self, path: &str) -> Engine {
        let options = Options::new().segment_bytes(4 << 20).disk(Arc::new(self.disk.clone()));
        options.clock(Arc::new(self.clock.clone())).open_existing(path).unwrap()
    }
}

/// An engine on tables of its own, in a database for all tests: to make another takes longer than most of them.
fn shared() -> Engine {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let server = PostgresServer::of_this_process().expect("PostgreSQL is installed");
    let url = server.url("postgres");
    let schema = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
    // Keeps no response in memory: every replay is read from the database, as that of another process would be.
    let engine = oncekey::fleet::Options { replay_bytes: 0, ..Default::default() };
    let options = oncekey_postgres::Options::new(url).engine(engine);
    options.schema(schema).create(true).open().unwrap()
}

/// A running server whose every path is one handler, and a client of it.
pub(crate) struct Server {
    pub(crate) store: Store,
    pub(crate) layer: IdempotencyLayer,
    pub(crate) address: SocketAddr,
    runs: Arc<AtomicUsize>,
    /// A permit for each response future that was dropped before it was ready.
    cancelled: Arc<Semaphore>,
    client: HyperClient<HttpConnector, Full<Bytes>>,
}

impl Server {
    pub(crate) async fn start<F>(
        handler: impl Fn(Request) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        Self::with(Store::new(), |layer| layer, handler).await
    }

    /// A server whose handler answers `created` once it is let through the gate.
    pub(crate) async fn gated(policy: Policy) -> (Arc<Self>, Gate) {
        let gate = Gate::new();
        let passing = gate.clone();
        let server = Self::with(
            Store::new(),
            |layer| layer.policy(policy),
            move |_| {
                let gate = passing.clone();
                async move {
                    gate.pass().await;
                    response(201, "created")
                }
            },
        );
        (Arc::new(server.await), gate)
    }

    pub(crate) async fn with<F>(
        store: Store,
        configure: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer,
        handler: impl Fn(Request) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let layer = configure(IdempotencyLayer::new(store.engine.clone()));
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let app = Router::new()
            .fallback(move |request: Request| {
                counted.fetch_add(1, Ordering::SeqCst);
                handler(request)
            })
            .layer(layer.clone());
        Self { runs, ..Self::serve(store, layer, app).await }
    }

    /// A server of routes that a test put together; `layer` is there to be looked at.
    pub(crate) async fn serve(store: Store, layer: IdempotencyLayer, app: Router) -> Self {
        let cancelled = Arc::new(Semaphore::new(0));
        let signal = cancelled.clone();
        let app = app.layer(from_fn(move |request: Request, next: Next| {
            let guard = CancelGuard(Some(signal.clone()));
            async move {
                let response = next.run(request).await;
                guard.defuse();
                response
            }
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let client = HyperClient::builder(TokioExecutor::new()).build_http();
        Self { store, layer, address, runs: Arc::default(), cancelled, client }
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    pub(crate) async fn cancelled(&self) {
        self.cancelled.acquire().await.unwrap().forget();
    }

    pub(crate) fn request(&self, method: Method, target: &str) -> http::request::Builder {
        http::Request::builder().method(method).uri(format!("http://{}{target}", self.address))
    }

    /// A POST to `/orders` with a key.
    pub(crate) async fn post(&self, key: &str, body: impl Into<Bytes>) -> Reply {
        let request = self.request(Method::POST, "/orders").header(KEY, key);
        self.send(request, body).await.unwrap()
    }

    pub(crate) async fn send(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Result<Reply, hyper_util::client::legacy::Error> {
        let request = with_host(request.body(Full::new(body.into())).unwrap());
        let (parts, body) = self.client.request(request).await?.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// Sends a request without reading the body of its answer.
    pub(crate) async fn open(
        &self,
        request: http::request::Builder,
    ) -> Response<hyper::body::Incoming> {
        self.client.request(with_host(request.body(Full::default()).unwrap())).await.unwrap()
    }

    /// Sends a POST to `/orders` without waiting for the answer.
    pub(crate) fn post_later(
        self: &Arc<Self>,
        key: &str,
        body: &str,
    ) -> tokio::task::JoinHandle<Reply> {
        let (server, key, body) = (self.clone(), key.to_owned(), body.to_owned());
        tokio::spawn(async move { server.post(&key, body).await })
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes as they are, and returns all bytes until the server closes.
    pub(crate) async fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(PATIENCE, read).await.expect("an answer").unwrap();
        answer
    }
}

/// The host that requests written by hand have too.
fn with_host<B>(mut request: http::Request<B>) -> http::Request<B> {
    let host = http::HeaderValue::from_static("x");
    request.headers_mut().entry(http::header::HOST).or_insert(host);
    request
}

struct CancelGuard(Option<Arc<Semaphore>>);

impl CancelGuard {
    fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some(signal) = &self.0 {
            signal.add_permits(1);
        }
    }
}

/// The answer that a client got.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that this is a refusal of the layer.
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!((self.status, problem["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(problem["status"], status);
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }

    /// Checks that two replies are the same in every header and byte. Only Date may differ.
    pub(crate) fn assert_same(&self, other: &Self) {
        let headers = |reply: &Self| {
            let headers = reply.headers.clone().into_iter().filter_map(|(name, value)| {
                // A repeated name comes as None.
                (name.as_ref() != Some(&http::header::DATE)).then_some((name, value))
            });
            headers.collect::<Vec<_>>()
        };
        assert_eq!(self.status, other.status);
        assert_eq!(headers(self), headers(other));
        assert_eq!(self.body, other.body);
    }
}

/// A handler stops here until the test lets it go on.
#[derive(Clone)]
pub(crate) struct Gate {
    entered: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { entered: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }

    pub(crate) async fn pass(&self) {
        self.entered.add_permits(1);
        self.open.acquire().await.unwrap().forget();
    }

    /// Waits for a request to stand at the gate.
    pub(crate) async fn entered(&self) {
        self.entered.acquire().await.unwrap().forget();
    }

    pub(crate) fn open(&self, times: usize) {
        self.open.add_permits(times);
    }
}

pub(crate) fn response(status: u16, body: impl Into<Body>) -> Response {
    Response::builder().status(status).body(body.into()).unwrap()
}

/// A body whose chunks a test sends when it wants to.
pub(crate) fn channel_body<E>() -> (tokio::sync::mpsc::UnboundedSender<Result<Bytes, E>>, Body)
where
    E: Into<axum::BoxError> + Debug + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    (sender, Body::new(ChannelBody(receiver)))
}

struct ChannelBody<E>(tokio::sync::mpsc::UnboundedReceiver<Result<Bytes, E>>);

impl<E> http_body::Body for ChannelBody<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, E>>> {
        self.0.poll_recv(context).map(|data| data.map(|data| data.map(http_body::Frame::data)))
    }
}
