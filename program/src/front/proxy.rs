//! One request from its head to its answer: the stack that docs/proxy.md draws.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either};
use hyper::body::Incoming;
use oncekey_http::{Contract, ResponseBody};
use tower_service::Service;

use super::route::{Route, Routes, Stack, is_keyed};
use super::scope;
use crate::report::access_log::{AccessLog, Line};
use crate::report::metrics;
use crate::upstream::Started;
use crate::wire::body::Body;
use crate::wire::hygiene::Hygiene;
use crate::wire::outgoing::RequestBody;
use crate::wire::problem::Problem;

/// How much of the body of a refused request is read, and for how long.
const DISCARD_AT_MOST: usize = 8 << 20;
const DISCARD_FOR: Duration = Duration::from_secs(5);

/// What a client gets.
pub(crate) type Answer = Response<Either<ResponseBody<Body>, Body>>;

/// The proxy, as connections share it.
pub(crate) struct Proxy {
    pub(crate) contract: Contract,
    pub(crate) hygiene: Hygiene,
    pub(crate) routes: Routes,
    pub(crate) access_log: Option<AccessLog>,
    /// Whether anybody reads what is counted.
    pub(crate) counted: bool,
}

impl Proxy {
    /// Answers a request of `peer`, whose address is unknown on a Unix socket.
    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: Option<IpAddr>) -> Answer {
        let begun = Instant::now();
        let (mut parts, body) = request.into_parts();
        let method = parts.method.clone();
        let started = Arc::new(Started::default());
        let (answer, pattern, keyed, outcome) = match self.admit(&mut parts, peer) {
            Err((problem, pattern)) => {
                discard(&parts.headers, body).await;
                (own(problem), pattern, false, "refused")
            }
            Ok((route, keyed)) => {
                if keyed {
                    parts.extensions.insert(started.clone());
                }
                let request = Request::from_parts(parts, RequestBody::new(body));
                let answer = run(route, request, &started).await;
                let outcome = match (keyed, started.ran()) {
                    (false, _) => "passed",
                    (true, true) => "executed",
                    (true, false) => "answered",
                };
                (answer, Some(&*route.pattern), keyed, outcome)
            }
        };
        let (status, took) = (answer.status(), begun.elapsed());
        if self.counted {
            metrics::answered(pattern, keyed, outcome, status, took);
        }
        if let Some(log) = &self.access_log {
            log.write(&Line { method: &method, route: pattern, status, outcome, took, peer });
        }
        answer
    }

    /// The route of a request that may go on, and whether it has a key.
    #[allow(clippy::type_complexity)]
    fn admit(
        &self,
        parts: &mut http::request::Parts,
        peer: Option<IpAddr>,
    ) -> Result<(&Arc<Route>, bool), (Problem, Option<&str>)> {
        self.hygiene.request(parts, peer).map_err(|problem| (problem, None))?;
        let route = self.routes.find(parts);
        let keyed = matches!(route.stack, Stack::Keyed(_)) && is_keyed(&self.contract, parts);
        if keyed {
            let resolved = scope::resolve(&route.scope, parts);
            resolved.map_err(|problem| (problem, Some(&*route.pattern)))?;
        }
        Ok((route, keyed))
    }
}

async fn run(route: &Route, request: Request<RequestBody>, started: &Started) -> Answer {
    match &route.stack {
        Stack::Plain(upstream) => {
            let answered: Result<_, Infallible> = upstream.clone().call(request).await;
            let Ok(response) = answered;
            response.map(Either::Right)
        }
        Stack::Keyed(layered) => {
            let answer = layered.clone().call(request);
            let too_late = async {
                // Never said of a request without a key.
                started.began().await;
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
                // The execution goes on without its client, and its response waits for the retry.
                () = too_late => own(still_running()),
            }
        }
    }
}

/// Reads the body of a request that is refused. A server that closes a connection while the client
/// still sends resets it, and the client may never see why it was refused.
async fn discard(headers: &HeaderMap, mut body: Incoming) {
    // Reading on would ask a client that waits for leave to send for its body.
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
    // One that sends slowly has had its chance.
    let _ = tokio::time::timeout(DISCARD_FOR, all).await;
}

fn still_running() -> Problem {
    let detail = "The server has not answered yet. The request is still being executed: send it \
        again later for its response.";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "idempotency_key_locked", detail)
        .with("retryAfterMs", 500)
        .retry_after()
}

fn own(problem: Problem) -> Answer {
    problem.into_response().map(Either::Right)
}
