//! The execution of a claimed request: the handler, its response, and the end of the claim, in a
//! task of their own that no client can cancel.

use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header, response};
use http_body::Body;
use http_body_util::BodyExt;
use oncekey::Claim;
use tower_service::Service;

use crate::attempt::{Owner, Watch};
use crate::body::{End, Held, ResponseBody};
use crate::budget::Allowance;
use crate::config::{Config, Verdict};
use crate::markers::{NotStored, OutcomeUnknown, Ttl};
use crate::policy::Policy;
use crate::recorded::Encoder;

pub(crate) type Panic = Box<dyn Any + Send>;

/// How an execution ended: what the handler answered, or the panic that ended it.
pub(crate) type Ended<R, E> = Result<Result<Response<ResponseBody<R>>, E>, Panic>;

/// A handler with its request.
pub(crate) struct Runnable<S, B> {
    pub(crate) service: S,
    pub(crate) request: Request<B>,
    /// That of the body, until the handler has it.
    pub(crate) room: Allowance,
}

/// Starts an execution. How it ended is sent after its claim has ended, so that the one who learns of
/// it finds the key in its final state.
pub(crate) fn start<S, B, R>(
    config: &Arc<Config>,
    mut runnable: Runnable<S, B>,
    claim: Claim,
) -> (oneshot::Receiver<Ended<R, S::Error>>, Watch)
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
{
    let (sender, receiver) = oneshot::channel();
    let (owner, attempt) = Owner::new(claim);
    runnable.request.extensions_mut().insert(attempt);
    let watch = owner.watch();
    let running = config.running.enter();
    let shared = config.clone();
    let task = async move {
        let ended = execute(&shared, owner, runnable).await;
        // A client that is gone does not receive it.
        drop(sender.send(ended));
        drop(running);
    };
    #[cfg(feature = "tracing")]
    let task = tracing::Instrument::in_current_span(task);
    (config.spawn)(Box::pin(task));
    (receiver, watch)
}

async fn execute<S, B, R>(
    config: &Config,
    owner: Owner,
    runnable: Runnable<S, B>,
) -> Ended<R, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    match caught(run(runnable, &owner, &config.policy)).await {
        Ok(Ok(answer)) => {
            if let Some(claim) = owner.take() {
                config.settle(claim, answer.verdict, answer.ttl).await;
            }
            Ok(Ok(answer.response))
        }
        Ok(Err(error)) if !owner.is_started() => {
            if let Some(claim) = owner.take() {
                config.settle(claim, Verdict::NotExecuted, None).await;
            }
            Ok(Err(error))
        }
        Ok(Err(error)) => {
            config.abandon(owner, "the inner service failed");
            Ok(Err(error))
        }
        Err(panic) if !owner.is_started() => {
            if let Some(claim) = owner.take() {
                config.settle(claim, Verdict::NotExecuted, None).await;
            }
            Err(panic)
        }
        Err(panic) => {
            config.abandon(owner, "the handler panicked");
            Err(panic)
        }
    }
}

/// What the handler answered, and what that makes of its claim.
struct Answer<R: Body> {
    response: Response<ResponseBody<R>>,
    verdict: Verdict,
    ttl: Option<Duration>,
}

async fn run<S, B, R>(
    runnable: Runnable<S, B>,
    owner: &Owner,
    policy: &Policy,
) -> Result<Answer<R>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    let Runnable { mut service, request, room } = runnable;
    // A service that refuses here was not called: nothing happened.
    poll_fn(|context| service.poll_ready(context)).await?;
    owner.start();
    let answer = service.call(request);
    drop(room);
    let (parts, body) = answer.await?.into_parts();
    let ttl = parts.extensions.get::<Ttl>().copied().or(policy.ttl.map(Ttl)).map(Ttl::in_engine);
    let verdict = if parts.extensions.get::<OutcomeUnknown>().is_some() {
        Verdict::Unknown("the response says so")
    } else if policy.stored.frees_the_key(&parts) {
        Verdict::NotExecuted
    } else if is_stream(&parts) {
        Verdict::NotStored
    } else {
        let (response, verdict) = hold(parts, Box::pin(body), policy).await;
        return Ok(Answer { response, verdict, ttl });
    };
    let response = Response::from_parts(parts, ResponseBody::passed(body));
    Ok(Answer { response, verdict, ttl })
}

/// A response whose body is made to be seen while it grows, or is not a body at all.
fn is_stream(response: &response::Parts) -> bool {
    let content_type = response.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.map_or(&b""[..], |value| value.as_bytes());
    let streams = ["text/event-stream", "multipart/x-mixed-replace", "application/grpc"];
    response.status.is_informational()
        || response.extensions.get::<NotStored>().is_some()
        || streams.iter().any(|stream| {
            let start = content_type.get(..stream.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(stream.as_bytes()))
        })
}

/// Reads the body to its end and encodes the response; or as far as the limit allows.
async fn hold<R>(
    parts: response::Parts,
    mut body: Pin<Box<R>>,
    policy: &Policy,
) -> (Response<ResponseBody<R>>, Verdict)
where
    R: Body<Data = Bytes>,
{
    let mut frames = VecDeque::new();
    let mut trailers = HeaderMap::new();
    let expected = body.size_hint().lower();
    let dropped = &policy.dropped_headers;
    let mut encoder = Encoder::new(parts.status, &parts.headers, dropped, policy.max_response)
        .filter(|encoder| encoder.fits(expected));
    let (end, verdict) = loop {
        let Some(encoding) = encoder.as_mut() else {
            break (End::More(body), Verdict::NotStored);
        };
        match body.as_mut().frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    if !encoding.push(&data) {
                        encoder = None;
                    }
                    frames.push_back(data);
                }
                Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
            },
            // The client is shown the same failure as without the layer.
            Some(Err(error)) => {
                break (End::Failed(error), Verdict::Unknown("the response body failed"));
            }
            None => {
                let stored = encoder.and_then(|encoder| encoder.finish(&trailers));
                let end = if trailers.is_empty() { End::Complete } else { End::Trailers(trailers) };
                break (end, stored.map_or(Verdict::NotStored, Verdict::Store));
            }
        }
    };
    frames.retain(|data: &Bytes| !data.is_empty());
    let body = ResponseBody::held(Held { frames, end });
    (Response::from_parts(parts, body), verdict)
}

/// Runs a future to its end, or to its panic.
///
/// Unwind safety is asserted: the future is not polled again after a panic, and the panic goes on in
/// the task of the connection, if that is still there.
async fn caught<F: Future>(future: F) -> Result<F::Output, Panic> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}
