//! One request, from its head to its answer: the stack that docs/proxy.md draws.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either};
use hyper::body::Incoming;
use oncekey_http::{Answered, Contract, NotExecuted, OutcomeUnknown, ResponseBody, is_grpc};
use parking_lot::Mutex;
use tower_service::Service;

use super::jwt::Tokens;
use super::peer::Peer;
use super::record::{Record, Told};
use super::restored::Restored;
use super::route::{Route, Routes, Stack, is_keyed};
use super::scope::{self, Sources};
use crate::base::latency::Latency;
use crate::report::access_log::AccessLog;
use crate::report::metrics;
use crate::report::spans::Spans;
use crate::upstream::{Course, PassFailed, Upstreams};
use crate::wire::body::Body;
use crate::wire::hygiene::{self, Hygiene};
use crate::wire::outgoing::{Received, RequestBody};
use crate::wire::problem::{self, Problem};

/// How many bytes of the body of a refused request are read, and for how long.
const DISCARD_AT_MOST: usize = 8 << 20;
const DISCARD_FOR: Duration = Duration::from_secs(5);

/// The response to a client.
pub(crate) type Answer = Response<Told<Either<ResponseBody<Body>, Body>>>;

/// An answer before it is recorded.
type Made = Response<Either<ResponseBody<Body>, Body>>;

/// The proxy that all connections share.
pub(crate) struct Proxy {
    pub(crate) contract: Contract,
    pub(crate) hygiene: Hygiene,
    pub(crate) routes: Routes,
    /// The verification of bearer tokens, if a scope needs it.
    pub(crate) tokens: Option<Tokens>,
    pub(crate) restored: Restored,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) access_log: Option<AccessLog>,
    /// The latencies of requests, if the metrics have a reader.
    pub(crate) counted: Option<Arc<Latency>>,
    /// The spans of requests, if they are traced.
    pub(crate) spans: Option<Arc<Spans>>,
    pub(crate) misspelled: Misspelled,
}

/// The facts about a request that are known before it is forwarded.
struct Admitted<'a> {
    route: &'a Arc<Route>,
    keyed: bool,
}

impl Proxy {
    /// Answers a request of `peer`.
    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Answer {
        let (mut parts, body) = request.into_parts();
        let (log, counted) = (self.access_log, self.counted.clone());
        let mut record = Record::new(log, counted, self.spans.as_ref(), &parts, peer.address);
        let body = Received::new(body, record.received(), self.hygiene.names.clone());
        let call =
            parts.headers.get(header::CONTENT_TYPE).filter(|_| is_grpc(&parts.headers)).cloned();
        let (mut answer, outcome) = match self.admit(&mut parts, &peer) {
            Err((problem, route)) => {
                if let Some(route) = route {
                    record.is_on(route, false);
                }
                discard(&parts.headers, body).await;
                (own(problem), "refused")
            }
            Ok(Admitted { route, keyed }) => {
                record.is_on(route, keyed);
                let course = record.course().clone();
                parts.extensions.insert(course.clone());
                let request = Request::from_parts(parts, RequestBody::new(body));
                let answer = run(route, request, &course).await;
                let outcome = if keyed { outcome(&answer, &course) } else { passed(&answer) };
                (answer, outcome)
            }
        };
        // A gRPC client would misread the HTTP status of this answer as another gRPC status.
        if let Some(ended) = call.and_then(|call| problem::as_grpc(&mut answer, &call)) {
            answer = ended.map(Either::Right);
        }
        record.answered(answer.status(), outcome);
        answer.map(|body| Told::new(body, record))
    }

    /// The route of a request that may continue, and whether the request has a key.
    fn admit(
        &self,
        parts: &mut http::request::Parts,
        peer: &Peer,
    ) -> Result<Admitted<'_>, (Problem, Option<&Arc<Route>>)> {
        let misspelled = hygiene::has_unrecognized_key(&parts.headers, &self.contract.headers);
        let cleaned = self.hygiene.request(parts, peer.address, peer.secure);
        cleaned.map_err(|problem| (problem, None))?;
        let (route, parameters) = self.routes.find(parts);
        let has_keys = matches!(route.stack, Stack::Keyed(_));
        let keyed = has_keys && is_keyed(&self.contract, parts);
        if keyed {
            let sources = Sources {
                peer,
                trusted: self.hygiene.trusts(peer.address),
                tokens: self.tokens.as_ref(),
                parameters: &parameters,
            };
            scope::resolve(&route.scope, parts, &sources)
                .and_then(|()| self.restored.check(&self.contract, &parts.headers))
                .map_err(|problem| (problem, Some(route)))?;
        } else if misspelled && has_keys && self.contract.methods.contain(&parts.method) {
            self.misspelled.note();
        }
        Ok(Admitted { route, keyed })
    }
}

/// The outcome of a request with a key, in one word.
fn outcome(answer: &Made, course: &Course) -> &'static str {
    if course.attempt().is_some() {
        let extensions = answer.extensions();
        return if extensions.get::<NotExecuted>().is_some() {
            "freed"
        } else if extensions.get::<OutcomeUnknown>().is_some() {
            "unknown"
        } else if extensions.get::<StillRunning>().is_some() {
            "locked"
        } else {
            "executed"
        };
    }
    match answer.extensions().get::<Answered>() {
        Some(Answered::Replayed) => "replayed",
        Some(Answered::Locked) => "locked",
        Some(Answered::Mismatched) => "mismatched",
        Some(Answered::OutcomeUnknown) => "unknown",
        Some(Answered::NotStored) => "not_stored",
        _ => "refused",
    }
}

/// The outcome of a request without a key, in one word.
fn passed(answer: &Made) -> &'static str {
    if answer.extensions().get::<PassFailed>().is_some() { "failed" } else { "passed" }
}

/// Marks the answer to a client that waited too long.
#[derive(Clone)]
struct StillRunning;

/// Requests with a misspelled key header: counted, and logged at most once a minute.
#[derive(Default)]
pub(crate) struct Misspelled(Mutex<Option<Instant>>);

impl Misspelled {
    fn note(&self) {
        metrics::unrecognized_key_header();
        let mut last = self.0.lock();
        if last.is_none_or(|last| last.elapsed() >= Duration::from_secs(60)) {
            *last = Some(Instant::now());
            tracing::warn!(
                "a request carries a header that looks like that of a key and is none of those \
                 configured; it is not protected"
            );
        }
    }
}

async fn run(route: &Route, request: Request<RequestBody>, course: &Course) -> Made {
    match &route.stack {
        Stack::Plain(upstream) => {
            let answered: Result<_, Infallible> = upstream.clone().call(request).await;
            let Ok(response) = answered;
            response.map(Either::Right)
        }
        Stack::Keyed(layered) => {
            let answer = layered.clone().call(request);
            let too_late = async {
                // Never begins for a request without a key.
                course.began().await;
                match route.answer_within.is_zero() {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(route.answer_within).await,
                }
            };
            tokio::select! {
                answered = answer => {
                    let Ok(response) = answered;
                    response.map(Either::Left)
                }
                // The execution continues without its client, and its response is stored for the retry.
                () = too_late => {
                    let mut answer = own(still_running());
                    answer.extensions_mut().insert(StillRunning);
                    answer
                }
            }
        }
    }
}

/// Reads the body of a refused request. A server that closes a connection while the client still sends resets
/// the connection, and the client may never see the refusal.
async fn discard(headers: &HeaderMap, mut body: Received) {
    // A client that waits for `100 Continue` would send its body only because of this read.
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let mut left = DISCARD_AT_MOST;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, |data| data.len());
            match left.checked_sub(len) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // A body that takes longer is cut off.
    let _ = tokio::time::timeout(DISCARD_FOR, all).await;
}

fn still_running() -> Problem {
    let detail = "The server has not answered yet. The request is still being executed: send it \
        again later for its response.";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "idempotency_key_locked", detail)
        .with("retryAfterMs", 500)
        .retry_after()
}

fn own(problem: Problem) -> Made {
    problem.into_response().map(Either::Right)
}
