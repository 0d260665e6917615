//! Sends spans to an OpenTelemetry collector: OTLP, protobuf over HTTP/1.1.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value as Attribute};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanProcessor};
use tokio::runtime::Handle;

use crate::config::{Config, Target};
use crate::report::spans::{Kind, Sink, Span, Value};
use crate::upstream::{Tls, send_once};

/// How long one request with a batch of spans may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last spans may take when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The longest answer of a collector that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Gathers spans and sends them every few seconds, from a thread of its own.
pub(crate) struct Collector {
    spans: BatchSpanProcessor,
    scope: InstrumentationScope,
}

impl Collector {
    /// # Errors
    /// When no certificate can verify the collector, or when `OTEL_EXPORTER_OTLP_*` in the environment asks
    /// for an unsupported compression or an invalid header.
    pub(crate) fn new(target: &Target, config: &Config) -> Result<Self, String> {
        let traces = &config.traces;
        let tls = target.is_tls().then(|| Tls::new(traces.ca.as_deref())).transpose();
        let tls = tls.map_err(|error| format!("[traces] collector {target}: {error}"))?;
        let client = Client { target: target.clone(), tls, runtime: Handle::current() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{}/v1/traces", target.to_string().trim_end_matches('/')))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| format!("[traces] collector {target}: {error}"))?;
        let version = env!("CARGO_PKG_VERSION");
        let resource = Resource::builder()
            .with_service_name(traces.service.clone())
            .with_attribute(KeyValue::new("service.version", version))
            .build();
        let mut spans = BatchSpanProcessor::builder(exporter).build();
        spans.set_resource(&resource);
        let scope = InstrumentationScope::builder("oncekey").with_version(version).build();
        Ok(Self { spans, scope })
    }
}

impl Sink for Collector {
    fn take(&self, span: Span) {
        let Span { context, parent, kind, name, began, ended, attributes, failed } = span;
        let flags = TraceFlags::default().with_sampled(context.sampled);
        let trace = TraceId::from(context.trace);
        let own = SpanContext::new(trace, context.span.into(), flags, false, TraceState::NONE);
        let attribute = |(name, value)| match value {
            Value::Text(text) => KeyValue::new(name, text),
            Value::Number(number) => {
                KeyValue::new(name, Attribute::I64(i64::try_from(number).unwrap_or(i64::MAX)))
            }
        };
        self.spans.on_end(SpanData {
            span_context: own,
            parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: kind == Kind::Server && parent.is_some(),
            span_kind: match kind {
                Kind::Server => SpanKind::Server,
                Kind::Client => SpanKind::Client,
            },
            name: name.into(),
            start_time: began,
            end_time: ended,
            attributes: attributes.into_iter().map(attribute).collect(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: if failed { Status::error("") } else { Status::Unset },
            instrumentation_scope: self.scope.clone(),
        });
    }

    fn close(&self) {
        if let Err(error) = self.spans.shutdown_with_timeout(LAST_WORDS) {
            tracing::warn!(%error, "the last spans may not have reached the collector");
        }
    }
}

/// Carries the requests of the exporter, which runs on a thread outside of the runtime.
struct Client {
    target: Target,
    /// Set when the collector speaks TLS.
    tls: Option<Tls>,
    runtime: Handle,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.target).finish()
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let sending = send(self.target.clone(), self.tls.clone(), request);
        // The exporter's thread has no timers, so the runtime keeps the time limit.
        let sent = self.runtime.spawn(async { tokio::time::timeout(TIMEOUT, sending).await });
        Box::pin(async move { sent.await?? })
    }
}

async fn send(
    target: Target,
    tls: Option<Tls>,
    mut request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    Ok(send_once(&target, tls.as_ref(), request, MAX_ANSWER).await?)
}
