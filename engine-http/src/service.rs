//! The service: decides at once what it can, without touching the body.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use oncekey::Key;
use tower_service::Service;

use crate::attempt::Attempt;
use crate::body::ResponseBody;
use crate::exchange::{exchange, refuse};
use crate::future::ResponseFuture;
use crate::key;
use crate::layer::Config;
use crate::rejection::Rejection;

/// A service with idempotency keys, made by [`IdempotencyLayer`](crate::IdempotencyLayer).
///
/// Its errors are those of the inner service; refusals of the layer are responses.
#[derive(Clone)]
pub struct IdempotencyService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> IdempotencyService<S> {
    pub(crate) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

/// What is known of a request before its body is read.
enum Admission {
    PassThrough,
    Refused(Rejection),
    Keyed(Key),
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
    type Future = ResponseFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        match self.config.admit(&parts) {
            Admission::PassThrough => {
                ResponseFuture::passed(self.inner.call(Request::from_parts(parts, body)))
            }
            Admission::Refused(rejection) => {
                let response = rejection.into_response(&self.config.contract);
                ResponseFuture::exchange(Box::pin(refuse(response, parts, body)))
            }
            Admission::Keyed(key) => {
                // The clone has not been polled ready; the one that was is called.
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                let config = self.config.clone();
                ResponseFuture::exchange(Box::pin(exchange(config, ready, key, parts, body)))
            }
        }
    }
}

impl Config {
    fn admit(&self, request: &http::request::Parts) -> Admission {
        let Self { contract, policy, .. } = self;
        if !contract.methods.contain(&request.method) {
            return Admission::PassThrough;
        }
        // A layer outside of this one holds the key already: here it would be found locked.
        if request.extensions.get::<Attempt>().is_some() {
            return Admission::PassThrough;
        }
        let rejection = match key::parse(&request.headers, &contract.header, contract.key_form) {
            Ok(Some(key)) => {
                let scope = policy.scope.as_ref().map(|scope| scope(request)).unwrap_or_default();
                match Key::new(scope, key) {
                    Ok(key) => return Admission::Keyed(key),
                    Err(error) => Rejection::InvalidInput(error.to_string()),
                }
            }
            Ok(None) if !policy.required => return Admission::PassThrough,
            Ok(None) => Rejection::MissingKey(contract.header.clone()),
            Err(invalid) => Rejection::InvalidKey(invalid),
        };
        self.counters.key_refused.add();
        Admission::Refused(rejection)
    }
}

impl<S> fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}
