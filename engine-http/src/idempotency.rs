//! The contract without a server: the steps that an adapter of a framework calls in its own order.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use http_body::Body;
use oncekey::{Engine, Fingerprint, Key};

use crate::budget::{Allowance, Budget};
use crate::config::{Begun, Config};
use crate::contract::Contract;
use crate::execution::Execution;
use crate::fingerprint;
use crate::policy::Policy;
use crate::reading::{Intake, Timer};
use crate::recorded::StoredResponse;
use crate::rejection::{Call, Rejection};
use crate::running::Running;
use crate::stats::LayerStats;

/// The default of [`Idempotency::max_buffered`], in bytes.
const MAX_BUFFERED: usize = 256 << 20;

/// The default of [`Idempotency::body_idle`].
const BODY_IDLE: Duration = Duration::from_secs(30);

/// The HTTP contract of this crate without a server, for adapters of frameworks that are not built from tower
/// services. [`IdempotencyLayer`](crate::IdempotencyLayer) and the crate `oncekey-actix` use it.
///
/// Clones share the engine, the counters and the memory for request bodies. Values with another [`Contract`]
/// or [`Policy`] made from them share these too. No runtime is needed, and all methods may be called on any
/// thread.
///
/// An adapter [admits](Self::admit) a request, [reads](Keyed::read) its body, and [begins](Keyed::begin).
/// Then it sends the response that it got, or runs the handler:
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use oncekey_http::{Admission, Idempotency, Ruling};
///
/// async fn serve(
///     idempotency: &Idempotency,
///     request: Request<Full<Bytes>>,
///     handler: impl AsyncFnOnce(Request<Bytes>) -> Response<Full<Bytes>>,
/// ) -> Response<Bytes> {
///     let (mut parts, body) = request.into_parts();
///     let keyed = match idempotency.admit(&parts) {
///         Admission::PassThrough => todo!("the handler runs as if there were no contract"),
///         Admission::Refused(refusal) => return refusal.into_response(),
///         Admission::Keyed(keyed) => keyed,
///     };
///     let body = match keyed.read(&parts, body).await {
///         Ok(body) => body,
///         Err(refusal) => return refusal.into_response(),
///     };
///     let response = match keyed.begin(&parts, &body).await {
///         Ruling::Refuse(refusal) => return refusal.into_response(),
///         Ruling::Replay(stored) => stored.into_response::<Full<Bytes>>(),
///         Ruling::Execute(execution) => {
///             // A server spawns a task here, so that the handler continues when its client disconnects.
///             parts.extensions.insert(execution.attempt().clone());
///             execution.start();
///             let response = handler(Request::from_parts(parts, body.into_bytes())).await;
///             execution.finish(response).await
///         }
///     };
///     let (parts, body) = response.into_parts();
///     Response::from_parts(parts, body.collect().await.expect("it cannot fail").to_bytes())
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> oncekey::Result<()> {
/// # let dir = std::env::temp_dir().join(format!("oncekey-doc-core-{}", std::process::id()));
/// # let idempotency = Idempotency::new(oncekey::Engine::open(&dir)?);
/// # let mut runs = 0;
/// # for _ in 0..2 {
/// #     let request = Request::post("/orders").header("idempotency-key", "k").body(Full::from("2 apples"));
/// #     let response = serve(&idempotency, request.expect("it is valid"), async |request| {
/// #         runs += 1;
/// #         Response::new(Full::from(request.into_body()))
/// #     });
/// #     assert_eq!(response.await.into_body(), "2 apples");
/// # }
/// # assert_eq!(runs, 1);
/// # idempotency.engine().close()?;
/// # std::fs::remove_dir_all(&dir).ok();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Idempotency {
    config: Arc<Config>,
}

/// The treatment of a request, as far as its head decides.
#[derive(Debug)]
pub enum Admission {
    /// The request takes no part: the handler runs with the body as it comes.
    PassThrough,
    /// The request is refused from its head alone. Some clients read the answer only after they have sent
    /// their whole body: [`Refusal::discard`] reads that body.
    Refused(Refusal),
    /// The request has a key.
    Keyed(Keyed),
}

/// The next step for a request with a key.
#[derive(Debug)]
pub enum Ruling {
    /// The handler runs.
    Execute(Execution),
    /// The operation was completed: this response is sent.
    Replay(StoredResponse),
    /// The request is refused.
    Refuse(Refusal),
}

impl Idempotency {
    /// The contract and the policy are the defaults. No clock measures [`body_idle`](Self::body_idle) until
    /// [`timer`](Self::timer) provides one.
    pub fn new(engine: Engine) -> Self {
        Self {
            config: Arc::new(Config {
                engine,
                contract: Contract::default(),
                policy: Arc::new(Policy::default()),
                intake: Intake { budget: Budget::new(MAX_BUFFERED), idle: BODY_IDLE, timer: None },
                counters: Arc::default(),
                running: Running::default(),
            }),
        }
    }

    /// The contract that clients see. Default [`Contract::default`].
    pub fn contract(self, contract: Contract) -> Self {
        self.with(|config| config.contract = contract)
    }

    /// The policy for the requests that are admitted here. Default [`Policy::new`].
    pub fn policy(self, policy: Policy) -> Self {
        self.with(|config| config.policy = Arc::new(policy))
    }

    /// The most memory, in bytes, that the bodies read by [`Keyed::read`] take together. Default 256 MiB. See
    /// [`IdempotencyLayer::max_buffered`](crate::IdempotencyLayer::max_buffered) for the details.
    pub fn max_buffered(self, bytes: usize) -> Self {
        self.with(|config| config.intake.budget = Budget::new(bytes))
    }

    /// How long [`Keyed::read`] waits for a body that sends nothing. Default 30 s.
    pub fn body_idle(self, at_most: Duration) -> Self {
        self.with(|config| config.intake.idle = at_most)
    }

    /// The clock that measures [`body_idle`](Self::body_idle). Without a clock the wait for a body has no
    /// limit.
    pub fn timer<F>(self, sleep: impl Fn(Duration) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let timer: Timer = Arc::new(move |time| Box::pin(sleep(time)));
        self.with(|config| config.intake.timer = Some(timer))
    }

    /// The engine that the contract uses.
    pub fn engine(&self) -> &Engine {
        &self.config.engine
    }

    /// The counts of this value and its clones so far.
    pub fn stats(&self) -> LayerStats {
        self.config.counters.snapshot(self.config.running.count(), self.config.intake.budget.held())
    }

    /// Waits until no [`Execution`] is left. For shutdown: after the server has stopped accepting requests
    /// and before [`Engine::close`].
    pub fn drained(&self) -> impl Future<Output = ()> + Send + use<> {
        self.config.running.drained()
    }

    /// Decides the treatment of a request from its head. Extensions count: the scope of the [`Policy`] sees
    /// them, and an [`Attempt`](crate::Attempt) in them means that a layer outside holds a key.
    pub fn admit(&self, request: &Parts) -> Admission {
        match self.config.admit(request) {
            Ok(None) => Admission::PassThrough,
            Ok(Some(key)) => Admission::Keyed(Keyed {
                config: self.config.clone(),
                key,
                call: Call::of(&request.headers),
            }),
            Err(rejection) => Admission::Refused(Refusal {
                config: self.config.clone(),
                rejection,
                call: Call::of(&request.headers),
            }),
        }
    }

    /// The fingerprint of a request under this policy, which tells it apart from another request with its
    /// key.
    pub fn fingerprint(&self, request: &Parts, body: &[u8]) -> Fingerprint {
        fingerprint::of(request, body, &self.config.policy.fingerprinted)
    }

    #[cfg(test)]
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

/// A request with a key, before its body is read.
pub struct Keyed {
    config: Arc<Config>,
    key: Key,
    call: Call,
}

impl Keyed {
    /// The key with its scope.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Reads the body, within the limits of length, memory and idle time. Trailers are dropped. The rest of a
    /// body that is too large is read and thrown away, up to 8 MiB, so that the client sees its answer.
    ///
    /// # Errors
    /// A refusal; the key is unused.
    pub async fn read<B>(&self, request: &Parts, body: B) -> Result<BufferedBody, Refusal>
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let limit = self.config.policy.max_request_body;
        match self.config.intake.read(&request.headers, body, limit).await {
            Ok((bytes, room)) => Ok(BufferedBody { bytes, room }),
            Err(rejection) => {
                self.config.count_body_refused(&rejection);
                Err(self.refusal(rejection))
            }
        }
    }

    /// Asks the engine, under the policy. Dropping the future before it is ready changes nothing.
    ///
    /// `request` must be the head that was admitted: a changed head could have another fingerprint.
    pub async fn begin(&self, request: &Parts, body: &[u8]) -> Ruling {
        let fingerprint = || fingerprint::of(request, body, &self.config.policy.fingerprinted);
        match self.config.begin(&self.key, fingerprint).await {
            Ok(Begun::Claimed(claim)) => {
                let outer = request.extensions.get().cloned();
                Ruling::Execute(Execution::new(self.config.clone(), claim, outer))
            }
            Ok(Begun::Completed(recorded)) => match self.config.replay(recorded) {
                Ok(stored) => Ruling::Replay(stored),
                Err(rejection) => Ruling::Refuse(self.refusal(rejection)),
            },
            Err(rejection) => Ruling::Refuse(self.refusal(rejection)),
        }
    }

    /// The answer when the task of an [`Execution`] was lost after the handler was
    /// [started](Execution::start).
    pub fn outcome_unknown(&self) -> Refusal {
        self.refusal(Rejection::OutcomeUnknown)
    }

    /// The answer when the task of an [`Execution`] was lost before the handler was started.
    pub fn not_started(&self) -> Refusal {
        self.refusal(Rejection::HandlerNotStarted)
    }

    fn refusal(&self, rejection: Rejection) -> Refusal {
        Refusal { config: self.config.clone(), rejection, call: self.call.clone() }
    }
}

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The whole body of a request, which counts against
/// [`max_buffered`](Idempotency::max_buffered) until it is dropped or taken.
pub struct BufferedBody {
    bytes: Bytes,
    room: Allowance,
}

impl BufferedBody {
    /// The bytes, which no longer count against the budget.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    pub(crate) fn into_parts(self) -> (Bytes, Allowance) {
        (self.bytes, self.room)
    }
}

impl std::ops::Deref for BufferedBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for BufferedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferedBody({} bytes)", self.bytes.len())
    }
}

/// The reason why a request is answered without its handler, and the answer.
pub struct Refusal {
    config: Arc<Config>,
    rejection: Rejection,
    call: Call,
}

impl Refusal {
    /// The code of the contract, such as `idempotency_key_locked`. It never changes.
    pub fn code(&self) -> &'static str {
        self.rejection.code()
    }

    /// The answer, in the form that the [`Contract`] says; a gRPC call gets a gRPC status.
    pub fn into_response(self) -> Response<Bytes> {
        self.rejection.render(&self.config.contract, &self.call)
    }

    /// Reads an unneeded body and throws it away, up to 8 MiB: a server that closes a connection while its
    /// client still sends resets the connection, and the client may never see the answer.
    pub async fn discard(&self, request: &Parts, body: impl Body) {
        self.config.intake.discard(&request.headers, pin!(body)).await;
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Refusal").field(&self.code()).finish()
    }
}
