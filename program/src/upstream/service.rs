//! The service at the bottom of the stack: the server behind the proxy.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use oncekey_http::{
    Attempt, CheckpointError, GrpcMessages, NotExecuted, NotStored, OutcomeUnknown, is_grpc,
};
use tower_service::Service;

use super::checkpoints::{Control, Reachable};
use super::collect::{self, BodyFailed};
use super::course::Course;
use super::outcome::Said;
use super::send::{Failed, Sent, Upstreams, Why};
use super::tunnel;
use crate::config::Outcomes;
use crate::report::meter::Stage;
use crate::wire::body::{Body, Streaming};
use crate::wire::hygiene;
use crate::wire::outgoing::RequestBody;
use crate::wire::pool::Lease;
use crate::wire::problem::Problem;

/// Marks the answer to a request without a key that no upstream answered.
#[derive(Clone)]
pub(crate) struct PassFailed;

/// The rules for the requests of one route.
#[derive(Clone, Debug)]
pub(crate) struct Conduct {
    pub(crate) outcomes: Outcomes,
    pub(crate) max_response: usize,
    pub(crate) give_up_after: Duration,
    pub(crate) body_idle: Duration,
    pub(crate) tunnel_idle: Duration,
    /// Whether keyed requests ask for responses without a content coding.
    pub(crate) identity: bool,
}

/// The upstreams as a service. A request without an [`Attempt`] streams both ways. A request with one gets
/// its response only after the response was read to its end.
#[derive(Clone)]
pub(crate) struct UpstreamService {
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) conduct: Arc<Conduct>,
    /// The listener on which the upstream saves checkpoints, if it may.
    pub(crate) control: Option<Arc<Control>>,
}

/// The longest checkpoint that is sent in a header, in bytes.
const MAX_CHECKPOINT: usize = 4 << 10;

const ATTEMPT: HeaderName = HeaderName::from_static("oncekey-attempt");
const TOKEN: HeaderName = HeaderName::from_static("oncekey-token");
const DOWNSTREAM_KEY: HeaderName = HeaderName::from_static("oncekey-downstream-key");
const CONTROL: HeaderName = HeaderName::from_static("oncekey-control");
const CHECKPOINT: HeaderName = HeaderName::from_static("oncekey-checkpoint");

impl Service<Request<RequestBody>> for UpstreamService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let service = self.clone();
        let attempt = request.extensions_mut().remove::<Attempt>();
        Box::pin(async move {
            Ok(match attempt {
                Some(attempt) => service.run(request, &attempt).await,
                None => service.pass(request).await,
            })
        })
    }
}

impl UpstreamService {
    /// Runs a keyed request.
    async fn run(&self, mut request: Request<RequestBody>, attempt: &Attempt) -> Response<Body> {
        if let Some(course) = request.extensions().get::<Arc<Course>>() {
            course.begin(attempt.number());
        }
        let conduct = &*self.conduct;
        if tell(request.headers_mut(), attempt).is_err() {
            return unread();
        }
        let reachable = self.control.as_ref().map(|control| control.reach(attempt)).transpose();
        // The system has no random bytes, so this upstream gets no address for checkpoints.
        let reachable = reachable.unwrap_or_else(|error| {
            tracing::error!(%error, "an attempt has no Oncekey-Control");
            None
        });
        if let Some(url) = reachable.as_ref().map(Reachable::url)
            && let Ok(url) = HeaderValue::try_from(url)
        {
            request.headers_mut().insert(CONTROL, url);
        }
        hygiene::without_upgrade(request.headers_mut());
        if conduct.identity {
            request.headers_mut().remove(header::ACCEPT_ENCODING);
        }
        let length = http_body::Body::size_hint(request.body()).exact().unwrap_or_default();
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let (response, lease) = match self.send(request, true).await {
            Ok(answered) => answered,
            Err(Failed { sent: Sent::No, why }) => {
                let mut response = unreachable(why);
                response.extensions_mut().insert(NotExecuted);
                return response;
            }
            Err(Failed { sent: Sent::Maybe, why }) => return unknown(why),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return unknown(Why::Malformed);
        }
        let (mut parts, incoming) = response.into_parts();
        if !hygiene::is_readable(&parts.headers) {
            lease.pool.meter.failed(Stage::Head, true);
            return unknown(Why::Malformed);
        }
        hygiene::response(&mut parts.headers);
        Said::take(&mut parts.headers).apply(&mut parts, &conduct.outcomes);
        let meter = lease.pool.meter.clone();
        let rest = Streaming::new(incoming, lease);
        let as_it_comes = parts.extensions.get::<NotStored>().is_some()
            || parts.extensions.get::<OutcomeUnknown>().is_some();
        if as_it_comes {
            return Response::from_parts(parts, Body::streaming(rest));
        }
        let messages = is_grpc(&parts.headers).then(GrpcMessages::default);
        match collect::collect(rest, messages, conduct.max_response, conduct.body_idle).await {
            Ok(body) => Response::from_parts(parts, body),
            // `Streaming` has counted this failure already.
            Err(BodyFailed::Broken) => unknown(Why::Reset),
            Err(BodyFailed::Idle) => {
                meter.failed(Stage::Body, true);
                unknown(Why::Timeout)
            }
        }
    }

    /// Sends a request, and notes how long the upstreams needed.
    async fn send(
        &self,
        mut request: Request<RequestBody>,
        keyed: bool,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        let (begun, course) = (Instant::now(), request.extensions().get::<Arc<Course>>().cloned());
        let method = request.method().clone();
        let span = course.as_ref().and_then(|course| course.span.as_ref());
        let mut asked = span.map(|span| span.ask(&method, request.headers_mut()));
        let answered = self.upstreams.send(request, keyed, self.conduct.give_up_after).await;
        if let Some(course) = &course {
            course.answered(begun.elapsed());
        }
        if let Some(asked) = &mut asked {
            match &answered {
                Ok((head, lease)) => asked.answered(lease.pool.meter.name(), head.status()),
                Err(failed) => asked.failed(failed.why.as_str()),
            }
        }
        answered
    }

    /// Passes a request without a key on as it comes.
    async fn pass(&self, mut request: Request<RequestBody>) -> Response<Body> {
        let upgrade = request
            .headers()
            .contains_key(header::UPGRADE)
            .then(|| hyper::upgrade::on(&mut request));
        request.headers_mut().remove(header::EXPECT);
        let (mut response, lease) = match self.send(request, false).await {
            Ok(answered) => answered,
            Err(failed) => return passed_failure(failed),
        };
        Said::take(response.headers_mut());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = upgrade else {
                return passed_failure(Failed { sent: Sent::Maybe, why: Why::Malformed });
            };
            let upstream = hyper::upgrade::on(&mut response);
            tokio::spawn(tunnel::carry(client, upstream, self.conduct.tunnel_idle));
            let response: Response<Incoming> = response;
            return response.map(|_| Body::default());
        }
        if !hygiene::is_readable(response.headers()) {
            lease.pool.meter.failed(Stage::Head, true);
            return passed_failure(Failed { sent: Sent::Maybe, why: Why::Malformed });
        }
        hygiene::response(response.headers_mut());
        response.map(|incoming| Body::streaming(Streaming::new(incoming, lease)))
    }
}

/// Adds the headers about the attempt. Only a later attempt can have an earlier checkpoint.
fn tell(headers: &mut HeaderMap, attempt: &Attempt) -> Result<(), CheckpointError> {
    let saved = if attempt.number() == 1 { None } else { attempt.checkpoint()? };
    headers.remove(header::EXPECT);
    headers.insert(ATTEMPT, HeaderValue::from(attempt.number()));
    let mut text = |name, value: String| {
        // These values consist of digits, letters and the signs of base64, so they are always valid.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    text(TOKEN, attempt.token().to_string());
    text(DOWNSTREAM_KEY, attempt.downstream_key(""));
    if let Some(checkpoint) = saved.filter(|bytes| bytes.len() <= MAX_CHECKPOINT) {
        text(CHECKPOINT, STANDARD.encode(checkpoint));
    }
    Ok(())
}

/// The answer when the earlier checkpoint is damaged, or the store cannot be read.
fn unread() -> Response<Body> {
    let detail =
        "The checkpoint of an earlier attempt could not be read. The request was not executed.";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "checkpoint_unreadable", detail);
    let mut response = problem.into_response();
    response.extensions_mut().insert(NotExecuted);
    response
}

fn unreachable(why: Why) -> Response<Body> {
    let detail = "The server could not be reached. The request was not executed.";
    Problem::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", detail)
        .with("upstream", why.as_str())
        .retry_after()
        .into_response()
}

/// The answer to a keyed request that ended with an unknown outcome.
fn unknown(why: Why) -> Response<Body> {
    let status = match why {
        Why::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    let detail =
        "The server did not say how the request ended. It may or may not have had its effect.";
    let problem = Problem::new(status, "idempotency_outcome_unknown", detail);
    let mut response = problem.with("upstream", why.as_str()).into_response();
    response.extensions_mut().insert(OutcomeUnknown);
    response
}

/// The answer to a failed request without a key.
fn passed_failure(failed: Failed) -> Response<Body> {
    let Failed { sent, why } = failed;
    let (status, code, detail) = match (sent, why) {
        (Sent::No, _) => {
            let mut response = unreachable(why);
            response.extensions_mut().insert(PassFailed);
            return response;
        }
        (Sent::Maybe, Why::Client) => {
            let detail = "The body of the request is malformed, or ended before its end.";
            let problem = Problem::new(StatusCode::BAD_REQUEST, "request_malformed", detail);
            let mut response = problem.into_response();
            response.extensions_mut().insert(PassFailed);
            return response;
        }
        (Sent::Maybe, Why::Timeout) => (
            StatusCode::GATEWAY_TIMEOUT,
            "upstream_timeout",
            "The server did not answer in time. The request may have had its effect.",
        ),
        (Sent::Maybe, _) => (
            StatusCode::BAD_GATEWAY,
            "upstream_failed",
            "The server failed before it answered. The request may have had its effect.",
        ),
    };
    let mut response =
        Problem::new(status, code, detail).with("upstream", why.as_str()).into_response();
    response.extensions_mut().insert(PassFailed);
    response
}
