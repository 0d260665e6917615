//! One request on a connection of its own.

use std::io;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::tls::Tls;
use crate::config::{Address, Target};

/// Sends a request over HTTP/1.1 and reads its answer, whose body has at most `max_answer` bytes.
pub(crate) async fn send_once(
    target: &Target,
    tls: Option<&Tls>,
    mut request: Request<Bytes>,
    max_answer: usize,
) -> io::Result<Response<Bytes>> {
    let host = HeaderValue::try_from(target.authority()).map_err(io::Error::other)?;
    request.headers_mut().insert(header::HOST, host);
    match &target.address {
        Address::Unix(path) => {
            exchange(UnixStream::connect(path).await?, request, max_answer).await
        }
        Address::Tcp { host, port, .. } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            match tls {
                Some(tls) => exchange(tls.connect(host, stream).await?, request, max_answer).await,
                None => exchange(stream, request, max_answer).await,
            }
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Bytes>,
    max_answer: usize,
) -> io::Result<Response<Bytes>> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // An error of the connection reaches the caller through the request on it.
    tokio::spawn(connection);
    let sent = sender.send_request(request.map(Full::new)).await;
    let (parts, body) = sent.map_err(io::Error::other)?.into_parts();
    let body = Limited::new(body, max_answer).collect().await.map_err(io::Error::other)?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}
