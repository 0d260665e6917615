//! Connections to one upstream that wait for their next request.

use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::outgoing::Outgoing;

pub(crate) type Sender = SendRequest<Outgoing>;

/// Idle connections, the newest last. One that was idle for longer than `keep` is closed and not
/// used again: the upstream may be closing it at this moment, and a request that meets its end on
/// the way leaves an outcome that nobody knows.
pub(crate) struct Pool {
    keep: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    /// A task looks for connections that are idle for too long.
    reaped: bool,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(keep: Duration) -> Arc<Self> {
        Arc::new(Self { keep, state: Mutex::default() })
    }

    /// The connection that was used last, if it can still be used.
    pub(crate) fn take(&self) -> Option<Sender> {
        let mut state = self.state.lock();
        while let Some(Idle { sender, since }) = state.idle.pop() {
            if since.elapsed() >= self.keep {
                // Those below it are older still.
                state.idle.clear();
                return None;
            }
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn put(self: &Arc<Self>, sender: Sender) {
        let mut state = self.state.lock();
        state.idle.push(Idle { sender, since: Instant::now() });
        if !std::mem::replace(&mut state.reaped, true) {
            tokio::spawn(self.clone().reap());
        }
    }

    async fn reap(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.keep).await;
            let mut state = self.state.lock();
            let fresh = |idle: &Idle| idle.since.elapsed() < self.keep && !idle.sender.is_closed();
            state.idle.retain(fresh);
            if state.idle.is_empty() {
                state.reaped = false;
                return;
            }
        }
    }
}

/// A connection in use. Dropped, it is closed as soon as its response was read or dropped.
pub(crate) struct Lease {
    pub(crate) sender: Sender,
    pub(crate) pool: Arc<Pool>,
}

impl Lease {
    /// Puts the connection back, once it can take another request.
    pub(crate) fn give_back(self) {
        let Self { mut sender, pool } = self;
        if sender.is_ready() {
            pool.put(sender);
            return;
        }
        tokio::spawn(async move {
            // It fails when the upstream closes the connection after the response.
            if sender.ready().await.is_ok() {
                pool.put(sender);
            }
        });
    }
}
