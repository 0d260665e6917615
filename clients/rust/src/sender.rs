//! Sends an operation with the client of the crate reqwest.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};

use crate::answer::Answer;
use crate::retry::{Next, Policy, Retry, Why};

/// The result of [`send`].
pub struct Sent {
    /// The final answer, or the reason why there is none.
    pub result: Result<Response<Bytes>, Why>,
    /// The last answer when it is not final; `None` when no complete answer came.
    pub last: Option<Response<Bytes>>,
    /// How often this call sent the operation.
    pub tries: u32,
}

/// Prints the status and the length of a body.
impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn brief(answer: &Response<Bytes>) -> String {
            format!("{}, {} bytes", answer.status(), answer.body().len())
        }
        f.debug_struct("Sent")
            .field("result", &self.result.as_ref().map(brief))
            .field("last", &self.last.as_ref().map(brief))
            .field("tries", &self.tries)
            .finish()
    }
}

/// A request that was not sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failed {
    /// The request has no `Idempotency-Key` (or `X-Idempotency-Key`). The key belongs to the operation; a
    /// sender that made one could not store it with the operation.
    NoKey,
    /// reqwest refuses the request, for example because its URI has no host.
    Request(reqwest::Error),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str("the request has no Idempotency-Key"),
            Self::Request(_) => f.write_str("the request cannot be sent"),
        }
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoKey => None,
            Self::Request(error) => Some(error),
        }
    }
}

/// Sends `request` until it is settled, with the same key and bytes in each try.
///
/// The body is [`Bytes`]: a stream cannot be sent twice. The key is in the header; store it with the
/// operation first. The answer is read completely, so a broken answer leads to another try. Dropping the
/// future leaves the operation unsettled: send it again later with the same key.
///
/// # Errors
/// When the request cannot be sent at all. An operation without a final answer is not an error of this
/// function: see [`Sent::result`].
pub async fn send(
    client: &reqwest::Client,
    policy: Policy,
    request: Request<Bytes>,
) -> Result<Sent, Failed> {
    send_with(client, policy, request, &mut TokioTime(Instant::now())).await
}

/// The clock of [`send_with`], so that tests do not wait.
pub trait Time {
    /// How long ago the first try began.
    fn elapsed(&self) -> Duration;
    /// Waits for `duration`.
    fn sleep(&mut self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// The real clock, counted from an instant.
#[derive(Debug)]
pub struct TokioTime(pub Instant);

impl Time for TokioTime {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&mut self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// [`send`] with another clock.
///
/// # Errors
/// The errors of [`send`].
pub async fn send_with(
    client: &reqwest::Client,
    policy: Policy,
    request: Request<Bytes>,
    time: &mut impl Time,
) -> Result<Sent, Failed> {
    let headers = request.headers();
    if !headers.contains_key("idempotency-key") && !headers.contains_key("x-idempotency-key") {
        return Err(Failed::NoKey);
    }
    let mut request = reqwest::Request::try_from(request).map_err(Failed::Request)?;
    *request.timeout_mut() = Some(policy.try_timeout);
    let mut retry = Retry::new(policy);
    let mut tries = 0;
    loop {
        tries += 1;
        let again = request.try_clone().expect("bytes can be sent twice");
        let response = attempt(client, again).await.ok();
        let answer = response.as_ref().map_or_else(Answer::none, |response| {
            Answer::parse(response.status().as_u16(), response.headers(), response.body())
        });
        match (retry.next(&answer, time.elapsed()), response) {
            (Next::Done, Some(response)) => {
                return Ok(Sent { result: Ok(response), last: None, tries });
            }
            (Next::Done, None) => unreachable!("no answer is final"),
            (Next::Again { after }, _) => time.sleep(after).await,
            (Next::Stop(why), last) => return Ok(Sent { result: Err(why), last, tries }),
        }
    }
}

/// Makes one try and reads its answer to the end.
async fn attempt(
    client: &reqwest::Client,
    request: reqwest::Request,
) -> Result<Response<Bytes>, reqwest::Error> {
    let answer: Response<reqwest::Body> = client.execute(request).await?.into();
    let (parts, body) = answer.into_parts();
    let body = reqwest::Response::from(Response::new(body)).bytes().await?;
    Ok(Response::from_parts(parts, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_printed_by_its_status_and_length() {
        let answer = Response::new(Bytes::from("PRIVATE"));
        let sent = Sent { result: Ok(answer.clone()), last: Some(answer), tries: 1 };
        let printed = format!("{sent:?}");
        assert!(printed.contains("200 OK, 7 bytes") && !printed.contains("PRIVATE"), "{printed}");
    }
}
