//! The bodies that the layer hands to the handler and to the client.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of a response: the handler's own body, or the part of it that the layer holds.
    pub struct ResponseBody<B: Body> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B: Body> {
        Passed { #[pin] body: B },
        Held { held: Held<B> },
    }
}

/// The bytes that were read from a body, and the state of the rest.
pub(crate) struct Held<B: Body> {
    pub(crate) frames: VecDeque<Bytes>,
    pub(crate) end: End<B>,
}

/// How a body continues after the held frames.
pub(crate) enum End<B: Body> {
    Complete,
    /// The body ended, but not at this length, which was announced. A server that is given the length again
    /// notices, and breaks the connection off.
    WrongLength(u64),
    Trailers(HeaderMap),
    /// More data than the layer stores.
    More(Pin<Box<B>>),
    Failed(B::Error),
}

impl<B: Body<Data = Bytes>> ResponseBody<B> {
    /// The handler's body as it is.
    pub(crate) fn passed(body: B) -> Self {
        Self { kind: Kind::Passed { body } }
    }

    pub(crate) fn held(held: Held<B>) -> Self {
        Self { kind: Kind::Held { held } }
    }

    pub(crate) fn full(data: Bytes) -> Self {
        let frames = VecDeque::from_iter(Some(data).filter(|data| !data.is_empty()));
        Self::held(Held { frames, end: End::Complete })
    }
}

impl<B: Body<Data = Bytes>> Held<B> {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(data) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let End::More(body) = &mut self.end {
            return body.as_mut().poll_frame(context);
        }
        Poll::Ready(match std::mem::replace(&mut self.end, End::Complete) {
            End::Complete | End::WrongLength(_) | End::More(_) => None,
            End::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            End::Failed(error) => Some(Err(error)),
        })
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.frames.iter().map(|data| data.len() as u64).sum::<u64>();
        match &self.end {
            End::Complete => SizeHint::with_exact(held),
            // With an exact size a server sends Content-Length and then cannot send trailers.
            End::Trailers(_) | End::Failed(_) => SizeHint::new(),
            End::WrongLength(announced) => SizeHint::with_exact(*announced),
            End::More(body) => {
                let rest = body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(held));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(held)) {
                    hint.set_upper(upper);
                }
                hint
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && matches!(self.end, End::Complete)
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProjection::Passed { body } => body.poll_frame(context),
            KindProjection::Held { held } => held.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { body } => body.is_end_stream(),
            Kind::Held { held } => held.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { body } => body.size_hint(),
            Kind::Held { held } => held.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Passed { .. } => "ResponseBody(passed)",
            Kind::Held { .. } => "ResponseBody(held)",
        })
    }
}

pin_project! {
    /// A request body for services whose own type cannot be made from bytes, such as
    /// `hyper::body::Incoming`.
    ///
    /// The layer reads the body of a request with a key and gives the handler a new body of the same type,
    /// made from the bytes: hence its bound `From<Bytes>`, which `axum::body::Body` satisfies. On a plain
    /// hyper server, map the request into this type before it reaches the layer:
    ///
    /// ```
    /// # use http_body_util::Empty;
    /// # let request = http::Request::new(Empty::<bytes::Bytes>::new());
    /// let request = request.map(oncekey_http::RequestBody::new);
    /// ```
    pub struct RequestBody<B> {
        #[pin]
        kind: RequestKind<B>,
    }
}

pin_project! {
    #[project = RequestKindProjection]
    enum RequestKind<B> {
        Passed { #[pin] body: B },
        Held { data: Option<Bytes> },
    }
}

impl<B> RequestBody<B> {
    /// A body that is not read yet.
    pub fn new(body: B) -> Self {
        Self { kind: RequestKind::Passed { body } }
    }
}

impl<B> From<Bytes> for RequestBody<B> {
    fn from(data: Bytes) -> Self {
        Self { kind: RequestKind::Held { data: Some(data).filter(|data| !data.is_empty()) } }
    }
}

impl<B: Body<Data = Bytes>> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            RequestKindProjection::Passed { body } => body.poll_frame(context),
            RequestKindProjection::Held { data } => {
                Poll::Ready(data.take().map(|data| Ok(Frame::data(data))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            RequestKind::Passed { body } => body.is_end_stream(),
            RequestKind::Held { data } => data.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            RequestKind::Passed { body } => body.size_hint(),
            RequestKind::Held { data } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
        }
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            RequestKind::Passed { .. } => f.write_str("RequestBody(passed)"),
            RequestKind::Held { data } => {
                write!(f, "RequestBody({} bytes)", data.as_ref().map_or(0, Bytes::len))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};

    type Inner = Full<Bytes>;

    async fn collect(body: impl Body<Data = Bytes, Error = impl fmt::Debug>) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn held_frames_come_before_the_rest() {
        let rest = End::More(Box::pin(Inner::from("rest")));
        let frames = VecDeque::from([Bytes::from("one "), Bytes::from("two ")]);
        let body = ResponseBody::held(Held { frames, end: rest });
        assert_eq!(body.size_hint().exact(), Some(12));
        assert!(!body.is_end_stream());
        assert_eq!(collect(body).await, "one two rest");
    }

    #[tokio::test]
    async fn a_full_body_has_an_exact_size_even_when_empty() {
        let body = ResponseBody::<Inner>::full(Bytes::from("four"));
        assert_eq!(body.size_hint().exact(), Some(4));
        assert_eq!(collect(body).await, "four");
        let empty = ResponseBody::<Inner>::full(Bytes::new());
        assert_eq!(empty.size_hint().exact(), Some(0));
        assert!(empty.is_end_stream());
    }

    #[tokio::test]
    async fn trailers_come_last_and_leave_the_size_open() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "t".parse().unwrap())]);
        let frames = VecDeque::from([Bytes::from("data")]);
        let held = Held::<Inner> { frames, end: End::Trailers(trailers.clone()) };
        let body = ResponseBody::held(held);
        assert_eq!(body.size_hint().exact(), None);
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "data");
    }

    #[tokio::test]
    async fn a_request_body_is_what_was_passed_or_read() {
        let passed = RequestBody::new(Inner::from("passed"));
        assert_eq!(passed.size_hint().exact(), Some(6));
        assert_eq!(format!("{passed:?}"), "RequestBody(passed)");
        assert_eq!(collect(passed).await, "passed");
        let read = RequestBody::<Inner>::from(Bytes::from("read"));
        assert_eq!((read.size_hint().exact(), read.is_end_stream()), (Some(4), false));
        assert_eq!(format!("{read:?}"), "RequestBody(4 bytes)");
        assert_eq!(collect(read).await, "read");
        assert!(RequestBody::<Inner>::from(Bytes::new()).is_end_stream());
    }
}
