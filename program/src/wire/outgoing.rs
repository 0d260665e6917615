//! The bodies of requests.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::names::Names;

/// The body of a request after the layer: the client's own, or the bytes that the layer read.
pub(crate) type RequestBody = oncekey_http::RequestBody<Received>;

/// The body that a client sends. Its bytes are counted, and its trailers are cleaned.
pub(crate) struct Received {
    incoming: Incoming,
    bytes: Arc<AtomicU64>,
    names: Arc<Names>,
}

impl Received {
    pub(crate) fn new(incoming: Incoming, bytes: Arc<AtomicU64>, names: Arc<Names>) -> Self {
        Self { incoming, bytes, names }
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut polled = Pin::new(&mut self.incoming).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled {
            if let Some(data) = frame.data_ref() {
                self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            if let Some(trailers) = frame.trailers_mut() {
                self.names.clean_trailers(trailers);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A request body on its way to an upstream. Its drop informs its [`Delivery`].
pub(crate) struct Outgoing {
    body: RequestBody,
    ended: bool,
    /// Sends whether the body was handed over to its end.
    whole: Option<oneshot::Sender<bool>>,
}

impl Outgoing {
    /// The body, and the [`Delivery`] that follows it.
    pub(crate) fn new(body: RequestBody) -> (Self, Delivery) {
        let (whole, over) = oneshot::channel();
        (Self { body, ended: false, whole: Some(whole) }, Delivery { over, whole: None })
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(whole) = self.whole.take() {
            // The receiver may be gone.
            let _ = whole.send(self.ended || self.body.is_end_stream());
        }
    }
}

/// Follows how far the body of a request was sent.
pub(crate) struct Delivery {
    over: oneshot::Receiver<bool>,
    whole: Option<bool>,
}

impl Delivery {
    /// Resolves when the body was sent to its end, or was dropped early.
    pub(crate) async fn over(&mut self) {
        if self.whole.is_none() {
            self.whole = Some((&mut self.over).await.unwrap_or_default());
        }
    }

    /// Whether the whole body was handed to the connection.
    pub(crate) fn is_whole(&mut self) -> bool {
        self.whole.or_else(|| self.over.try_recv().ok()).unwrap_or_default()
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.ended |= matches!(polled, Poll::Ready(None));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
