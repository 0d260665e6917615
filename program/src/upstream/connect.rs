//! New connections to an upstream. A failure here is one before any byte of a request was sent.

use std::io;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::tls::Tls;
use crate::config::{Address, Target};
use crate::wire::pool::Sender;

/// The longest head of a response that an upstream may send.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 256;

/// Connects within `timeout`.
pub(crate) async fn connect(
    target: &Target,
    tls: Option<&Tls>,
    timeout: Duration,
) -> io::Result<Sender> {
    match tokio::time::timeout(timeout, dial(target, tls)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn dial(target: &Target, connector: Option<&Tls>) -> io::Result<Sender> {
    match &target.address {
        Address::Tcp { host, port, tls } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            match connector.filter(|_| *tls) {
                Some(connector) => handshake(connector.connect(host, stream).await?).await,
                None => handshake(stream).await,
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
    // How it ends is told to the request that is on it.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}
