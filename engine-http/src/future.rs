//! The future of a response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::body::ResponseBody;

type Exchange<R, E> = Pin<Box<dyn Future<Output = Result<Response<ResponseBody<R>>, E>> + Send>>;

pin_project! {
    /// The response to come of an [`IdempotencyService`](crate::IdempotencyService).
    ///
    /// Dropping it before the handler has started frees the key; from then on the handler runs to
    /// its end without it.
    pub struct ResponseFuture<F, R: Body, E> {
        #[pin]
        kind: Kind<F, R, E>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<F, R: Body, E> {
        // A request without a key costs no allocation.
        Passed { #[pin] inner: F },
        Exchange { exchange: Exchange<R, E> },
    }
}

impl<F, R: Body, E> ResponseFuture<F, R, E> {
    pub(crate) fn passed(inner: F) -> Self {
        Self { kind: Kind::Passed { inner } }
    }

    pub(crate) fn exchange(exchange: Exchange<R, E>) -> Self {
        Self { kind: Kind::Exchange { exchange } }
    }
}

impl<F, R, E> Future for ResponseFuture<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProjection::Passed { inner } => {
                let response = ready!(inner.poll(context));
                Poll::Ready(response.map(|response| response.map(ResponseBody::passed)))
            }
            KindProjection::Exchange { exchange } => exchange.as_mut().poll(context),
        }
    }
}

impl<F, R: Body, E> fmt::Debug for ResponseFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Passed { .. } => "ResponseFuture(passed)",
            Kind::Exchange { .. } => "ResponseFuture(exchange)",
        })
    }
}
