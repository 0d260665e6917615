//! The future of a response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::body::ResponseBody;

type Exchange<R, E> = Pin<Box<dyn Future<Output = Result<Response<ResponseBody<R>>, E>> + Send>>;

pin_project! {
    /// The future response of an [`IdempotencyService`](crate::IdempotencyService) around the service `S`.
    ///
    /// Dropping it before the handler has started frees the key. After that the handler runs to its end
    /// without it.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
        R: Body,
    {
        #[pin]
        kind: Kind<S, B, R>,
    }
}

pin_project! {
    // Both variants without an exchange avoid an allocation: a request without a key costs none.
    #[project = KindProjection]
    enum Kind<S, B, R>
    where
        S: Service<Request<B>>,
        R: Body,
    {
        // Waits for the service to be ready; holds the request until then.
        Passing { service: S, request: Option<Request<B>> },
        Passed { #[pin] inner: S::Future },
        Exchange { exchange: Exchange<R, S::Error> },
    }
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
    R: Body,
{
    pub(crate) fn passing(service: S, request: Request<B>) -> Self {
        Self { kind: Kind::Passing { service, request: Some(request) } }
    }

    pub(crate) fn exchange(exchange: Exchange<R, S::Error>) -> Self {
        Self { kind: Kind::Exchange { exchange } }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut kind = self.project().kind;
        loop {
            let inner = match kind.as_mut().project() {
                KindProjection::Passing { service, request } => {
                    ready!(service.poll_ready(context))?;
                    service.call(request.take().expect("it is called once"))
                }
                KindProjection::Passed { inner } => {
                    let response = ready!(inner.poll(context));
                    return Poll::Ready(
                        response.map(|response| response.map(ResponseBody::passed)),
                    );
                }
                KindProjection::Exchange { exchange } => return exchange.as_mut().poll(context),
            };
            kind.set(Kind::Passed { inner });
        }
    }
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
    R: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Passing { .. } | Kind::Passed { .. } => "ResponseFuture(passed)",
            Kind::Exchange { .. } => "ResponseFuture(exchange)",
        })
    }
}
