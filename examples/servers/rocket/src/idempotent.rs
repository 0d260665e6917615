//! The data guard: Rocket's requests and responses on one side, the contract on the other.

use std::future::Future;
use std::io::Cursor;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use oncekey_http::{Admission, Execution, Idempotency, Keyed, Ruling};
use rocket::data::{ByteUnit, Data, DataStream, FromData, Outcome};
use rocket::http::Status;
use rocket::request::Request;
use rocket::response::{self, Responder, Response};
use tokio::io::{AsyncRead, ReadBuf};

/// The most that is read of a body without a key, which the contract does not bound.
const MAX_UNKEYED_BODY: ByteUnit = ByteUnit::Mebibyte(2);

/// A request that runs once for each idempotency key. Manage an [`Idempotency`] for it.
pub(crate) enum Idempotent {
    /// The handler runs as if there were no contract.
    PassThrough(Bytes),
    /// The handler runs, and its response is stored.
    Execute { keyed: Keyed, execution: Execution, body: Bytes },
    /// It is decided already: a replay or a refusal.
    Decided(Answer),
}

/// What the client is sent.
pub(crate) struct Answer(http::Response<Bytes>);

#[rocket::async_trait]
impl<'r> FromData<'r> for Idempotent {
    type Error = &'static str;

    async fn from_data(request: &'r Request<'_>, data: Data<'r>) -> Outcome<'r, Self> {
        let Some(idempotency) = request.rocket().state::<Idempotency>() else {
            return Outcome::Error((Status::InternalServerError, "no Idempotency is managed"));
        };
        let Some(parts) = parts(request) else {
            return Outcome::Error((Status::BadRequest, "a malformed head"));
        };
        let keyed = match idempotency.admit(&parts) {
            Admission::Keyed(keyed) => keyed,
            Admission::PassThrough => {
                return match data.open(MAX_UNKEYED_BODY).into_bytes().await {
                    Ok(body) if body.is_complete() => {
                        Outcome::Success(Self::PassThrough(Bytes::from(body.into_inner())))
                    }
                    Ok(_) => Outcome::Error((Status::PayloadTooLarge, "the body is too large")),
                    Err(_) => Outcome::Error((Status::BadRequest, "the body broke off")),
                };
            }
            Admission::Refused(refusal) => {
                refusal.discard(&parts, Incoming::new(data, &parts)).await;
                return Outcome::Success(Self::Decided(Answer(refusal.into_response())));
            }
        };
        let body = match keyed.read(&parts, Incoming::new(data, &parts)).await {
            Ok(body) => body,
            Err(refusal) => {
                return Outcome::Success(Self::Decided(Answer(refusal.into_response())));
            }
        };
        let ruled = keyed.begin(&parts, &body).await;
        Outcome::Success(match ruled {
            Ruling::Execute(execution) => {
                Self::Execute { keyed, execution, body: body.into_bytes() }
            }
            Ruling::Refuse(refusal) => Self::Decided(Answer(refusal.into_response())),
            Ruling::Replay(stored) => {
                Self::Decided(Answer(whole(stored.into_response::<Full<Bytes>>()).await))
            }
        })
    }
}

impl Idempotent {
    /// Runs `handler` with the body, unless the key was used before. The handler goes on when its client is gone.
    pub(crate) async fn run<F>(self, handler: impl FnOnce(Bytes) -> F) -> Answer
    where
        F: Future<Output = http::Response<Full<Bytes>>> + Send + 'static,
    {
        let (keyed, execution, body) = match self {
            Self::Decided(answer) => return answer,
            Self::PassThrough(body) => return Answer(whole(handler(body).await).await),
            Self::Execute { keyed, execution, body } => (keyed, execution, body),
        };
        execution.start();
        let handler = tokio::spawn(handler(body));
        let execution = tokio::spawn(async move {
            match handler.await {
                Ok(response) => Ok(whole(execution.finish(response).await).await),
                Err(ended) => {
                    execution.fail("the handler panicked").await;
                    Err(ended)
                }
            }
        });
        match execution.await {
            Ok(Ok(response)) => Answer(response),
            // To Rocket it looks as a panic of the handler does.
            Ok(Err(ended)) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            _ => Answer(keyed.outcome_unknown().into_response()),
        }
    }
}

/// The whole response; none of those here has a body that can fail.
async fn whole<B: http_body::Body<Data = Bytes>>(
    response: http::Response<B>,
) -> http::Response<Bytes>
where
    B::Error: std::fmt::Debug,
{
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("it is in memory").to_bytes();
    http::Response::from_parts(parts, body)
}

/// The head as the crate `http` has it; `None` when it is malformed there.
fn parts(request: &Request<'_>) -> Option<Parts> {
    let mut head =
        http::Request::builder().method(request.method().as_str()).uri(request.uri().to_string());
    for header in request.headers().iter() {
        head = head.header(header.name().as_str(), header.value());
    }
    Some(head.body(()).ok()?.into_parts().0)
}

/// A body as it comes.
struct Incoming<'r> {
    stream: Pin<Box<DataStream<'r>>>,
    declared: Option<u64>,
}

impl<'r> Incoming<'r> {
    fn new(data: Data<'r>, parts: &Parts) -> Self {
        let declared = parts.headers.get(http::header::CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse().ok());
        // The policy bounds it, and refuses what is over its bound.
        Self { stream: Box::pin(data.open(ByteUnit::max_value())), declared }
    }
}

impl http_body::Body for Incoming<'_> {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut buffer = [0; 8192];
        let mut buffer = ReadBuf::new(&mut buffer);
        ready!(self.stream.as_mut().poll_read(context, &mut buffer))?;
        let data = Bytes::copy_from_slice(buffer.filled());
        Poll::Ready((!data.is_empty()).then_some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        self.declared.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<'r> Responder<'r, 'static> for Answer {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        let (parts, body) = self.0.into_parts();
        let mut response = Response::build();
        response.status(Status::new(parts.status.as_u16()));
        for (name, value) in &parts.headers {
            // Rocket's values are text.
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            response.raw_header_adjoin(name.as_str().to_owned(), value);
        }
        response.sized_body(body.len(), Cursor::new(body)).ok()
    }
}
