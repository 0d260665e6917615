//! The rules for one route, or for many.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Extensions, HeaderName, StatusCode, response};
use oncekey::FingerprintedHeaders;

use crate::fingerprint;
use crate::grpc;
use crate::markers::{NotExecuted, Ttl};

/// The treatment of a request whose key belongs to an attempt that ended with an unknown outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// It is refused with 409 `idempotency_outcome_unknown`, until an operator resolves the orphan
    /// ([`Engine::orphans`](oncekey::Engine::orphans)) or the orphan expires. The handler runs at most once.
    #[default]
    Hold,
    /// It takes over the operation and runs the handler again. The handler learns from its
    /// [`Attempt`](crate::Attempt) that it is not the first. The handler runs **at least once**: use this for
    /// handlers that can find out what an earlier attempt did.
    Retry,
}

/// Which responses are stored. A response that is not stored frees the key: the next request with it runs the
/// handler, even if the first run took effect. So every policy but the first may run an operation **more than
/// once**, and its name says so.
///
/// A handler can free the key with [`NotExecuted`] under every policy. A gRPC call that failed before its
/// first message counts as the corresponding HTTP status: UNAUTHENTICATED as 401, RESOURCE_EXHAUSTED as 429,
/// UNAVAILABLE as 503.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Stored {
    /// Every response but 401, 425 and 429, which a server sends before it does anything. 5xx and 408 are
    /// stored: the handler may have acted before it failed.
    #[default]
    EveryResponse,
    /// 408 and 5xx free the key too. For handlers that undo their effects when they fail.
    AtLeastOnceAfterServerErrors,
    /// Only 2xx and 3xx are stored.
    AtLeastOnceUnlessSuccessful,
    /// A response is stored when the function returns `true` for it.
    AtLeastOnceUnless(Arc<dyn Fn(&response::Parts) -> bool + Send + Sync>),
}

impl Stored {
    /// Whether nothing happened, according to the response or to this policy.
    pub(crate) fn frees_the_key(&self, response: &response::Parts) -> bool {
        let status = grpc::http_status(response).unwrap_or(response.status);
        response.extensions.get::<NotExecuted>().is_some()
            || match self {
                Self::EveryResponse => comes_before_execution(status),
                Self::AtLeastOnceAfterServerErrors => {
                    comes_before_execution(status)
                        || status == StatusCode::REQUEST_TIMEOUT
                        || status.is_server_error()
                }
                // 1xx is a switch of protocols, which is never stored and must not free the key.
                Self::AtLeastOnceUnlessSuccessful => {
                    status.is_client_error() || status.is_server_error()
                }
                Self::AtLeastOnceUnless(stored) => !stored(response),
            }
    }
}

fn comes_before_execution(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    )
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EveryResponse => "EveryResponse",
            Self::AtLeastOnceAfterServerErrors => "AtLeastOnceAfterServerErrors",
            Self::AtLeastOnceUnlessSuccessful => "AtLeastOnceUnlessSuccessful",
            Self::AtLeastOnceUnless(_) => "AtLeastOnceUnless(..)",
        })
    }
}

type Scope = dyn Fn(&Parts) -> Vec<u8> + Send + Sync;

/// The rules for the requests of a layer: which need a key, which responses are stored and for how long, and
/// the treatment of duplicates and of attempts that died.
///
/// Routes with different rules get layers with different policies, which share engine, contract and counters:
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::post};
/// use oncekey_http::{IdempotencyLayer, Policy, Recovery};
///
/// # async fn pay() {}
/// # async fn note() {}
/// # fn app(layer: IdempotencyLayer) -> Router {
/// let payments = Policy::new().required(true).recovery(Recovery::Retry);
/// let notes = Policy::new().ttl(Duration::from_secs(3600));
/// Router::new()
///     .route("/payments", post(pay).layer(layer.clone().policy(payments)))
///     .route("/notes", post(note).layer(layer.policy(notes)))
/// # }
/// ```
#[derive(Clone)]
pub struct Policy {
    pub(crate) required: bool,
    pub(crate) recovery: Recovery,
    pub(crate) stored: Stored,
    pub(crate) ttl: Option<Duration>,
    pub(crate) wait: Option<Duration>,
    pub(crate) fingerprinted: FingerprintedHeaders,
    /// `None`: all keys share the empty scope.
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) dropped_headers: Arc<[HeaderName]>,
    pub(crate) max_request_body: usize,
    pub(crate) max_response: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            required: false,
            recovery: Recovery::Hold,
            stored: Stored::EveryResponse,
            ttl: None,
            wait: None,
            fingerprinted: FingerprintedHeaders::default(),
            scope: None,
            dropped_headers: Arc::default(),
            max_request_body: 2 << 20,
            max_response: 1 << 20,
        }
    }
}

impl Policy {
    /// The defaults: a key is not required, every response is stored for as long as the engine's
    /// [`ttl`](oncekey::Options::ttl), nothing runs twice, duplicates are refused at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a request without a key is refused, when its method takes part. Default `false`: such a
    /// request passes through, neither buffered nor stored.
    pub fn required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }

    /// The treatment of an operation whose outcome is unknown. Default [`Recovery::Hold`].
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// Which responses are stored. Default [`Stored::EveryResponse`].
    pub fn stored(mut self, stored: Stored) -> Self {
        self.stored = stored;
        self
    }

    /// How long a response is replayed before its key is new again, counted from its completion. Default: the
    /// engine's [`ttl`](oncekey::Options::ttl), which also applies to orphans. A response can have its own
    /// time, see [`Ttl`](crate::Ttl). Both are at least a millisecond.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long a duplicate waits for the response of the first request before it is refused with
    /// `idempotency_key_locked`. Default zero: it is refused at once. Each waiter holds a connection and one
    /// of the engine's [`max_waiters`](oncekey::Options::max_waiters).
    pub fn wait(mut self, at_most: Duration) -> Self {
        self.wait = Some(at_most).filter(|wait| !wait.is_zero());
        self
    }

    /// The headers that tell requests apart, besides method, target, authority and body. Default
    /// [`FingerprintedHeaders::default`](oncekey::FingerprintedHeaders). A header that some retries lack or
    /// that changes between them (a refreshed token) turns retries into mismatches. A change of this list
    /// does the same for keys that were used before the change.
    ///
    /// # Panics
    /// With more than 60 headers.
    pub fn fingerprint_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.fingerprinted = fingerprint::counted(names);
        self
    }

    /// The party that a key belongs to: a tenant, a principal, an API key. At most 255 bytes; a longer scope
    /// is refused with 400. The same key in two scopes names two operations. Default: one scope for all.
    ///
    /// The closure sees the request without its body, with the extensions that layers outside of this one
    /// set. Authenticate there, and take the scope from the result, not from a claim of the client.
    ///
    /// ```
    /// # #[derive(Clone)] struct Tenant(String);
    /// let policy = oncekey_http::Policy::new().scope(|request| {
    ///     match request.extensions.get::<Tenant>() {
    ///         Some(Tenant(name)) => name.clone(),
    ///         None => String::new(),
    ///     }
    /// });
    /// ```
    pub fn scope<T: AsRef<[u8]>>(
        mut self,
        scope: impl Fn(&Parts) -> T + Send + Sync + 'static,
    ) -> Self {
        self.scope = Some(Arc::new(move |request: &Parts| scope(request).as_ref().to_vec()));
        self
    }

    /// Response headers that are not stored, so that a replay lacks them: Set-Cookie, for example, or the id
    /// of a trace. Default none. Date and the headers of one connection are never stored.
    pub fn drop_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.dropped_headers = names.into_iter().collect();
        self
    }

    /// The longest body of a request with a key, in bytes. Default 2 MiB. A longer one is refused
    /// with 413, and its key is unused.
    pub fn max_request_body(mut self, bytes: usize) -> Self {
        self.max_request_body = bytes;
        self
    }

    /// The longest response that is stored, in bytes with status and headers
    /// ([`StoredResponse::encode`](crate::StoredResponse::encode)). Default 1 MiB. A longer one is sent but
    /// not stored. The engine's [`max_response`](oncekey::Options::max_response) is a separate limit: raise
    /// both.
    pub fn max_response(mut self, bytes: usize) -> Self {
        self.max_response = bytes;
        self
    }

    /// The time to live of an outcome, by the extensions of its response: at least a millisecond, the
    /// shortest that the engine accepts. `None`: that of the engine.
    pub(crate) fn ttl_of(&self, response: &Extensions) -> Option<Duration> {
        let ttl = response.get::<Ttl>().map(|ttl| ttl.0).or(self.ttl);
        ttl.map(|ttl| ttl.max(Duration::from_millis(1)))
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("required", &self.required)
            .field("recovery", &self.recovery)
            .field("stored", &self.stored)
            .field("ttl", &self.ttl)
            .field("wait", &self.wait)
            .field("scoped", &self.scope.is_some())
            .field("dropped_headers", &self.dropped_headers)
            .field("max_request_body", &self.max_request_body)
            .field("max_response", &self.max_response)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frees_the_key() {
        let response = |status: u16| {
            let (mut parts, ()) = http::Response::new(()).into_parts();
            parts.status = StatusCode::from_u16(status).unwrap();
            parts
        };
        let only_201 = Stored::AtLeastOnceUnless(Arc::new(|response| response.status == 201));
        for (stored, freeing, storing) in [
            (Stored::EveryResponse, &[401, 425, 429][..], &[200, 302, 400, 408, 500, 503][..]),
            (
                Stored::AtLeastOnceAfterServerErrors,
                &[401, 425, 429, 408, 500, 503],
                &[200, 302, 400, 404],
            ),
            (
                Stored::AtLeastOnceUnlessSuccessful,
                &[400, 401, 404, 408, 429, 500],
                &[200, 204, 302],
            ),
            (only_201, &[200, 401, 500], &[201]),
        ] {
            for status in freeing {
                assert!(stored.frees_the_key(&response(*status)), "{stored:?} {status}");
            }
            for status in storing {
                assert!(!stored.frees_the_key(&response(*status)), "{stored:?} {status}");
                let mut said = response(*status);
                said.extensions.insert(NotExecuted);
                assert!(stored.frees_the_key(&said), "{stored:?} {status}");
            }
        }
    }
}
