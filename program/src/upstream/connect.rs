//! New connections to an upstream. A failure here comes before any byte of a request was sent.

use std::io;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use super::tls::Tls;
use crate::config::{Address, Speaks, Target};
use crate::report::meter::{Meter, Stage};
use crate::wire::pool::Sender;

/// The longest head of a response, in bytes, and the largest number of its headers.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 256;

/// How often an HTTP/2 connection is pinged, and how long the answer may take.
const PING: Duration = Duration::from_secs(10);

/// The reason why there is no connection.
pub(crate) struct Unconnected {
    pub(crate) stage: Stage,
    pub(crate) error: io::Error,
}

/// Connects within `timeout`.
pub(crate) async fn connect(
    target: &Target,
    tls: Option<&Tls>,
    meter: &Meter,
    timeout: Duration,
) -> Result<Sender, Unconnected> {
    let mut stage = Stage::Connect;
    let dialed = tokio::time::timeout(timeout, dial(target, tls, meter, &mut stage)).await;
    let dialed = dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    dialed.map_err(|error| Unconnected { stage, error })
}

/// Connects, and keeps the current stage in `stage`.
async fn dial(
    target: &Target,
    connector: Option<&Tls>,
    meter: &Meter,
    stage: &mut Stage,
) -> io::Result<Sender> {
    match &target.address {
        Address::Tcp { host, port, speaks } => {
            *stage = Stage::Resolve;
            let addresses: Vec<_> = lookup_host((host.as_str(), *port)).await?.collect();
            *stage = Stage::Connect;
            let stream = TcpStream::connect(&addresses[..]).await?;
            stream.set_nodelay(true)?;
            match (speaks, connector) {
                (Speaks::H2c, _) => multiplexed(stream, meter).await,
                (Speaks::Https, Some(tls)) => {
                    *stage = Stage::Tls;
                    handshake(tls.connect(host, stream).await?).await
                }
                (Speaks::Https, None) => Err(io::Error::other("there is no TLS to it")),
                (Speaks::Http, _) => handshake(stream).await,
            }
        }
        Address::Unix(path) => handshake(UnixStream::connect(path).await?).await,
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<Sender> {
    let mut builder = http1::Builder::new();
    builder.max_header_size(MAX_HEAD).max_headers(MAX_HEADERS);
    let (sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // An error of the connection reaches the request that is on it.
    tokio::spawn(connection.with_upgrades());
    Ok(Sender::Http1(sender))
}

async fn multiplexed(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    meter: &Meter,
) -> io::Result<Sender> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .adaptive_window(true);
    let (sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let counted = meter.shared();
    tokio::spawn(async move {
        // An error of the connection reaches the requests that are on it.
        let _ = connection.await;
        drop(counted);
    });
    Ok(Sender::Http2(sender))
}
