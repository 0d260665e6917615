//! The bodies of responses.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::names;
use super::pool::Lease;
use crate::report::meter::{Counted, Stage};

/// A response body: frames that were read already, then the rest as the upstream sends it.
#[derive(Default)]
pub(crate) struct Body {
    ready: VecDeque<Frame<Bytes>>,
    /// The memory of the read frames, counted until they are handed on.
    counted: Option<Counted>,
    rest: Option<Streaming>,
}

/// A body whose connection returns to its pool when the body was read to its end.
pub(crate) struct Streaming {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl Streaming {
    pub(crate) fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut streaming = Self { incoming, lease: Some(lease) };
        streaming.settle();
        streaming
    }

    /// Returns the connection if the body is at its end.
    fn settle(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut polled = Pin::new(&mut self.incoming).poll_frame(context);
        match &mut polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    names::clean_response_trailers(trailers);
                }
                self.settle();
            }
            Poll::Ready(None) => {
                if let Some(lease) = self.lease.take() {
                    lease.give_back();
                }
            }
            Poll::Ready(Some(Err(_))) => {
                if let Some(lease) = self.lease.take() {
                    lease.pool.meter.failed(Stage::Body, true);
                }
            }
            Poll::Pending => {}
        }
        polled
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Body {
    pub(crate) fn full(data: impl Into<Bytes>) -> Self {
        let frame = Some(data.into()).filter(|data| !data.is_empty()).map(Frame::data);
        Self { ready: frame.into_iter().collect(), ..Self::default() }
    }

    /// The data and the trailers that were read, and the rest of the body; `None` means that the body has ended.
    pub(crate) fn read(
        data: Vec<u8>,
        trailers: Option<Frame<Bytes>>,
        counted: Counted,
        rest: Option<Streaming>,
    ) -> Self {
        let ready = Self::full(data).ready.into_iter().chain(trailers).collect();
        Self { ready, counted: Some(counted), rest }
    }

    pub(crate) fn streaming(rest: Streaming) -> Self {
        Self { rest: Some(rest), ..Self::default() }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(frame) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        self.counted = None;
        match &mut self.rest {
            Some(rest) => rest.poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.rest.as_ref().is_none_or(|rest| rest.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let ready = self.ready.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64);
        let ready = ready.sum::<u64>();
        match &self.rest {
            // With an exact size a server sends Content-Length and then no trailers.
            None if self.ready.iter().any(Frame::is_trailers) => SizeHint::new(),
            None => SizeHint::with_exact(ready),
            Some(rest) => {
                let rest = rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(ready));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(ready)) {
                    hint.set_upper(upper);
                }
                hint
            }
        }
    }
}
