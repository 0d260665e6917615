//! Connections of clients.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

use super::listener::{Accepted, Listener};
use super::proxy::Proxy;

/// The longest head of a request.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;

/// How long no connection is accepted after the process or the system had no descriptor for one.
const PAUSE: Duration = Duration::from_millis(100);

/// The proxy that new requests go to; running ones keep theirs.
pub(crate) struct Current(RwLock<Arc<Proxy>>);

impl Current {
    pub(crate) fn new(proxy: Proxy) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(proxy))))
    }

    pub(crate) fn set(&self, proxy: Proxy) {
        *self.0.write() = Arc::new(proxy);
    }

    fn get(&self) -> Arc<Proxy> {
        self.0.read().clone()
    }
}

/// What is the same for every connection.
pub(crate) struct Server {
    pub(crate) proxy: Arc<Current>,
    pub(crate) header_timeout: Duration,
    /// A permit for each connection that may be open.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) max_connections: u32,
}

impl Server {
    /// Accepts connections until `stop` says so or its sender is gone.
    pub(crate) async fn accept(&self, listener: Listener, mut stop: watch::Receiver<bool>) {
        loop {
            // At the bound connections wait in the backlog of the socket.
            let permit = tokio::select! {
                permit = self.connections.clone().acquire_owned() => permit,
                () = stopped(&mut stop) => return,
            };
            let Ok(permit) = permit else { return };
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stop) => return,
                accepted = listener.accept() => accepted,
            };
            let (proxy, timeout, stop) = (self.proxy.clone(), self.header_timeout, stop.clone());
            match accepted {
                Ok(Accepted::Tcp(stream, peer)) => tokio::spawn(async move {
                    serve(proxy, stream, Some(peer.ip()), timeout, stop).await;
                    drop(permit);
                }),
                Ok(Accepted::Unix(stream)) => tokio::spawn(async move {
                    serve(proxy, stream, None, timeout, stop).await;
                    drop(permit);
                }),
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
        }
    }

    /// Waits until no connection is open.
    pub(crate) async fn drained(&self) {
        // The semaphore is never closed.
        let _ = self.connections.acquire_many(self.max_connections).await;
    }
}

/// Resolves when the process shuts down.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone says the same.
    drop(stop.wait_for(|stop| *stop).await);
}

async fn serve(
    proxy: Arc<Current>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Option<IpAddr>,
    header_timeout: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let proxy = proxy.get();
        async move { Ok::<_, Infallible>(proxy.answer(request, peer).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // Its response is its last.
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // How a connection ends is the client's affair.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of a client failed");
    }
}
