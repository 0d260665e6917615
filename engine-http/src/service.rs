//! The service: decides as much as it can from the head, before the body is read.

use std::error::Error as StdError;
use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::body::ResponseBody;
use crate::detached::Spawner;
use crate::exchange::{exchange, refuse};
use crate::future::ResponseFuture;
use crate::idempotency::{Admission, Idempotency};

/// A service with idempotency keys, made by [`IdempotencyLayer`](crate::IdempotencyLayer).
///
/// Its errors are those of the inner service. Refusals of the layer are responses.
#[derive(Clone)]
pub struct IdempotencyService<S> {
    /// Never polled for readiness. Its clones are, and a clone then holds the permit of a limit inside.
    inner: S,
    idempotency: Idempotency,
    spawn: Spawner,
}

impl<S> IdempotencyService<S> {
    pub(crate) fn new(inner: S, idempotency: Idempotency, spawn: Spawner) -> Self {
        Self { inner, idempotency, spawn }
    }
}

impl<S, B, R> Service<Request<B>> for IdempotencyService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body + From<Bytes> + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, R>;

    /// Always ready: the layer knows only after it has read the key whether a request needs the inner
    /// service. The response future waits for that service to be ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        match self.idempotency.admit(&parts) {
            Admission::PassThrough => {
                let request = Request::from_parts(parts, body);
                ResponseFuture::passing(self.inner.clone(), request)
            }
            Admission::Refused(refusal) => {
                ResponseFuture::exchange(Box::pin(refuse(refusal, parts, body)))
            }
            Admission::Keyed(keyed) => {
                let (service, spawn) = (self.inner.clone(), self.spawn.clone());
                ResponseFuture::exchange(Box::pin(exchange(keyed, spawn, service, parts, body)))
            }
        }
    }
}

impl<S> fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.idempotency.fmt(f)
    }
}
