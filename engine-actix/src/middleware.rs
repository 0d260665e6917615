//! The middleware: a request with a key, from its head to its answer.

use std::any::Any;
use std::fmt;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::{Error, HttpMessage, HttpResponse, error, rt};
use bytes::Bytes;
use http::Extensions;
use http::request::Parts;
use http_body_util::Full;
use oncekey::Engine;
use oncekey_http::{Admission, Contract, Execution, Idempotency, Keyed, Policy, Refusal, Ruling};

use crate::body::{HandlerBody, RequestBody, SentBody};
use crate::convert;

type Extend = dyn Fn(&ServiceRequest, &mut Extensions) + Send + Sync;

/// Gives idempotency keys to the routes that it wraps. Make one for the server and clone it for each worker:
/// clones share the engine, the counters and the memory for request bodies.
#[derive(Clone)]
pub struct Idempotent {
    idempotency: Idempotency,
    extend: Option<Arc<Extend>>,
}

impl Idempotent {
    /// The defaults of [`Idempotency`], with the clock of actix's runtime.
    pub fn new(engine: Engine) -> Self {
        Self { idempotency: Idempotency::new(engine).timer(rt::time::sleep), extend: None }
    }

    /// The contract that clients see. Default [`Contract::default`].
    pub fn contract(self, contract: Contract) -> Self {
        self.with(|idempotency| idempotency.contract(contract))
    }

    /// The policy for the requests of the wrapped routes. Default [`Policy::new`].
    pub fn policy(self, policy: Policy) -> Self {
        self.with(|idempotency| idempotency.policy(policy))
    }

    /// Changes any other setting of the [`Idempotency`].
    pub fn with(mut self, change: impl FnOnce(Idempotency) -> Idempotency) -> Self {
        self.idempotency = change(self.idempotency);
        self
    }

    /// Copies data for the [scope](Policy::scope) into the extensions of the request. A policy sees the
    /// request as a head of the crate `http`, without the extensions of actix-web.
    ///
    /// ```
    /// use actix_web::HttpMessage;
    /// # use oncekey_actix::{Idempotent, Policy};
    /// # #[derive(Clone)] struct Tenant(String);
    /// # fn f(idempotent: Idempotent) -> Idempotent {
    /// idempotent
    ///     .extensions(|request, extensions| {
    ///         if let Some(tenant) = request.extensions().get::<Tenant>() {
    ///             extensions.insert(tenant.clone());
    ///         }
    ///     })
    ///     .policy(Policy::new().scope(|request| match request.extensions.get::<Tenant>() {
    ///         Some(Tenant(name)) => name.clone(),
    ///         None => String::new(),
    ///     }))
    /// # }
    /// ```
    pub fn extensions(
        mut self,
        extend: impl Fn(&ServiceRequest, &mut Extensions) + Send + Sync + 'static,
    ) -> Self {
        self.extend = Some(Arc::new(extend));
        self
    }

    /// The contract without a server that this middleware uses: the engine, the counters, and
    /// [`drained`](Idempotency::drained) for shutdown.
    pub fn idempotency(&self) -> &Idempotency {
        &self.idempotency
    }
}

impl fmt::Debug for Idempotent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.idempotency.fmt(f)
    }
}

impl<S, B> Transform<S, ServiceRequest> for Idempotent
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Transform = IdempotentService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(IdempotentService { service: Rc::new(service), idempotent: self.clone() }))
    }
}

/// A service with idempotency keys, made by [`Idempotent`].
#[derive(Debug)]
pub struct IdempotentService<S> {
    service: Rc<S>,
    idempotent: Idempotent,
}

type Answered = Pin<Box<dyn Future<Output = Result<ServiceResponse<BoxBody>, Error>>>>;

impl<S, B> Service<ServiceRequest> for IdempotentService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = Answered;

    /// Always ready: a duplicate needs no inner service. The answer of any other request waits for that
    /// service to be ready.
    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&self, request: ServiceRequest) -> Answered {
        let Some(mut parts) = convert::request(&request) else {
            return Box::pin(ready(Err(error::ErrorBadRequest("a malformed head"))));
        };
        if let Some(extend) = &self.idempotent.extend {
            extend(&request, &mut parts.extensions);
        }
        let service = self.service.clone();
        match self.idempotent.idempotency.admit(&parts) {
            Admission::PassThrough => Box::pin(async move {
                poll_fn(|context| service.poll_ready(context)).await?;
                Ok(service.call(request).await?.map_into_boxed_body())
            }),
            Admission::Refused(refusal) => Box::pin(refuse(refusal, request, parts)),
            Admission::Keyed(keyed) => Box::pin(exchange(keyed, service, request, parts)),
        }
    }
}

fn body_of(request: &mut ServiceRequest, parts: &Parts) -> RequestBody {
    let payload: Payload = request.take_payload();
    RequestBody { payload, declared: convert::declared_length(parts) }
}

async fn refuse(
    refusal: Refusal,
    mut request: ServiceRequest,
    parts: Parts,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let body = body_of(&mut request, &parts);
    refusal.discard(&parts, body).await;
    Ok(answered(request, refusal))
}

fn answered(request: ServiceRequest, refusal: Refusal) -> ServiceResponse<BoxBody> {
    request.into_response(convert::answer(refusal.into_response()).map_into_boxed_body())
}

async fn exchange<S, B>(
    keyed: Keyed,
    service: Rc<S>,
    mut request: ServiceRequest,
    parts: Parts,
) -> Result<ServiceResponse<BoxBody>, Error>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    let body = body_of(&mut request, &parts);
    let body = match keyed.read(&parts, body).await {
        Ok(body) => body,
        Err(refusal) => return Ok(answered(request, refusal)),
    };
    let execution = match keyed.begin(&parts, &body).await {
        Ruling::Execute(execution) => execution,
        Ruling::Refuse(refusal) => return Ok(answered(request, refusal)),
        Ruling::Replay(stored) => {
            let stored = convert::answer(stored.into_response::<Full<Bytes>>());
            return Ok(
                request.into_response(stored.map_body(|_, body| SentBody::new(body).boxed()))
            );
        }
    };
    request.set_payload(convert::payload(body.into_bytes()));
    request.extensions_mut().insert(execution.attempt().clone());
    // The task continues when this future is dropped because the client disconnected.
    match rt::spawn(execute(execution, service, request)).await {
        Ok(Ok(response)) => response,
        // The task of the connection sees the panic as it would without the middleware.
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        // The body of the response panicked.
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        Err(_) => Err(error::ErrorServiceUnavailable(keyed.outcome_unknown().code())),
    }
}

type Panic = Box<dyn Any + Send>;

/// Runs the handler and ends its claim. `Err` holds the panic of the handler.
async fn execute<S, B>(
    execution: Execution,
    service: Rc<S>,
    request: ServiceRequest,
) -> Result<Result<ServiceResponse<BoxBody>, Error>, Panic>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    // A service that fails to become ready was not called: nothing happened.
    if let Err(error) = poll_fn(|context| service.poll_ready(context)).await {
        execution.fail("the inner service failed").await;
        return Ok(Err(error));
    }
    execution.start();
    // The handler runs in a task of its own, which catches a panic.
    match rt::spawn(async move { service.call(request).await }).await {
        Ok(Ok(response)) => {
            let (request, response) = response.into_parts();
            let response = finish(execution, response).await;
            Ok(response.map(|response| ServiceResponse::new(request, response)))
        }
        // A middleware inside answers with an error. actix-web makes a response of it, here as elsewhere.
        Ok(Err(error)) => {
            let cause = error.to_string();
            let response = finish(execution, HttpResponse::from_error(error)).await;
            Ok(Err(response.map_or_else(
                |malformed| malformed,
                |response| error::InternalError::from_response(cause, response).into(),
            )))
        }
        Err(ended) => {
            execution.fail("the handler panicked").await;
            Err(ended.try_into_panic().unwrap_or_else(|_| Box::new("the worker has ended")))
        }
    }
}

/// Ends the claim with a response, and returns what is sent.
async fn finish<B: MessageBody + 'static>(
    execution: Execution,
    response: HttpResponse<B>,
) -> Result<HttpResponse<BoxBody>, Error> {
    let (head, body) = response.into_parts();
    let Some(converted) = convert::response(&head, HandlerBody::new(body)) else {
        execution.fail("the response is not valid in HTTP").await;
        return Err(error::ErrorInternalServerError("a malformed response"));
    };
    let body = execution.finish(converted).await.into_body();
    Ok(head.set_body(SentBody::new(body).boxed()))
}
