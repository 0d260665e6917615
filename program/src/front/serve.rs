//! Connections of clients.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};

use super::listener::{Accepted, Listener};
use super::peer::Peer;
use super::preface;
use super::proxy::Proxy;
use super::shared_stream::SharedStream;
use super::tls::Tls;
use crate::base::workers::Workers;

/// The longest head of a request, in bytes. hyper's own bound on the number of its headers is 100.
const MAX_HEAD: usize = 64 << 10;

/// How long an idle connection may still send a request after the shutdown has begun.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The largest number of requests that one HTTP/2 connection runs at once.
const MAX_STREAMS: u32 = 100;

/// How often an HTTP/2 connection is pinged, and how long the answer may take.
const PING: Duration = Duration::from_secs(20);

/// The pause after an accept failed, for example because no descriptor was left.
const PAUSE: Duration = Duration::from_millis(100);

/// The proxy for new requests. Running requests keep the proxy that they began with.
pub(crate) struct Current(RwLock<Arc<Proxy>>);

impl Current {
    pub(crate) fn new(proxy: Proxy) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(proxy))))
    }

    pub(crate) fn set(&self, proxy: Proxy) {
        *self.0.write() = Arc::new(proxy);
    }

    pub(crate) fn get(&self) -> Arc<Proxy> {
        self.0.read().clone()
    }
}

/// The parts that all connections share.
pub(crate) struct Server {
    pub(crate) proxy: Arc<Current>,
    pub(crate) header_timeout: Duration,
    /// A permit for each connection that may be open.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) max_connections: u32,
    pub(crate) tls: Option<Arc<Tls>>,
    /// The threads that serve the connections.
    pub(crate) workers: Workers,
}

impl Server {
    /// Accepts connections until `stop` is true or its sender is gone.
    pub(crate) async fn accept(
        self: Arc<Self>,
        listener: Listener,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            // At the bound, connections wait in the backlog of the socket.
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
            let (server, stop) = (self.clone(), stop.clone());
            match accepted {
                Ok(Accepted::Tcp(stream, address)) => self.workers.spawn(async move {
                    let peer = Peer { address: Some(address.ip()), ..Peer::default() };
                    server.greet(TcpStream::from_std(stream), peer, stop).await;
                    drop(permit);
                }),
                Ok(Accepted::Unix(stream)) => self.workers.spawn(async move {
                    server.greet(UnixStream::from_std(stream), Peer::default(), stop).await;
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

    /// Makes the TLS handshake, if TLS is set up, and serves a connection to its end.
    async fn greet(
        &self,
        stream: io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
        mut peer: Peer,
        stop: watch::Receiver<bool>,
    ) {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a connection cannot be served"),
        };
        let Some(tls) = &self.tls else { return self.serve(stream, peer, stop).await };
        match tokio::time::timeout(self.header_timeout, tls.accept(stream)).await {
            Ok(Ok((stream, certificate))) => {
                (peer.secure, peer.certificate) = (true, certificate);
                self.serve(stream, peer, stop).await;
            }
            // The TLS protocol tells the client.
            Ok(Err(error)) => tracing::debug!(%error, "a client failed to shake hands"),
            Err(_) => tracing::debug!("a client did not shake hands in time"),
        }
    }

    /// Serves a connection to its end.
    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        mut stop: watch::Receiver<bool>,
    ) {
        let (proxy, header_timeout) = (self.proxy.clone(), self.header_timeout);
        let asked = Arc::new(Notify::new());
        let asking = asked.clone();
        let service = service_fn(move |request| {
            asking.notify_one();
            let (proxy, peer) = (proxy.get(), peer.clone());
            async move { Ok::<_, Infallible>(proxy.answer(request, peer).await) }
        });
        let mut opening = pin!(tokio::time::timeout(header_timeout, preface::read(stream)));
        let opened = tokio::select! {
            opened = opening.as_mut() => opened,
            // A request may be on its way that would get no answer.
            () = stopped(&mut stop) => {
                let Ok(opened) = tokio::time::timeout(LAST_WORDS, opening).await else { return };
                opened
            }
        };
        // The client sent nothing, or disconnected.
        let Ok(Ok((stream, speaks_http2))) = opened else { return };
        let ended = if speaks_http2 {
            let connection =
                http2(self.workers.clone()).serve_connection(TokioIo::new(stream), service);
            let mut connection = pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => ended,
                // The requests that it has now are its last.
                () = last_words(&mut stop, &asked) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        } else {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(header_timeout)
                .max_header_size(MAX_HEAD);
            let stream = SharedStream::new(stream);
            let io = TokioIo::new(stream.clone());
            let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                // The response in progress is its last.
                () = last_words(&mut stop, &asked) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if ended.as_ref().is_err_and(hyper::Error::is_timeout) {
                // A client that does not read is not waited for.
                let _ = tokio::time::timeout(LAST_WORDS, stream.tell_late()).await;
            }
            ended
        };
        // The way in which a client ends a connection is not an error of the proxy.
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection of a client failed");
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
    // A sender that is gone means a shutdown as well.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Resolves after the shutdown has begun and the connection had time to send a request. A connection without
/// a request would be closed at once, and a request on its way would be lost.
async fn last_words(stop: &mut watch::Receiver<bool>, asked: &Notify) {
    stopped(stop).await;
    // An error means that the time is over.
    let _ = tokio::time::timeout(LAST_WORDS, asked.notified()).await;
}

/// The limits of HTTP/2 connections.
fn http2(workers: Workers) -> http2::Builder<Workers> {
    let mut builder = http2::Builder::new(workers);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}
