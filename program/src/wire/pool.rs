//! The connections to one upstream.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::outgoing::Outgoing;
use crate::base::workers;
use crate::report::meter::{Counted, Meter};

/// The sender of requests on one connection.
pub(crate) enum Sender {
    /// One request at a time.
    Http1(http1::SendRequest<Outgoing>),
    /// Many requests at a time.
    Http2(http2::SendRequest<Outgoing>),
}

impl Sender {
    fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    /// Sends a request. A failure returns the request when no part of it was written.
    pub(crate) fn try_send(
        &mut self,
        request: Request<Outgoing>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>> + use<>
    {
        let (first, second) = match self {
            Self::Http1(sender) => (Some(sender.try_send_request(request)), None),
            Self::Http2(sender) => (None, Some(sender.try_send_request(request))),
        };
        async move {
            match (first, second) {
                (Some(answer), _) => answer.await,
                (None, Some(answer)) => answer.await,
                (None, None) => std::future::pending().await,
            }
        }
    }
}

/// Idle connections, the newest last. A connection that was idle for `keep` or longer is closed and not used
/// again: the upstream may be closing it at this moment, and a request that is lost that way has an unknown
/// outcome. Each thread takes only the connections that it opened, since it reads and writes them.
pub(crate) struct Pool {
    pub(crate) meter: Arc<Meter>,
    keep: Duration,
    state: Mutex<State>,
}

struct State {
    /// The idle connections of each thread, by its number.
    idle: Vec<Vec<Idle>>,
    /// The connection of an upstream that speaks HTTP/2.
    shared: Option<http2::SendRequest<Outgoing>>,
    /// Whether a task is running that closes connections that were idle for too long.
    reaped: bool,
}

struct Idle {
    sender: http1::SendRequest<Outgoing>,
    since: Instant,
    _counted: Counted,
}

impl Pool {
    pub(crate) fn new(keep: Duration, meter: Arc<Meter>) -> Arc<Self> {
        let idle = (0..workers::count()).map(|_| Vec::new()).collect();
        let state = Mutex::new(State { idle, shared: None, reaped: false });
        Arc::new(Self { meter, keep, state })
    }

    /// The connection that was used last, if it can still be used.
    pub(crate) fn take(&self) -> Option<Sender> {
        let mut state = self.state.lock();
        if let Some(shared) = &state.shared {
            let sender = Sender::Http2(shared.clone());
            return sender.is_ready().then_some(sender);
        }
        let idle = &mut state.idle[workers::number()];
        while let Some(Idle { sender, since, .. }) = idle.pop() {
            if since.elapsed() >= self.keep {
                // The connections below it were idle for even longer.
                idle.clear();
                return None;
            }
            if sender.is_ready() {
                return Some(Sender::Http1(sender));
            }
        }
        None
    }

    /// Lets later requests share a new connection, if its protocol allows that.
    pub(crate) fn share(&self, sender: &Sender) {
        if let Sender::Http2(sender) = sender {
            self.state.lock().shared = Some(sender.clone());
        }
    }

    fn put(self: &Arc<Self>, sender: http1::SendRequest<Outgoing>) {
        let mut state = self.state.lock();
        let _counted = self.meter.idle();
        state.idle[workers::number()].push(Idle { sender, since: Instant::now(), _counted });
        if !std::mem::replace(&mut state.reaped, true) {
            tokio::spawn(self.clone().reap());
        }
    }

    async fn reap(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.keep).await;
            let mut state = self.state.lock();
            let fresh = |idle: &Idle| idle.since.elapsed() < self.keep && !idle.sender.is_closed();
            state.idle.iter_mut().for_each(|idle| idle.retain(fresh));
            if state.idle.iter().all(Vec::is_empty) {
                state.reaped = false;
                return;
            }
        }
    }
}

/// A connection in use. If this is dropped, the connection is closed once its response was read or dropped,
/// unless other requests share it.
pub(crate) struct Lease {
    pub(crate) sender: Sender,
    pub(crate) pool: Arc<Pool>,
    /// The permit for one connection of the upstream, held while this one is in use.
    permit: OwnedSemaphorePermit,
    /// `None` when other requests share the connection.
    counted: Option<Counted>,
}

impl Lease {
    pub(crate) fn new(sender: Sender, pool: Arc<Pool>, permit: OwnedSemaphorePermit) -> Self {
        let counted = matches!(sender, Sender::Http1(_)).then(|| pool.meter.busy());
        Self { sender, pool, permit, counted }
    }

    /// Returns the connection to the pool once it can take another request.
    pub(crate) fn give_back(self) {
        let Self { sender, pool, permit, counted } = self;
        drop(permit);
        let Sender::Http1(mut sender) = sender else { return };
        if sender.is_ready() {
            drop(counted);
            pool.put(sender);
            return;
        }
        tokio::spawn(async move {
            // This fails when the upstream closes the connection after the response.
            if sender.ready().await.is_ok() {
                drop(counted);
                pool.put(sender);
            }
        });
    }
}
