//! The record of a request: counted when its answer begins, logged when its answer ends.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::route::Route;
use crate::base::latency::Latency;
use crate::report::access_log::{AccessLog, Line};
use crate::report::metrics;
use crate::report::spans::{Open, Spans};
use crate::report::trace::TraceParent;
use crate::upstream::Course;

/// One request, from its head to the end of its answer. Dropping it writes its log line.
pub(crate) struct Record {
    log: Option<AccessLog>,
    counted: Option<Arc<Latency>>,
    begun: Instant,
    method: Method,
    peer: Option<IpAddr>,
    /// The trace id of its caller, or its own when it has a span.
    trace: Option<u128>,
    course: Arc<Course>,
    received: Arc<AtomicU64>,
    sent: u64,
    route: Option<Arc<Route>>,
    keyed: bool,
    /// Status, outcome and latency of the answer; `None` before the answer.
    answered: Option<(StatusCode, &'static str, Duration)>,
}

impl Record {
    pub(super) fn new(
        log: Option<AccessLog>,
        counted: Option<Arc<Latency>>,
        spans: Option<&Arc<Spans>>,
        parts: &Parts,
        peer: Option<IpAddr>,
    ) -> Self {
        let caller = TraceParent::of(&parts.headers);
        let span = spans.map(|spans| spans.request(caller));
        Self {
            log,
            counted,
            begun: Instant::now(),
            method: parts.method.clone(),
            peer,
            trace: span.as_ref().map(Open::trace).or(caller.map(|caller| caller.trace)),
            course: Arc::new(Course::new(span)),
            received: Arc::default(),
            sent: 0,
            route: None,
            keyed: false,
            answered: None,
        }
    }

    /// Notes the progress of the request.
    pub(super) fn course(&self) -> &Arc<Course> {
        &self.course
    }

    /// The counter for the bytes of its body.
    pub(super) fn received(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    pub(super) fn is_on(&mut self, route: &Arc<Route>, keyed: bool) {
        (self.route, self.keyed) = (Some(route.clone()), keyed);
    }

    /// Notes that the answer has a head.
    pub(super) fn answered(&mut self, status: StatusCode, outcome: &'static str) {
        let took = self.begun.elapsed();
        self.answered = Some((status, outcome, took));
        if let Some(latency) = &self.counted {
            latency.record(took);
            metrics::answered(self.pattern(), self.keyed, outcome, Some(status), took);
        }
    }

    fn pattern(&self) -> Option<&str> {
        self.route.as_ref().map(|route| &*route.pattern)
    }
}

/// The outcome of a request whose client went away before it had an answer.
const GONE: &str = "gone";

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        if self.answered.is_none() && self.counted.is_some() {
            metrics::answered(self.pattern(), self.keyed, GONE, None, took);
        }
        if self.log.is_none() && self.course.span.is_none() {
            return;
        }
        let (status, outcome, took) = match self.answered {
            Some((status, outcome, took)) => (Some(status), outcome, took),
            None => (None, GONE, took),
        };
        let line = Line {
            method: &self.method,
            route: self.pattern(),
            status,
            outcome,
            attempt: self.course.attempt(),
            took,
            upstream: self.course.upstream(),
            bytes_in: self.received.load(Ordering::Relaxed),
            bytes_out: self.sent,
            peer: self.peer,
            trace: self.trace,
        };
        if let Some(log) = &self.log {
            log.write(&line);
        }
        if let Some(span) = &self.course.span {
            span.answered(&line);
        }
    }
}

/// The body of an answer. Its request is recorded before the last bytes are sent, or when the body is dropped
/// early.
pub(crate) struct Told<B> {
    body: B,
    record: Option<Record>,
}

impl<B: HttpBody<Data = Bytes>> Told<B> {
    pub(super) fn new(body: B, record: Record) -> Self {
        let mut told = Self { body, record: Some(record) };
        told.settle();
        told
    }

    fn settle(&mut self) {
        if self.body.is_end_stream() {
            self.record = None;
        }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Told<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let more = frame.data_ref().map_or(0, Bytes::len) as u64;
                if let Some(record) = &mut self.record {
                    record.sent += more;
                }
                self.settle();
            }
            Poll::Ready(_) => self.record = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
