//! Sends a request to one of the upstreams. After a failure it knows whether anything was sent.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::connect::{Unconnected, connect};
use super::tls::Tls;
use crate::config::{self, Host, Target};
use crate::report::meter::{Meter, Stage};
use crate::report::metrics;
use crate::wire::outgoing::{Delivery, Outgoing, RequestBody};
use crate::wire::pool::{Lease, Pool, Sender};

/// How long an upstream that could not be reached is tried last.
const PASSED_OVER: Duration = Duration::from_secs(5);

/// Whether the upstream may have seen a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// No byte of it was handed to a socket.
    No,
    Maybe,
}

/// A failure to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) sent: Sent,
    pub(crate) why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Refused,
    Reset,
    Timeout,
    Malformed,
    /// The client failed: its body cannot be read to its end.
    Client,
}

impl Why {
    /// The member `upstream` of problem documents.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::Client => "client",
        }
    }
}

/// One destination of requests.
pub(crate) struct Upstream {
    pub(super) target: Target,
    pub(super) pool: Arc<Pool>,
    /// The last time when it could not be reached.
    failed: Mutex<Option<Instant>>,
    /// The result of the last health check.
    pub(super) is_up: AtomicBool,
    /// Permits for connections that may be opened or used.
    connections: Arc<Semaphore>,
}

impl Upstream {
    fn is_passed_over(&self) -> bool {
        !self.is_up.load(Ordering::Relaxed)
            || self.failed.lock().is_some_and(|failed| failed.elapsed() < PASSED_OVER)
    }
}

/// The upstreams, used in turn.
pub(crate) struct Upstreams {
    pub(super) list: Vec<Upstream>,
    next: AtomicUsize,
    pub(super) connect_timeout: Duration,
    host: Host,
    /// Whether each keyed request opens a new connection.
    fresh_for_keys: bool,
    /// Set when an upstream uses TLS.
    pub(super) tls: Option<Tls>,
}

impl Upstreams {
    /// # Errors
    /// When an upstream uses TLS and no certificate is there to verify it.
    pub(crate) fn new(config: &config::Upstream) -> Result<Self, String> {
        let upstream = |target: &Target| Upstream {
            target: target.clone(),
            pool: Pool::new(config.idle, Meter::new(target.to_string())),
            failed: Mutex::default(),
            is_up: AtomicBool::new(true),
            connections: Arc::new(Semaphore::new(config.max_connections as usize)),
        };
        let list = config.urls.iter().map(upstream).collect();
        let tls = config.urls.iter().any(Target::is_tls).then(|| Tls::new(config.ca.as_deref()));
        let (tls, connect_timeout) = (tls.transpose()?, config.connect_timeout);
        let (host, fresh_for_keys) = (config.host.clone(), config.fresh_for_keys);
        Ok(Self { list, next: AtomicUsize::new(0), connect_timeout, host, fresh_for_keys, tls })
    }

    /// Every upstream once, each time from the next one on. Upstreams that failed lately come last.
    fn in_turn(&self) -> impl Iterator<Item = &Upstream> {
        let from = self.next.fetch_add(1, Ordering::Relaxed) % self.list.len();
        let turn = self.list.iter().cycle().skip(from).take(self.list.len());
        // Sort them now, so that an upstream that fails during this request is not tried twice.
        let (poor, well): (Vec<_>, Vec<_>) = turn.partition(|upstream| upstream.is_passed_over());
        well.into_iter().chain(poor)
    }

    /// Whether no upstream passes its health checks.
    pub(crate) fn all_down(&self) -> bool {
        self.list.iter().all(|upstream| !upstream.is_up.load(Ordering::Relaxed))
    }

    /// Sends a request and waits for the head of its response, for `give_up_after` from the moment that the
    /// request is sent; zero means no limit. The request is sent again only after [`Sent::No`]: on the next
    /// upstream when one cannot be reached, or on a new connection when an idle one returned it unsent.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
        keyed: bool,
        give_up_after: Duration,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        let asked = request.uri().path_and_query().cloned();
        let (parts, body) = request.into_parts();
        let (body, mut delivery) = Outgoing::new(body);
        let mut request = Request::from_parts(parts, body);
        let host = request.headers().get(header::HOST).cloned();
        let deadline = Instant::now() + self.connect_timeout * 2;
        let mut why = Why::Refused;
        let mut is_first = true;
        for upstream in self.in_turn() {
            self.address(&mut request, upstream, asked.as_ref(), host.as_ref());
            // First on an idle connection, then on a new one.
            let pooled = if keyed && self.fresh_for_keys { None } else { upstream.pool.take() };
            let was_pooled = pooled.is_some();
            for connection in [pooled, None].into_iter().skip(usize::from(!was_pooled)) {
                if !std::mem::take(&mut is_first) {
                    metrics::upstream_retried();
                }
                let was_pooled = connection.is_some();
                let lease = match self.lease(upstream, connection).await {
                    Ok(lease) => lease,
                    Err(unconnected) => {
                        why = unconnected;
                        break;
                    }
                };
                let exchanged =
                    exchange(upstream, lease, request, &mut delivery, give_up_after, was_pooled);
                match exchanged.await {
                    Ok(answered) => return Ok(answered),
                    Err(Unanswered::Failed(failed)) => return Err(failed),
                    Err(Unanswered::GivenBack(again)) => request = *again,
                }
                why = Why::Reset;
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(Failed { sent: Sent::No, why })
    }

    /// A connection, `taken` or new, or the reason why the upstream cannot be reached.
    async fn lease(&self, upstream: &Upstream, taken: Option<Sender>) -> Result<Lease, Why> {
        let permit = upstream.connections.clone().acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(self.connect_timeout, permit).await else {
            tracing::warn!(upstream = %upstream.target, "all connections to the upstream are in use");
            upstream.pool.meter.failed(Stage::Checkout, false);
            return Err(Why::Timeout);
        };
        let pool = upstream.pool.clone();
        if let Some(sender) = taken {
            return Ok(Lease::new(sender, pool, permit));
        }
        let (target, meter) = (&upstream.target, &pool.meter);
        match connect(target, self.tls.as_ref(), meter, self.connect_timeout).await {
            Ok(sender) => {
                pool.share(&sender);
                Ok(Lease::new(sender, pool, permit))
            }
            Err(Unconnected { stage, error }) => {
                tracing::warn!(upstream = %target, %error, "the upstream cannot be reached");
                meter.failed(stage, false);
                *upstream.failed.lock() = Some(Instant::now());
                Err(match error.kind() {
                    io::ErrorKind::TimedOut => Why::Timeout,
                    _ => Why::Refused,
                })
            }
        }
    }

    /// Sets the destination of a request: its target, its version, its host.
    fn address<B>(
        &self,
        request: &mut Request<B>,
        upstream: &Upstream,
        asked: Option<&PathAndQuery>,
        host: Option<&HeaderValue>,
    ) {
        let target = &upstream.target;
        let own = || HeaderValue::try_from(target.authority()).ok();
        let host = match &self.host {
            Host::Pass => host.cloned().or_else(own),
            Host::Upstream => own(),
            Host::Literal(name) => Some(name.clone()),
        };
        let path = target.uri(asked);
        if target.is_h2c() {
            // HTTP/2 has the host in its target. A host that is not a valid authority was refused earlier.
            let authority = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
            let whole = Uri::builder()
                .scheme("http")
                .authority(authority)
                .path_and_query(path.path_and_query().map_or("/", PathAndQuery::as_str));
            *request.uri_mut() = whole.build().unwrap_or(path);
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().remove(header::HOST);
        } else {
            *request.uri_mut() = path;
            // The version belongs to one hop.
            *request.version_mut() = Version::HTTP_11;
            if let Some(host) = host {
                request.headers_mut().insert(header::HOST, host);
            }
        }
    }
}

/// The reason why a request has no answer.
enum Unanswered {
    Failed(Failed),
    /// No part of the request was sent.
    GivenBack(Box<Request<Outgoing>>),
}

/// Sends a request on a connection, and waits for the head of its response.
async fn exchange(
    upstream: &Upstream,
    mut lease: Lease,
    request: Request<Outgoing>,
    delivery: &mut Delivery,
    give_up_after: Duration,
    was_pooled: bool,
) -> Result<(Response<Incoming>, Lease), Unanswered> {
    let (begun, meter) = (Instant::now(), lease.pool.meter.clone());
    let answer = lease.sender.try_send(request);
    let answered = tokio::select! {
        answered = answer => answered,
        () = silence(delivery, give_up_after) => {
            meter.failed(Stage::Head, true);
            return Err(Unanswered::Failed(Failed { sent: Sent::Maybe, why: Why::Timeout }));
        }
    };
    let mut error = match answered {
        Ok(mut response) => {
            *response.version_mut() = Version::HTTP_11;
            *upstream.failed.lock() = None;
            meter.answered(begun.elapsed());
            return Ok((response, lease));
        }
        Err(error) => error,
    };
    let given_back = error.take_message();
    let error = error.into_error();
    if given_back.is_none() && error.is_user() {
        tracing::debug!(%error, "the body of a request cannot be read");
        return Err(Unanswered::Failed(Failed { sent: Sent::Maybe, why: Why::Client }));
    }
    let unsent = given_back.is_some() || is_refused(&error);
    tracing::warn!(upstream = %upstream.target, %error, sent = !unsent, "a request to the upstream failed");
    let stage = match given_back.is_some() {
        true if was_pooled => Stage::Checkout,
        false if delivery.is_whole() => Stage::Head,
        _ => Stage::Write,
    };
    meter.failed(stage, !unsent);
    Err(match given_back {
        Some(again) => Unanswered::GivenBack(Box::new(again)),
        None if unsent => Unanswered::Failed(Failed { sent: Sent::No, why: Why::Refused }),
        None => Unanswered::Failed(Failed { sent: Sent::Maybe, why: why(&error) }),
    })
}

/// Whether the peer declares that it did not process a request. Source: RFC 9113, section 8.7.
fn is_refused(error: &hyper::Error) -> bool {
    use std::error::Error;
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.is_remote() && cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM)
    })
}

fn why(error: &hyper::Error) -> Why {
    match error.is_parse() {
        true => Why::Malformed,
        false => Why::Reset,
    }
}

/// Resolves when no answer came within `at_most` after the whole request was sent.
async fn silence(delivery: &mut Delivery, at_most: Duration) {
    delivery.over().await;
    if at_most.is_zero() {
        std::future::pending().await
    } else {
        tokio::time::sleep(at_most).await;
    }
}
