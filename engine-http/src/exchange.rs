//! A request with a key, from its body to its answer, in the task of the connection.

use std::error::Error as StdError;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http::request::Parts;
use http::{Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError};
use oncekey::{Begin, Claim, Error, ErrorKind, Fingerprint, Key, Recorded};
use tower_service::Service;

use crate::body::ResponseBody;
use crate::execution::{self, Runnable};
use crate::fingerprint;
use crate::layer::Config;
use crate::log;
use crate::policy::Recovery;
use crate::recorded::StoredResponse;
use crate::rejection::Rejection;

/// How often a request tries to take an orphan over while others resolve it first. Each time
/// somebody else made progress, so that the next begin is answered otherwise.
const TAKE_OVER_TRIES: usize = 3;

/// How much of a refused body is read and thrown away. A server that closes a connection while the
/// client still sends resets it, and the client may never see why it was refused.
const DISCARD_AT_MOST: u64 = 8 << 20;

/// What `begin` says is to be done.
#[derive(Debug)]
enum Ruling {
    Execute(Claim),
    Replay(Recorded),
    Refuse(Rejection),
}

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
    let body = match read(&parts, body, config.policy.max_request_body).await {
        Ok(body) => body,
        Err(rejection) => {
            config.counters.body_refused.add();
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
    let (ended, watch) = execution::start(&config, Runnable { service, request }, claim);
    match ended.await {
        Ok(Ok(response)) => response,
        // To the task of the connection a panic looks as it does without the layer.
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        // The runtime dropped the task before the handler was called: the key is free.
        Err(_) if !watch.is_started() => Ok(Rejection::Overloaded.into_response(&config.contract)),
        // The runtime dropped the task: nobody knows how far the handler got.
        Err(_) => Ok(Rejection::OutcomeUnknown.into_response(&config.contract)),
    }
}

/// Answers a request that is refused whatever its body says.
pub(crate) async fn refuse<B, R, E>(
    response: Response<ResponseBody<R>>,
    parts: Parts,
    body: B,
) -> Result<Response<ResponseBody<R>>, E>
where
    B: Body,
    R: Body<Data = Bytes>,
{
    discard(&parts, pin!(body)).await;
    Ok(response)
}

async fn read<B>(parts: &Parts, body: B, limit: usize) -> Result<Bytes, Rejection>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut body = pin!(body);
    let mut read = Vec::new();
    let mut over = body.size_hint().lower() > limit as u64;
    while !over {
        let frame = match body.as_mut().frame().await {
            None => return Ok(read.into()),
            Some(Err(error)) => return Err(unreadable(error.into().as_ref())),
            Some(Ok(frame)) => frame,
        };
        // Trailers are not given to the handler: a body made from bytes can not have them.
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        over = data.remaining() > limit - read.len();
        while !over && data.has_remaining() {
            let chunk = data.chunk();
            read.extend_from_slice(chunk);
            data.advance(chunk.len());
        }
    }
    discard(parts, body).await;
    Err(Rejection::BodyTooLarge(Some(limit)))
}

/// A body that failed, or one that a layer outside of this one limits.
fn unreadable(error: &(dyn StdError + 'static)) -> Rejection {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    if causes.any(|cause| cause.is::<LengthLimitError>()) {
        Rejection::BodyTooLarge(None)
    } else {
        Rejection::BodyUnreadable
    }
}

async fn discard<B: Body>(parts: &Parts, mut body: Pin<&mut B>) {
    // Reading on would ask a client that waits for leave to send for its body.
    if parts.headers.contains_key(header::EXPECT) {
        return;
    }
    let mut left = DISCARD_AT_MOST;
    while let Some(Ok(frame)) = body.as_mut().frame().await {
        let len = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        match left.checked_sub(len) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl Config {
    async fn rule(&self, key: &Key, fingerprint: Fingerprint) -> Ruling {
        for _ in 0..TAKE_OVER_TRIES {
            let begun = match self.policy.wait {
                Some(wait) => self.engine.begin_waiting(key, fingerprint.clone(), wait),
                None => self.engine.begin(key, fingerprint.clone()),
            };
            let orphan = match begun.await {
                Ok(Begin::Claimed(claim)) => return Ruling::Execute(claim),
                Ok(Begin::Replay(recorded)) => return Ruling::Replay(recorded),
                Ok(Begin::Locked(in_flight)) => {
                    let retry_after = in_flight.retry_after();
                    return Ruling::Refuse(Rejection::Locked { retry_after });
                }
                Ok(Begin::Mismatch(mismatch)) => {
                    let parts = mismatch.parts().to_vec();
                    return Ruling::Refuse(Rejection::Mismatch { parts });
                }
                Ok(Begin::Orphaned(orphan)) => orphan,
                Err(error) => return Ruling::Refuse(self.begin_failed(&error)),
            };
            if self.policy.recovery == Recovery::Hold {
                return Ruling::Refuse(Rejection::OutcomeUnknown);
            }
            match orphan.take_over().await {
                Ok(claim) => return Ruling::Execute(claim),
                Err(failed) => match failed.kind() {
                    // Somebody else resolved it first: begin again.
                    ErrorKind::Fenced | ErrorKind::AlreadyCompleted => {}
                    _ => return Ruling::Refuse(self.begin_failed(failed.error())),
                },
            }
        }
        Ruling::Refuse(Rejection::OutcomeUnknown)
    }

    fn begin_failed(&self, error: &Error) -> Rejection {
        if error.kind() == ErrorKind::InvalidInput {
            self.counters.key_refused.add();
            return Rejection::InvalidInput(error.to_string());
        }
        self.counters.store_unavailable.add();
        log::begin_failed(error);
        Rejection::StoreUnavailable
    }

    fn replay<R: Body<Data = Bytes>>(&self, recorded: Recorded) -> Response<ResponseBody<R>> {
        let Some(bytes) = recorded.into_response() else {
            return Rejection::ResponseNotStored.into_response(&self.contract);
        };
        match StoredResponse::decode(Bytes::from_owner(bytes)) {
            Ok(stored) => {
                let mut response = stored.into_response();
                if let Some((name, value)) = &self.contract.replay_marker {
                    response.headers_mut().insert(name.clone(), value.clone());
                }
                response
            }
            // The engine vouches for its bytes: somebody else wrote them. The operation was
            // completed all the same, and must not run again.
            Err(error) => {
                self.counters.undecodable.add();
                log::undecodable(error);
                Rejection::ResponseNotStored.into_response(&self.contract)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdempotencyLayer, Policy};
    use http_body::Frame;
    use http_body_util::{Full, Limited};
    use oncekey_testing::SimDisk;
    use std::task::{Context, Poll, Waker};

    /// A body whose connection breaks.
    struct Reset;

    impl Body for Reset {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
        }
    }

    #[tokio::test]
    async fn a_body_that_fails_says_whether_it_was_too_large() {
        let (parts, ()) = Request::new(()).into_parts();
        let body = || Full::<Bytes>::from("12345");
        let read_to = async |body, limit| read(&parts, body, limit).await;
        assert_eq!(read_to(Limited::new(body(), 5), 5).await.unwrap(), "12345");
        for (limited, limit) in [(5, 4), (4, 5)] {
            let refused = read_to(Limited::new(body(), limited), limit).await.unwrap_err();
            assert!(matches!(refused, Rejection::BodyTooLarge(_)), "{refused:?}");
        }
        let refused = read(&parts, Reset, 5).await.unwrap_err();
        assert!(matches!(refused, Rejection::BodyUnreadable), "{refused:?}");
    }

    /// Both learn of the orphan before one of them takes it over.
    #[tokio::test]
    async fn of_two_that_take_over_at_once_one_executes_and_one_is_locked() {
        let options = oncekey::Options::new().segment_bytes(4 << 20);
        let engine = options.disk(Arc::new(SimDisk::new())).open("/store").unwrap();
        let retry = Policy::new().recovery(Recovery::Retry);
        let layer = IdempotencyLayer::with_spawner(engine, drop).policy(retry);
        let config = layer.config();
        for round in 0..100 {
            let key = Key::new("", format!("k-{round}")).unwrap();
            let fingerprint = Fingerprint::builder().finish();
            let begin = config.engine.begin(&key, fingerprint.clone()).await;
            let Ok(Begin::Claimed(claim)) = begin else { panic!("the key is new: {begin:?}") };
            // Begins wait for the end of the claim and are then answered together.
            drop(claim);
            let mut one = pin!(config.rule(&key, fingerprint.clone()));
            let mut two = pin!(config.rule(&key, fingerprint.clone()));
            let mut context = Context::from_waker(Waker::noop());
            if one.as_mut().poll(&mut context).is_ready()
                || two.as_mut().poll(&mut context).is_ready()
            {
                // The claim ended before both could wait for it.
                continue;
            }
            // Polled in turn, not one to its end.
            let both = async { tokio::join!(one, two) };
            match both.await {
                (Ruling::Execute(_claim), Ruling::Refuse(Rejection::Locked { .. }))
                | (Ruling::Refuse(Rejection::Locked { .. }), Ruling::Execute(_claim)) => {}
                (one, two) => panic!("round {round}: {one:?} and {two:?}"),
            }
        }
    }
}
