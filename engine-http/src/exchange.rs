//! A request with a key, from its body to its answer, in the task of the connection.

use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use oncekey::Key;
use tower_service::Service;

use crate::body::ResponseBody;
use crate::config::{Config, Ruling};
use crate::execution::{self, Runnable};
use crate::fingerprint;
use crate::rejection::Rejection;

/// Until the handler is started, dropping this future undoes everything: a claim that was not
/// delivered is aborted.
pub(crate) async fn exchange<S, B, R>(
    config: Arc<Config>,
    service: S,
    key: Key,
    parts: Parts,
    body: B,
) -> Result<Response<ResponseBody<R>>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body + From<Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
{
    let limit = config.policy.max_request_body;
    let (body, room) = match config.intake.read(&parts.headers, body, limit).await {
        Ok(read) => read,
        Err(rejection) => {
            config.count_body_refused(&rejection);
            return Ok(rejection.into_response(&config.contract));
        }
    };
    let fingerprint = fingerprint::of(&parts, &body, &config.policy.fingerprinted);
    let claim = match config.rule(&key, fingerprint).await {
        Ruling::Execute(claim) => claim,
        Ruling::Replay(recorded) => return Ok(config.replay(recorded)),
        Ruling::Refuse(rejection) => return Ok(rejection.into_response(&config.contract)),
    };
    let request = Request::from_parts(parts, B::from(body));
    let (ended, watch) = execution::start(&config, Runnable { service, request, room }, claim);
    match ended.await {
        Ok(Ok(response)) => response,
        // To the task of the connection a panic looks as it does without the layer.
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        // The runtime dropped the task before the handler was called: the key is free.
        Err(_) if !watch.is_started() => {
            Ok(Rejection::HandlerNotStarted.into_response(&config.contract))
        }
        // The runtime dropped the task: nobody knows how far the handler got.
        Err(_) => Ok(Rejection::OutcomeUnknown.into_response(&config.contract)),
    }
}

/// Answers a request that is refused whatever its body says.
pub(crate) async fn refuse<B, R, E>(
    config: Arc<Config>,
    response: Response<ResponseBody<R>>,
    parts: Parts,
    body: B,
) -> Result<Response<ResponseBody<R>>, E>
where
    B: Body,
    R: Body<Data = Bytes>,
{
    config.intake.discard(&parts.headers, pin!(body)).await;
    Ok(response)
}
