//! Sends a request to one of the upstreams, and knows of a failure whether anything was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connect::connect;
use super::tls::Tls;
use crate::config::{self, Target};
use crate::report::metrics;
use crate::wire::outgoing::{Outgoing, RequestBody};
use crate::wire::pool::{Lease, Pool};

/// How long an upstream that could not be reached is passed over.
const PASSED_OVER: Duration = Duration::from_secs(5);

/// Whether a request that failed may have been seen by the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Not a byte of it was handed to a socket.
    No,
    Maybe,
}

/// How sending failed.
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
}

impl Why {
    /// The member `upstream` of problem documents.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
        }
    }
}

/// One place that requests can go to.
struct Upstream {
    target: Target,
    pool: Arc<Pool>,
    /// When it could not be reached the last time.
    failed: Mutex<Option<Instant>>,
}

impl Upstream {
    fn is_passed_over(&self) -> bool {
        self.failed.lock().is_some_and(|failed| failed.elapsed() < PASSED_OVER)
    }
}

/// The upstreams, which take turns.
pub(crate) struct Upstreams {
    list: Vec<Upstream>,
    next: AtomicUsize,
    connect_timeout: Duration,
    /// There when one of them speaks TLS.
    tls: Option<Tls>,
}

impl Upstreams {
    /// # Errors
    /// When one speaks TLS and there is no certificate to believe it by.
    pub(crate) fn new(config: &config::Upstream) -> Result<Self, String> {
        let upstream = |target: &Target| Upstream {
            target: target.clone(),
            pool: Pool::new(config.idle),
            failed: Mutex::default(),
        };
        let list = config.urls.iter().map(upstream).collect();
        let tls = config.urls.iter().any(Target::is_tls).then(|| Tls::new(config.ca.as_deref()));
        let (tls, connect_timeout) = (tls.transpose()?, config.connect_timeout);
        Ok(Self { list, next: AtomicUsize::new(0), connect_timeout, tls })
    }

    /// Every upstream once: those that could be reached lately first, each time from another one on.
    fn in_turn(&self) -> impl Iterator<Item = &Upstream> {
        let from = self.next.fetch_add(1, Ordering::Relaxed) % self.list.len();
        let turn = self.list.iter().cycle().skip(from).take(self.list.len());
        // Decided now: one that fails while this request tries is not tried twice.
        let (poor, well): (Vec<_>, Vec<_>) = turn.partition(|upstream| upstream.is_passed_over());
        well.into_iter().chain(poor)
    }

    /// Sends a request and waits for the head of its response, for `give_up_after` from the moment
    /// that the request is sent; zero waits for ever. It is sent again only after [`Sent::No`]: on
    /// the next upstream when one cannot be reached, on a new connection when an old one gave it
    /// back.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
        give_up_after: Duration,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        let asked = request.uri().path_and_query().cloned();
        let (parts, body) = request.into_parts();
        let (body, mut sent) = Outgoing::sent(body);
        let mut request = Request::from_parts(parts, body);
        // The version is that of a hop.
        *request.version_mut() = Version::HTTP_11;
        let deadline = Instant::now() + self.connect_timeout * 2;
        let mut failed = Failed { sent: Sent::No, why: Why::Refused };
        for upstream in self.in_turn() {
            *request.uri_mut() = upstream.target.uri(asked.as_ref());
            // Once on an idle connection, once on a new one.
            for pooled in [upstream.pool.take(), None] {
                let was_pooled = pooled.is_some();
                let connected = match pooled {
                    Some(sender) => Ok(sender),
                    None => {
                        connect(&upstream.target, self.tls.as_ref(), self.connect_timeout).await
                    }
                };
                let mut sender = match connected {
                    Ok(sender) => sender,
                    Err(error) => {
                        tracing::warn!(upstream = %upstream.target, %error, "the upstream cannot be reached");
                        metrics::upstream_failed(&upstream.target, false);
                        *upstream.failed.lock() = Some(Instant::now());
                        failed.why = Why::Refused;
                        break;
                    }
                };
                let answer = sender.try_send_request(request);
                let answered = tokio::select! {
                    answered = answer => answered,
                    () = silence(&mut sent, give_up_after) => {
                        metrics::upstream_failed(&upstream.target, true);
                        return Err(Failed { sent: Sent::Maybe, why: Why::Timeout });
                    }
                };
                let mut error = match answered {
                    Ok(mut response) => {
                        *response.version_mut() = Version::HTTP_11;
                        *upstream.failed.lock() = None;
                        return Ok((response, Lease { sender, pool: upstream.pool.clone() }));
                    }
                    Err(error) => error,
                };
                let given_back = error.take_message();
                let error = error.into_error();
                tracing::warn!(upstream = %upstream.target, %error, sent = given_back.is_none(), "a request to the upstream failed");
                metrics::upstream_failed(&upstream.target, given_back.is_none());
                let Some(again) = given_back else {
                    return Err(Failed { sent: Sent::Maybe, why: why(&error) });
                };
                request = again;
                failed.why = Why::Reset;
                if !was_pooled {
                    break;
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(failed)
    }
}

fn why(error: &hyper::Error) -> Why {
    match error.is_parse() {
        true => Why::Malformed,
        false => Why::Reset,
    }
}

/// Resolves when nothing came for `at_most` after the whole request was sent.
async fn silence(sent: &mut tokio::sync::oneshot::Receiver<()>, at_most: Duration) {
    // It fails, since the sender says nothing and is dropped.
    let _ = sent.await;
    if at_most.is_zero() {
        std::future::pending().await
    } else {
        tokio::time::sleep(at_most).await;
    }
}
