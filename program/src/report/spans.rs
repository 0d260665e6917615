//! The spans of requests, for tracing systems. A proxy without a collector makes no spans, and passes
//! `traceparent` on unchanged.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::access_log::Line;
use super::trace::{TRACEPARENT, TraceParent};

/// The header with vendor data of the caller's trace. It has no meaning in another trace.
const TRACESTATE: &str = "tracestate";

/// Takes spans that have ended.
pub(crate) trait Sink: Send + Sync {
    /// Never waits: a span that has no room is lost.
    fn take(&self, span: Span);

    /// Sends the spans that were taken, within a bounded time. Blocks the calling thread.
    fn close(&self);
}

/// A span that has ended.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "only the feature otel has a sink"))]
pub(crate) struct Span {
    pub(crate) context: TraceParent,
    /// The span that this one is a part of.
    pub(crate) parent: Option<u64>,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) began: SystemTime,
    pub(crate) ended: SystemTime,
    /// Named by OpenTelemetry's conventions for HTTP; other names begin with `oncekey`.
    pub(crate) attributes: Vec<(&'static str, Value)>,
    pub(crate) failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request of a client.
    Server,
    /// A request to an upstream.
    Client,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "only the feature otel has a sink"))]
pub(crate) enum Value {
    Text(String),
    Number(u64),
}

/// Makes the spans of requests.
pub(crate) struct Spans {
    sink: Arc<dyn Sink>,
    /// One in this many requests without a trace is recorded; 0: none is.
    one_in: u32,
    /// Hashes the numbers of `next` into ids. The seed is random, so that two processes make different ids.
    ids: RandomState,
    next: AtomicU64,
}

impl Spans {
    pub(crate) fn new(sink: Arc<dyn Sink>, one_in: u32) -> Arc<Self> {
        Arc::new(Self { sink, one_in, ids: RandomState::new(), next: AtomicU64::new(0) })
    }

    fn id(&self) -> u64 {
        // OpenTelemetry treats zero as an invalid id.
        self.ids.hash_one(self.next.fetch_add(1, Ordering::Relaxed)).max(1)
    }

    /// Begins the span of a request. With a caller, it belongs to the caller's trace, and is recorded if the
    /// caller's span is. Without a caller it begins a new trace.
    pub(crate) fn request(self: &Arc<Self>, caller: Option<TraceParent>) -> Open {
        let span = self.id();
        let own = || {
            let trace = u128::from(self.id()) << 64 | u128::from(self.id());
            let sampled = u64::from(self.one_in);
            TraceParent { trace, span, sampled: sampled > 0 && self.id().is_multiple_of(sampled) }
        };
        let context = caller.map_or_else(own, |caller| TraceParent { span, ..caller });
        let parent = caller.map(|caller| caller.span);
        Open { spans: self.clone(), context, parent, kind: Kind::Server, began: SystemTime::now() }
    }
}

/// A span that has not ended.
pub(crate) struct Open {
    spans: Arc<Spans>,
    context: TraceParent,
    parent: Option<u64>,
    kind: Kind,
    began: SystemTime,
}

impl Open {
    pub(crate) fn trace(&self) -> u128 {
        self.context.trace
    }

    /// Begins the span of a request to an upstream, and puts it into the `headers` of that request.
    pub(crate) fn ask(&self, method: &Method, headers: &mut HeaderMap) -> Asked {
        let context = TraceParent { span: self.spans.id(), ..self.context };
        if let Ok(value) = HeaderValue::try_from(context.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
        if self.parent.is_none() {
            headers.remove(TRACESTATE);
        }
        let (parent, kind, began) = (Some(self.context.span), Kind::Client, SystemTime::now());
        let open = Self { spans: self.spans.clone(), context, parent, kind, began };
        Asked { open, method: method.clone(), upstream: None, answered: Err("cancelled") }
    }

    /// Ends the span of a request with the fields of its line in the access log.
    pub(crate) fn answered(&self, line: &Line<'_>) {
        let method = known(line.method);
        let name = line.route.map_or(method.to_owned(), |route| format!("{method} {route}"));
        let status = line.status.map(|status| status.as_u16());
        let error = match status {
            None => Some(line.outcome.to_owned()),
            Some(status) => (status >= 500).then(|| status.to_string()),
        };
        let failed = error.is_some();
        let text = |text: Option<String>| text.map(Value::Text);
        let number = |number: Option<u64>| number.map(Value::Number);
        let attributes = [
            ("http.request.method", text(Some(method.to_owned()))),
            ("http.route", text(line.route.map(str::to_owned))),
            ("http.response.status_code", number(status.map(u64::from))),
            ("http.request.body.size", number(Some(line.bytes_in))),
            ("http.response.body.size", number(Some(line.bytes_out))),
            ("client.address", text(line.peer.map(|peer| peer.to_string()))),
            ("error.type", text(error)),
            ("oncekey.outcome", text(Some(line.outcome.to_owned()))),
            ("oncekey.attempt", number(line.attempt.map(u64::from))),
        ];
        self.end(name, attributes, failed);
    }

    fn end<const N: usize>(
        &self,
        name: String,
        attributes: [(&'static str, Option<Value>); N],
        failed: bool,
    ) {
        let Self { spans, context, parent, kind, began } = self;
        if !context.sampled {
            return;
        }
        let attributes = attributes.into_iter().filter_map(|(name, value)| Some((name, value?)));
        spans.sink.take(Span {
            context: *context,
            parent: *parent,
            kind: *kind,
            name,
            began: *began,
            ended: SystemTime::now(),
            attributes: attributes.collect(),
            failed,
        });
    }
}

/// The span of a request to an upstream. Its drop ends the span.
pub(crate) struct Asked {
    open: Open,
    method: Method,
    upstream: Option<String>,
    /// The status of the answer, or the reason why there is none.
    answered: Result<StatusCode, &'static str>,
}

impl Asked {
    /// An upstream, by its configured address, sent the head of a response.
    pub(crate) fn answered(&mut self, upstream: &str, status: StatusCode) {
        (self.upstream, self.answered) = (Some(upstream.to_owned()), Ok(status));
    }

    /// No upstream sent the head of a response, for this reason.
    pub(crate) fn failed(&mut self, why: &'static str) {
        self.answered = Err(why);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let status = self.answered.ok().map(|status| status.as_u16());
        let error = match self.answered {
            Ok(status) => {
                let is_error = status.is_client_error() || status.is_server_error();
                is_error.then(|| status.as_u16().to_string())
            }
            Err(why) => Some(why.to_owned()),
        };
        let (method, failed) = (known(&self.method).to_owned(), error.is_some());
        let attributes = [
            ("http.request.method", Some(Value::Text(method.clone()))),
            ("http.response.status_code", status.map(|status| Value::Number(status.into()))),
            ("error.type", error.map(Value::Text)),
            ("oncekey.upstream", self.upstream.take().map(Value::Text)),
        ];
        self.open.end(method, attributes, failed);
    }
}

/// The name of a method in spans: an unknown word of a client becomes `_OTHER`, so that names stay few.
fn known(method: &Method) -> &str {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::HEAD,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ];
    if KNOWN.contains(method) { method.as_str() } else { "_OTHER" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::time::Duration;

    #[derive(Default)]
    struct Kept(Mutex<Vec<Span>>);

    impl Sink for Kept {
        fn take(&self, span: Span) {
            self.0.lock().push(span);
        }

        fn close(&self) {}
    }

    fn spans(one_in: u32) -> (Arc<Kept>, Arc<Spans>) {
        let kept = Arc::new(Kept::default());
        (kept.clone(), Spans::new(kept, one_in))
    }

    fn line(status: Option<StatusCode>) -> Line<'static> {
        Line {
            method: &Method::POST,
            route: Some("/v1/{id}"),
            status,
            outcome: "executed",
            attempt: Some(2),
            took: Duration::ZERO,
            upstream: None,
            bytes_in: 17,
            bytes_out: 212,
            peer: None,
            trace: None,
        }
    }

    fn value<'a>(span: &'a Span, name: &str) -> Option<&'a Value> {
        span.attributes.iter().find(|(named, _)| *named == name).map(|(_, value)| value)
    }

    #[test]
    fn a_request_and_its_upstream_are_in_the_trace_of_the_caller() {
        let (kept, spans) = spans(0);
        let caller = TraceParent { trace: 7, span: 8, sampled: true };
        let open = spans.request(Some(caller));
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, "stays".parse().unwrap());
        let mut asked = open.ask(&Method::POST, &mut headers);
        asked.answered("http://up:1", StatusCode::CREATED);
        drop(asked);
        open.answered(&line(Some(StatusCode::CREATED)));
        let taken = kept.0.lock();
        let [client, server] = &taken[..] else { panic!("{taken:?}") };
        assert_eq!((server.context.trace, server.parent, server.kind), (7, Some(8), Kind::Server));
        assert_eq!((client.context.trace, client.kind), (7, Kind::Client));
        assert_eq!(client.parent, Some(server.context.span));
        assert_eq!(TraceParent::of(&headers), Some(client.context));
        assert!(headers.contains_key(TRACESTATE));
        assert_eq!((&*server.name, &*client.name), ("POST /v1/{id}", "POST"));
        assert_eq!(value(server, "http.response.status_code"), Some(&Value::Number(201)));
        assert_eq!(value(server, "oncekey.attempt"), Some(&Value::Number(2)));
        assert_eq!(value(client, "oncekey.upstream"), Some(&Value::Text("http://up:1".into())));
        assert!(!server.failed && !client.failed);
    }

    #[test]
    fn a_request_without_a_trace_begins_one_and_what_it_carries_is_of_no_trace() {
        let (kept, spans) = spans(1);
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, "of what".parse().unwrap());
        let (one, other) = (spans.request(None), spans.request(None));
        assert_ne!(one.trace(), other.trace());
        drop(one.ask(&Method::from_bytes(b"BREW").unwrap(), &mut headers));
        let told = TraceParent::of(&headers).unwrap();
        assert!(told.trace == one.trace() && told.sampled);
        assert!(!headers.contains_key(TRACESTATE));
        one.answered(&line(None));
        let taken = kept.0.lock();
        let [client, server] = &taken[..] else { panic!("{taken:?}") };
        assert!(server.parent.is_none() && server.failed && client.failed);
        // Dropped before an answer.
        assert_eq!(value(client, "error.type"), Some(&Value::Text("cancelled".into())));
        assert_eq!((&*client.name, value(server, "http.response.status_code")), ("_OTHER", None));
    }

    #[test]
    fn what_is_not_recorded_says_so_to_the_upstream() {
        let caller = TraceParent { trace: 7, span: 8, sampled: false };
        for (one_in, caller) in [(1, Some(caller)), (0, None)] {
            let (kept, spans) = spans(one_in);
            let (open, mut headers) = (spans.request(caller), HeaderMap::new());
            drop(open.ask(&Method::GET, &mut headers));
            open.answered(&line(None));
            let told = TraceParent::of(&headers).unwrap();
            assert!(!told.sampled && told.trace == open.trace());
            assert!(kept.0.lock().is_empty());
        }
        let (_, spans) = spans(4);
        let sampled = (0..4000).filter(|_| spans.request(None).context.sampled).count();
        assert!((800..1200).contains(&sampled), "{sampled} of 4000, not about one in four");
    }
}
