//! The execution of a claimed request: what its handler can see, and how its response ends the claim.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, header, response};
use http_body::Body;
use http_body_util::BodyExt;
use oncekey::Claim;

use crate::attempt::{Attempt, Owner, Watch};
use crate::body::{End, Held, ResponseBody};
use crate::config::{Config, Verdict};
use crate::grpc;
use crate::markers::{NotStored, OutcomeUnknown};
use crate::policy::Policy;
use crate::recorded::{Encoder, is_bodiless};
use crate::running::Guard;

/// The right to run a handler, once. An adapter of a server gets it from
/// [`Keyed::begin`](crate::Keyed::begin).
///
/// Dropping it before [`start`](Self::start) frees the key. Dropping it later leaves the outcome unknown, as
/// a panic of the handler does. Keep it in a task that continues when the client disconnects.
pub struct Execution {
    config: Arc<Config>,
    owner: Owner,
    attempt: Attempt,
    /// Counts this execution as running.
    _running: Guard,
}

impl Execution {
    /// `outer` is the attempt whose handler made the request.
    pub(crate) fn new(config: Arc<Config>, claim: Claim, outer: Option<Attempt>) -> Self {
        let (owner, attempt) = Owner::new(claim, config.policy.clone(), outer);
        let running = config.running.enter();
        Self { config, owner, attempt, _running: running }
    }

    /// The handler's view of the execution: put a clone into the extensions of its request.
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// Records that the handler is called now. Call this immediately before the handler.
    pub fn start(&self) {
        self.owner.start();
    }

    /// Ends the execution with the response of the handler, whose extensions may carry
    /// [`NotExecuted`](crate::NotExecuted) and the other markers. When this returns, the response is stored
    /// or its key is free, as the policy and the markers say. Send the returned response then. A response
    /// that streams or is too large is returned before its end and is not stored. If the store fails, the
    /// response is returned too; the failure is [counted](crate::LayerStats::complete_failed).
    pub async fn finish<R: Body<Data = Bytes>>(
        self,
        response: Response<R>,
    ) -> Response<ResponseBody<R>> {
        let answer = self.weigh(response).await;
        self.end(answer.verdict, answer.ttl).await;
        answer.response
    }

    /// Ends the execution without a response: the handler panicked or its service failed. The key is free
    /// when the handler was never [started](Self::start); else the outcome is unknown. `reason` goes to the
    /// log.
    pub async fn fail(self, reason: &'static str) {
        self.lose(reason).await;
    }

    pub(crate) async fn lose(&self, reason: &'static str) {
        let started = self.owner.is_started();
        self.end(if started { Verdict::Unknown(reason) } else { Verdict::NotExecuted }, None).await;
    }

    pub(crate) async fn end(&self, verdict: Verdict, ttl: Option<Duration>) {
        if let Some(claim) = self.owner.take() {
            // A committed transaction decides, however the handler ended after its commit.
            let verdict = if self.owner.is_completed() { Verdict::Completed } else { verdict };
            self.config.settle(claim, verdict, ttl).await;
        }
    }

    pub(crate) fn watch(&self) -> Watch {
        self.owner.watch()
    }

    /// Decides how a response ends the claim, and reads only the part of its body that the decision needs.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
    pub(crate) fn weigh<R: Body<Data = Bytes>>(
        &self,
        response: Response<R>,
    ) -> impl Future<Output = Answer<R>> {
        async move {
            let policy = &self.config.policy;
            let (parts, body) = response.into_parts();
            let ttl = policy.ttl_of(&parts.extensions);
            let verdict = if self.owner.is_completed() {
                Verdict::Completed
            } else if parts.extensions.get::<OutcomeUnknown>().is_some() {
                Verdict::Unknown("the response says so")
            } else if policy.stored.frees_the_key(&parts) {
                Verdict::NotExecuted
            } else if is_stream(&parts) {
                Verdict::NotStored
            } else {
                let (response, verdict) = hold(parts, Box::pin(body), policy).await;
                return Answer { response, verdict, ttl };
            };
            let response = Response::from_parts(parts, ResponseBody::passed(body));
            Answer { response, verdict, ttl }
        }
    }
}

/// An execution that is dropped after its start leaves the outcome unknown.
impl Drop for Execution {
    fn drop(&mut self) {
        if self.owner.is_started() && self.owner.holds_claim() && !self.owner.is_completed() {
            self.config.count_abandoned("the task of the handler ended early");
        }
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Execution").field(&self.attempt).finish()
    }
}

/// The answer of the handler, and the end of the claim that it decides.
pub(crate) struct Answer<R: Body> {
    pub(crate) response: Response<ResponseBody<R>>,
    pub(crate) verdict: Verdict,
    pub(crate) ttl: Option<Duration>,
}

/// Whether a response is read by its client while it grows, or has no body at all.
fn is_stream(response: &response::Parts) -> bool {
    response.status.is_informational()
        || response.extensions.get::<NotStored>().is_some()
        || NotStored::is_meant_by(&response.headers)
}

/// The length that the headers announce for the body, else the body itself. A response of a status without a
/// body may announce the length of another one.
fn announced(response: &response::Parts, body: &impl Body) -> Option<u64> {
    if is_bodiless(response.status) {
        return None;
    }
    let length = response.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.or(body.size_hint().exact())
}

/// Reads the body to its end and encodes the response. Stops at the limit, and in a gRPC response at the
/// second message.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
fn hold<R>(
    parts: response::Parts,
    mut body: Pin<Box<R>>,
    policy: &Policy,
) -> impl Future<Output = (Response<ResponseBody<R>>, Verdict)>
where
    R: Body<Data = Bytes>,
{
    async move {
        let announced = announced(&parts, &*body);
        let expected = body.size_hint().lower();
        let dropped = &policy.dropped_headers;
        let encoder =
            Encoder::new(parts.status, &parts.headers, dropped, expected, policy.max_response);
        let Some(mut encoder) = encoder else {
            let body = ResponseBody::held(Held { frames: VecDeque::new(), end: End::More(body) });
            return (Response::from_parts(parts, body), Verdict::NotStored);
        };
        let mut messages = grpc::is_grpc(&parts.headers).then(grpc::Messages::default);
        let mut trailers = HeaderMap::new();
        // The piece that is not in the encoding, and why the response is not stored.
        let (piece, unstored) = loop {
            match body.as_mut().frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let streams = messages.as_mut().is_some_and(|m| m.is_stream_after(&data));
                        if streams || !encoder.push(&data) {
                            break (Some(data), Some((End::More(body), Verdict::NotStored)));
                        }
                    }
                    Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
                },
                // The client sees the same failure as without the layer.
                Some(Err(error)) => {
                    let verdict = Verdict::Unknown("the response body failed");
                    break (None, Some((End::Failed(error), verdict)));
                }
                None => {
                    let wrong = announced.filter(|length| *length != encoder.body_len());
                    let reason = "the response body has another length than announced";
                    break (
                        None,
                        wrong.map(|length| (End::WrongLength(length), Verdict::Unknown(reason))),
                    );
                }
            }
        };
        // The client gets the encoded bytes: the pieces of the handler may be many and small.
        let (encoded, read) = encoder.finish_with_body(&trailers);
        let (end, verdict) = unstored.unwrap_or_else(|| {
            let end = if trailers.is_empty() { End::Complete } else { End::Trailers(trailers) };
            (end, encoded.map_or(Verdict::NotStored, Verdict::Store))
        });
        let frames = [read].into_iter().chain(piece).filter(|data| !data.is_empty()).collect();
        let body = ResponseBody::held(Held { frames, end });
        (Response::from_parts(parts, body), verdict)
    }
}
