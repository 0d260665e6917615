//! The first bytes of a connection: the preface of HTTP/2 is not valid in HTTP/1.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Source: RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The most bytes that one read takes.
const FIRST: usize = 4096;

/// Reads until the protocol of the client is clear. Returns the stream with the bytes still to be read, and
/// whether the protocol is HTTP/2.
pub(crate) async fn read<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Rewound<S>, bool)> {
    let mut read = Vec::with_capacity(FIRST);
    loop {
        let common = read.len().min(PREFACE.len());
        if read[..common] != PREFACE[..common] || read.len() >= PREFACE.len() {
            let speaks_http2 = read.starts_with(PREFACE);
            return Ok((Rewound { read, given: 0, stream }, speaks_http2));
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A stream that returns its first bytes again after they were read.
pub(crate) struct Rewound<S> {
    read: Vec<u8>,
    given: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = &this.read[this.given..];
        if left.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let len = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..len]);
        this.given += len;
        if this.given == this.read.len() {
            (this.read, this.given) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_read_is_read_again() {
        for (sent, expected) in [
            (&b"POST / HTTP/1.1\r\n\r\n"[..], Some(false)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes", Some(true)),
            (b"PRI * HTTP/1.1\r\n\r\n", Some(false)),
            (b"PRI", None),
            (b"", None),
        ] {
            let Ok((mut stream, speaks_http2)) = read(sent).await else {
                assert_eq!(expected, None);
                continue;
            };
            assert_eq!(Some(speaks_http2), expected);
            let mut whole = Vec::new();
            stream.read_to_end(&mut whole).await.unwrap();
            assert_eq!(whole, sent);
        }
    }
}
