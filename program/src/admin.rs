//! What the proxy says of itself, to those on this machine.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use oncekey::Engine;
use tokio::net::TcpListener;

/// What health is made of.
pub(crate) struct Health {
    pub(crate) engine: Engine,
    pub(crate) draining: AtomicBool,
    pub(crate) store_failed: AtomicBool,
}

impl Health {
    /// Why no request should come here; `None` when they should.
    fn unready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            Some("draining")
        } else if self.store_failed.load(Ordering::Relaxed) {
            Some("store_failed")
        } else if self.engine.stats().full {
            Some("store_full")
        } else {
            None
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let say = |status: StatusCode, json: String| {
            let mut response = Response::new(Full::from(json));
            *response.status_mut() = status;
            let json = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        };
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => say(StatusCode::OK, "{}".to_owned()),
            (&Method::GET | &Method::HEAD, "/readyz") => match self.unready() {
                None => say(StatusCode::OK, "{}".to_owned()),
                Some(reason) => {
                    say(StatusCode::SERVICE_UNAVAILABLE, format!("{{\"reason\":\"{reason}\"}}"))
                }
            },
            _ => say(StatusCode::NOT_FOUND, "{}".to_owned()),
        }
    }
}

/// Answers until the process ends.
pub(crate) async fn serve(listener: TcpListener, health: Arc<Health>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let health = health.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = health.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            let connection =
                builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            // The client may go away at any time.
            let _ = connection.await;
        });
    }
}
