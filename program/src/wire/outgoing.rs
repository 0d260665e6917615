//! The bodies of requests.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

/// A request body as the layer hands it on: the client's own, or what the layer read of it.
pub(crate) type RequestBody = oncekey_http::RequestBody<Incoming>;

/// A request body on its way to an upstream. Its end, or its drop, tells the receiver of [`sent`]
/// that nothing more is to be sent.
///
/// [`sent`]: Outgoing::sent
pub(crate) struct Outgoing {
    body: RequestBody,
    /// Dropped with the body.
    _whole: oneshot::Sender<()>,
}

impl Outgoing {
    /// The body, and a receiver that resolves once the body was sent or given up.
    pub(crate) fn sent(body: RequestBody) -> (Self, oneshot::Receiver<()>) {
        let (whole, sent) = oneshot::channel();
        (Self { body, _whole: whole }, sent)
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
