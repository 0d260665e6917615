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
use crate::log;
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
                // The service that was polled ready may hold a permit of a limit inside. It is dropped
                // with its permit: a duplicate needs none, and the handler takes one of its own
                // once its claim is held.
                let service = self.inner.clone();
                self.inner = service.clone();
                let config = self.config.clone();
                ResponseFuture::exchange(Box::pin(exchange(config, service, key, parts, body)))
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
        let outer = request.extensions.get::<Attempt>();
        let rejection = match key::parse(&request.headers, &contract.headers, contract.key_form) {
            Ok(Some(key)) => {
                let scope = policy.scope.as_ref().map(|scope| scope(request)).unwrap_or_default();
                match Key::new(scope, key) {
                    // A layer outside of this one holds the key already: here it would be found
                    // locked. Another key is that of a request which a handler makes.
                    Ok(key) if outer.is_some_and(|outer| *outer.key() == key) => {
                        return Admission::PassThrough;
                    }
                    Ok(key) => {
                        self.look_for_unscoped_cookie(request);
                        return Admission::Keyed(key);
                    }
                    Err(error) => Rejection::InvalidInput(error.to_string()),
                }
            }
            Ok(None) if !policy.required || outer.is_some() => return Admission::PassThrough,
            Ok(None) => Rejection::MissingKey(contract.headers.first().cloned()),
            Err(invalid) => Rejection::InvalidKey(invalid),
        };
        self.counters.key_refused.add();
        Admission::Refused(rejection)
    }

    /// Cookies tell users apart that the fingerprint does not.
    fn look_for_unscoped_cookie(&self, request: &http::request::Parts) {
        if self.policy.scope.is_none()
            && request.headers.contains_key(http::header::COOKIE)
            && self.counters.unscoped_cookies.add_first()
        {
            log::unscoped_cookie();
        }
    }
}

impl<S> fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}
