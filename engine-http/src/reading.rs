//! Reads the body of a request into memory, within limits of length, memory and idle time.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http::header;
use http_body::{Body, Frame};
use http_body_util::LengthLimitError;

use crate::budget::{Allowance, Budget, Buffer};
use crate::rejection::Rejection;

/// How many bytes of a refused body are read and thrown away. A server that closes a connection while the
/// client still sends resets the connection, and the client may never see the refusal.
const DISCARD_AT_MOST: u64 = 8 << 20;

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes a future that is ready after the given time.
pub(crate) type Timer = Arc<dyn Fn(Duration) -> Sleep + Send + Sync>;

/// The rules for the reading of bodies.
#[derive(Clone)]
pub(crate) struct Intake {
    pub(crate) budget: Budget,
    /// How long a body may send nothing.
    pub(crate) idle: Duration,
    /// `None`: a body may be idle for ever.
    pub(crate) timer: Option<Timer>,
}

impl Intake {
    /// The whole body, with its room in the budget.
    pub(crate) async fn read<B>(
        &self,
        headers: &HeaderMap,
        body: B,
        limit: usize,
    ) -> Result<(Bytes, Allowance), Rejection>
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let mut body = pin!(body);
        match self.fill(body.as_mut(), limit).await {
            Ok(buffer) => Ok(buffer.finish()),
            Err(rejection) => {
                // The bytes that were read are released by now: a refused body takes no room in the budget.
                if matches!(rejection, Rejection::BodyTooLarge(_) | Rejection::BodiesOverBudget) {
                    self.discard(headers, body).await;
                }
                Err(rejection)
            }
        }
    }

    async fn fill<B>(&self, body: Pin<&mut B>, limit: usize) -> Result<Buffer, Rejection>
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let declared = body.size_hint().lower();
        if declared > limit as u64 {
            return Err(Rejection::BodyTooLarge(Some(limit)));
        }
        if !self.budget.has(declared) {
            return Err(Rejection::BodiesOverBudget);
        }
        let mut buffer = Buffer::new(&self.budget);
        let mut frames = Frames::new(self, body);
        while let Some(frame) = frames.next().await? {
            let frame = frame.map_err(|error| unreadable(error.into().as_ref()))?;
            // The handler gets no trailers: a body made from bytes cannot have them.
            let Ok(mut data) = frame.into_data() else {
                continue;
            };
            if data.remaining() > limit - buffer.len() {
                return Err(Rejection::BodyTooLarge(Some(limit)));
            }
            while data.has_remaining() {
                let chunk = data.chunk();
                if !buffer.push(chunk, limit) {
                    return Err(Rejection::BodiesOverBudget);
                }
                let read = chunk.len();
                data.advance(read);
            }
        }
        Ok(buffer)
    }

    /// Reads and drops the body, for a client that reads its answer only after it has sent everything.
    pub(crate) async fn discard<B: Body>(&self, headers: &HeaderMap, body: Pin<&mut B>) {
        // A client that waits for `100 Continue` would send its body only because of this read.
        if headers.contains_key(header::EXPECT) {
            return;
        }
        let mut left = DISCARD_AT_MOST;
        let mut frames = Frames::new(self, body);
        while let Ok(Some(Ok(frame))) = frames.next().await {
            match left.checked_sub(data_len(&frame)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }
}

/// The frames of a body, with a limit on the time between two pieces of data.
struct Frames<'a, B> {
    intake: &'a Intake,
    body: Pin<&'a mut B>,
    /// Runs since the last data. Starts when the body first has nothing ready.
    idle: Option<Sleep>,
}

impl<'a, B: Body> Frames<'a, B> {
    fn new(intake: &'a Intake, body: Pin<&'a mut B>) -> Self {
        Self { intake, body, idle: None }
    }

    async fn next(&mut self) -> Result<Option<Result<Frame<B::Data>, B::Error>>, Rejection> {
        poll_fn(|context| {
            if let Poll::Ready(frame) = self.body.as_mut().poll_frame(context) {
                // A frame without data is no progress.
                if frame.as_ref().is_some_and(|frame| frame.as_ref().is_ok_and(|f| data_len(f) > 0))
                {
                    self.idle = None;
                }
                return Poll::Ready(Ok(frame));
            }
            let Some(timer) = &self.intake.timer else {
                return Poll::Pending;
            };
            let idle = self.idle.get_or_insert_with(|| timer(self.intake.idle));
            idle.as_mut().poll(context).map(|()| Err(Rejection::BodyTimeout))
        })
        .await
    }
}

fn data_len<D: Buf>(frame: &Frame<D>) -> u64 {
    frame.data_ref().map_or(0, |data| data.remaining() as u64)
}

/// Tells a body that failed from a body that exceeds the limit of a layer outside.
fn unreadable(error: &(dyn StdError + 'static)) -> Rejection {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    if causes.any(|cause| cause.is::<LengthLimitError>()) {
        Rejection::BodyTooLarge(None)
    } else {
        Rejection::BodyUnreadable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Full, Limited};
    use std::task::Context;

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
        let intake = Intake { budget: Budget::new(5), idle: Duration::MAX, timer: None };
        let headers = HeaderMap::new();
        let body = || Full::<Bytes>::from("12345");
        let read_to =
            async |body, limit| intake.read(&headers, body, limit).await.map(|(bytes, _)| bytes);
        assert_eq!(read_to(Limited::new(body(), 5), 5).await.unwrap(), "12345");
        for (limited, limit) in [(5, 4), (4, 5)] {
            let refused = read_to(Limited::new(body(), limited), limit).await.unwrap_err();
            assert!(matches!(refused, Rejection::BodyTooLarge(_)), "{refused:?}");
        }
        let Err(refused) = intake.read(&headers, Reset, 5).await else { panic!("it is broken") };
        assert!(matches!(refused, Rejection::BodyUnreadable), "{refused:?}");
        assert_eq!(intake.budget.held(), 0);
    }
}
