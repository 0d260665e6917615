//! What the proxy says of itself, to those on this machine.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use oncekey::Engine;
use tokio::net::TcpListener;

/// What health is made of.
pub(crate) struct Health {
    pub(crate) engine: Engine,
    pub(crate) draining: AtomicBool,
    pub(crate) store_failed: AtomicBool,
    /// What was counted.
    pub(crate) measured: Option<PrometheusHandle>,
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
        let json = "application/json";
        if !request.method().is_safe() {
            return say(StatusCode::METHOD_NOT_ALLOWED, json, "{}".to_owned());
        }
        match request.uri().path() {
            "/healthz" => say(StatusCode::OK, json, "{}".to_owned()),
            "/readyz" => match self.unready() {
                None => say(StatusCode::OK, json, "{}".to_owned()),
                Some(reason) => {
                    let reason = format!("{{\"reason\":\"{reason}\"}}");
                    say(StatusCode::SERVICE_UNAVAILABLE, json, reason)
                }
            },
            "/metrics" => {
                // Sets the gauges of the engine.
                let _ = self.engine.stats();
                let text = self.measured.as_ref().map(PrometheusHandle::render);
                say(StatusCode::OK, "text/plain; version=0.0.4", text.unwrap_or_default())
            }
            _ => say(StatusCode::NOT_FOUND, json, "{}".to_owned()),
        }
    }
}

fn say(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    response
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
