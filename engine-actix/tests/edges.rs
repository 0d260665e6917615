//! Where responses of actix-web have edges: lengths, errors of middlewares, bodies that panic, readiness.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test itself does")]

use std::future::{Ready, ready};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{MessageBody, SizedStream};
use actix_web::dev::{ServerHandle, Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, error, rt, web};
use bytes::Bytes;
use oncekey::Options;
use oncekey_actix::Idempotent;
use oncekey_testing::SimDisk;

/// Yields its text once, and then ends.
struct Text(Option<&'static str>);

impl futures_core::Stream for Text {
    type Item = Result<Bytes, Error>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        assert_ne!(self.0, Some("panic"), "this panic is part of the test");
        Poll::Ready(self.0.take().map(|text| Ok(Bytes::from(text))))
    }
}

async fn handle(request: HttpRequest) -> HttpResponse {
    let hello = || Text(Some("hello"));
    match request.path() {
        "/short" => HttpResponse::Ok().no_chunking(6).streaming(hello()),
        "/long" => HttpResponse::Ok().body(SizedStream::new(4, hello())),
        "/sized" => HttpResponse::Ok().insert_header(("content-length", "6")).body("hello"),
        "/panic" => HttpResponse::Ok().streaming(Text(Some("panic"))),
        _ => HttpResponse::Ok().body("done"),
    }
}

/// A middleware inside answers with errors, as those for authentication do.
async fn refuse(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    match request.path() {
        "/401" => Err(error::ErrorUnauthorized("who?")),
        "/500" => Err(error::ErrorInternalServerError("broken")),
        _ => next.call(request).await,
    }
}

/// A middleware that is not ready while the flag is set.
#[derive(Clone)]
struct Busy(Arc<AtomicBool>);

struct BusyService<S>(S, Arc<AtomicBool>);

impl<S: Service<ServiceRequest>> Transform<S, ServiceRequest> for Busy {
    type Response = S::Response;
    type Error = S::Error;
    type Transform = BusyService<S>;
    type InitError = ();
    type Future = Ready<Result<BusyService<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(BusyService(service, self.0.clone())))
    }
}

impl<S: Service<ServiceRequest>> Service<ServiceRequest> for BusyService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        match self.1.load(Ordering::SeqCst) {
            true => Poll::Pending,
            false => self.0.poll_ready(context),
        }
    }

    fn call(&self, request: ServiceRequest) -> S::Future {
        self.0.call(request)
    }
}

struct Server {
    idempotent: Idempotent,
    busy: Arc<AtomicBool>,
    address: SocketAddr,
    handle: ServerHandle,
    thread: std::thread::JoinHandle<()>,
}

impl Server {
    fn start() -> Self {
        let options = Options::new().segment_bytes(4 << 20).disk(Arc::new(SimDisk::new()));
        let idempotent = Idempotent::new(options.open("/store").unwrap());
        let busy = Arc::new(AtomicBool::new(false));
        let (wrapped, inside) = (idempotent.clone(), Busy(busy.clone()));
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            rt::System::new().block_on(async move {
                let server = HttpServer::new(move || {
                    let app = App::new().wrap(from_fn(refuse)).wrap(inside.clone());
                    app.wrap(wrapped.clone()).default_service(web::to(handle))
                });
                let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
                let address = server.addrs()[0];
                let running = server.run();
                tell.send((address, running.handle())).unwrap();
                running.await.unwrap();
            });
        });
        let (address, handle) = told.recv().unwrap();
        Self { idempotent, busy, address, handle, thread }
    }

    /// The whole answer to a request whose key is its path.
    fn post(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        stream.write_all(format!("{head}Idempotency-Key: {path}\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn abandoned(&self) -> u64 {
        self.idempotent.idempotency().stats().abandoned
    }

    fn stop(self) {
        drop(self.handle.stop(false));
        self.thread.join().unwrap();
        self.idempotent.idempotency().engine().close().unwrap();
    }
}

#[test]
fn a_body_that_panics_or_has_another_length_than_announced_leaves_the_outcome_unknown() {
    let server = Server::start();
    for (abandoned, path) in (1..).zip(["/short", "/long", "/panic"]) {
        let first = server.post(path);
        assert!(!first.ends_with("hello"), "{first}");
        let retry = server.post(path);
        assert!(retry.contains("idempotency_outcome_unknown"), "{path}: {retry}");
        assert_eq!(server.abandoned(), abandoned, "{path}");
    }
    // actix-web does not send a length that a handler sets beside a body that knows its own.
    for _ in 0..2 {
        let answer = server.post("/sized");
        assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("hello"), "{answer}");
    }
    server.stop();
}

#[test]
fn an_error_of_a_middleware_inside_is_a_response() {
    let server = Server::start();
    for (path, text, claims) in [("/401", "who?", 2), ("/500", "broken", 3)] {
        for _ in 0..2 {
            let answer = server.post(path);
            let status = format!("HTTP/1.1 {} ", &path[1..]);
            assert!(answer.starts_with(&status) && answer.ends_with(text), "{answer}");
        }
        assert_eq!(server.idempotent.idempotency().engine().stats().claimed, claims);
    }
    assert_eq!(server.abandoned(), 0);
    server.stop();
}

#[test]
fn a_replay_needs_no_service_inside_that_is_ready() {
    let server = Server::start();
    let first = server.post("/");
    server.busy.store(true, Ordering::SeqCst);
    let retry = server.post("/");
    assert!(first.ends_with("done") && retry.ends_with("done"), "{first} {retry}");
    server.busy.store(false, Ordering::SeqCst);
    server.stop();
}
