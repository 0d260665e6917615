//! The stream of a connection for two users: the server, which reads requests from it, and the code that may
//! answer a late request after the server has given up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A stream with two holders, which do not use it at the same time.
pub(crate) struct SharedStream<S>(Arc<Mutex<State<S>>>);

struct State<S> {
    stream: S,
    /// Whether data was read since the last write: a request, or the beginning of one.
    is_asked: bool,
}

impl<S> Clone for SharedStream<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> SharedStream<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(State { stream, is_asked: false })))
    }

    /// Answers 408 to a request whose head was not complete in time. A client that sent nothing gets no
    /// answer.
    pub(crate) async fn tell_late(mut self) {
        const LATE: &[u8] =
            b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let is_asked = self.0.lock().is_asked;
        if is_asked && self.write_all(LATE).await.is_ok() {
            // The client may be gone.
            let _ = self.shutdown().await;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SharedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (mut state, before) = (self.0.lock(), buffer.filled().len());
        let polled = Pin::new(&mut state.stream).poll_read(context, buffer);
        state.is_asked |= buffer.filled().len() > before;
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SharedStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        state.is_asked = false;
        Pin::new(&mut state.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        state.is_asked = false;
        Pin::new(&mut state.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn a_client_is_told_that_it_is_late_when_it_began_a_request() {
        for (asked, answered, is_told) in
            [(true, false, true), (true, true, false), (false, false, false)]
        {
            let (mut near, far) = tokio::io::duplex(1024);
            let mut stream = SharedStream::new(far);
            if asked {
                near.write_all(b"P").await.unwrap();
                stream.read_u8().await.unwrap();
            }
            if answered {
                stream.write_all(b"!").await.unwrap();
                near.read_u8().await.unwrap();
            }
            stream.tell_late().await;
            let mut told = String::new();
            near.read_to_string(&mut told).await.unwrap();
            assert_eq!(told.starts_with("HTTP/1.1 408 "), is_told, "{told}");
        }
    }
}
