//! A request with a key, from its body to its answer, in the task of the connection.

use std::error::Error as StdError;
use std::future::Future;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::body::ResponseBody;
use crate::detached::{self, Runnable, Spawner};
use crate::idempotency::{Keyed, Refusal, Ruling};
use crate::markers::Answered;

/// Until the handler is started, dropping this future undoes everything: a claim that was not delivered is
/// aborted.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(crate) fn exchange<S, B, R>(
    keyed: Keyed,
    spawn: Spawner,
    service: S,
    parts: Parts,
    body: B,
) -> impl Future<Output = Result<Response<ResponseBody<R>>, S::Error>> + Send
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body + From<Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
{
    async move {
        let body = match keyed.read(&parts, body).await {
            Ok(body) => body,
            Err(refusal) => return Ok(answer(refusal)),
        };
        let execution = match keyed.begin(&parts, &body).await {
            Ruling::Execute(execution) => execution,
            Ruling::Replay(stored) => {
                let mut response = stored.into_response();
                response.extensions_mut().insert(Answered::Replayed);
                return Ok(response);
            }
            Ruling::Refuse(refusal) => return Ok(answer(refusal)),
        };
        let (body, room) = body.into_parts();
        let request = Request::from_parts(parts, B::from(body));
        let (ended, watch) =
            detached::start(&spawn, Runnable { service, request, room }, execution);
        match ended.await {
            Ok(Ok(response)) => response,
            // The task of the connection sees the panic as it would without the layer.
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // The runtime dropped the task before the handler was called: the key is free.
            Err(_) if !watch.is_started() => Ok(answer(keyed.not_started())),
            // The runtime dropped the task after the handler was called: the handler may have acted or not.
            Err(_) => Ok(answer(keyed.outcome_unknown())),
        }
    }
}

/// Answers a request that is refused from its head alone, after discarding its body.
pub(crate) async fn refuse<B, R, E>(
    refusal: Refusal,
    parts: Parts,
    body: B,
) -> Result<Response<ResponseBody<R>>, E>
where
    B: Body,
    R: Body<Data = Bytes>,
{
    refusal.discard(&parts, body).await;
    Ok(answer(refusal))
}

fn answer<R: Body<Data = Bytes>>(refusal: Refusal) -> Response<ResponseBody<R>> {
    refusal.into_response().map(ResponseBody::full)
}
