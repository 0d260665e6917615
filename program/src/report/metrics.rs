//! The metrics of `/metrics`. docs/proxy.md lists them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::meter::Counted;
use crate::base::latency::Latency;

/// The upper bounds of the duration histograms, in seconds.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The time between two transfers of measured values to the reader.
const UPKEEP: Duration = Duration::from_secs(5);

/// The reader of all metrics.
pub(crate) struct Measured {
    pub(crate) prometheus: PrometheusHandle,
    /// The latencies of requests, and of the syncs of the store.
    pub(crate) requests: Arc<Latency>,
    pub(crate) syncs: Arc<Latency>,
}

/// Starts counting. Without this call nothing is counted, at no cost.
///
/// # Errors
/// When the process has a recorder already.
pub(crate) fn install() -> io::Result<Measured> {
    let suffix = Matcher::Suffix("_seconds".to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(suffix, &SECONDS)
        .map_err(io::Error::other)?
        .build_recorder();
    let prometheus = recorder.handle();
    let syncs = Arc::new(Latency::default());
    metrics::set_global_recorder(Both { recorder, syncs: syncs.clone() })
        .map_err(|_| io::Error::other("another recorder counts already"))?;
    metrics::gauge!("oncekey_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    begin_at_zero();
    let upkeep = prometheus.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(Measured { prometheus, requests: Arc::default(), syncs })
}

/// Sets counters without an event to 0, so that they exist: alerts can compute their rates.
fn begin_at_zero() {
    for name in [
        "oncekey_proxy_upstream_retries_total",
        "oncekey_proxy_stripped_headers_total",
        "oncekey_proxy_unrecognized_key_header_total",
    ] {
        metrics::counter!(name).increment(0);
    }
    for result in ["done", "refused"] {
        metrics::counter!("oncekey_config_reloads_total", "result" => result).increment(0);
    }
    for of in ["requests", "responses"] {
        buffered(of).set(0.0);
    }
}

/// The recorder of Prometheus, and the percentiles of syncs, which the buckets of Prometheus do not give.
struct Both {
    recorder: PrometheusRecorder,
    syncs: Arc<Latency>,
}

impl Recorder for Both {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.recorder.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.recorder.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let histogram = self.recorder.register_histogram(key, metadata);
        match key.name() {
            "oncekey_sync_seconds" => {
                let syncs = self.syncs.clone();
                Histogram::from_arc(Arc::new(Twice { histogram, syncs }))
            }
            _ => histogram,
        }
    }
}

struct Twice {
    histogram: Histogram,
    syncs: Arc<Latency>,
}

impl HistogramFn for Twice {
    fn record(&self, value: f64) {
        self.histogram.record(value);
        self.syncs.record(Duration::try_from_secs_f64(value).unwrap_or_default());
    }
}

/// Counts an answered request. `route` is the pattern; `None` when the request was refused before its route
/// was found. `status` is `None` when the client disconnected before its answer.
pub(crate) fn answered(
    route: Option<&str>,
    keyed: bool,
    outcome: &'static str,
    status: Option<StatusCode>,
    took: Duration,
) {
    let route = route.unwrap_or("none").to_owned();
    let keyed = if keyed { "yes" } else { "no" };
    let status = match status.map(|status| status.as_u16() / 100) {
        None => "none",
        Some(1) => "1xx",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(_) => "5xx",
    };
    metrics::counter!(
        "oncekey_proxy_requests_total",
        "route" => route.clone(), "keyed" => keyed, "outcome" => outcome, "status" => status
    )
    .increment(1);
    metrics::histogram!("oncekey_proxy_request_seconds", "route" => route, "keyed" => keyed)
        .record(took);
}

/// Counts a request that is sent again because it was certainly not sent before.
pub(crate) fn upstream_retried() {
    metrics::counter!("oncekey_proxy_upstream_retries_total").increment(1);
}

/// Counts the memory of a response that is read and not yet passed on; zero so far.
pub(crate) fn buffered_response() -> Counted {
    Counted::new(&buffered("responses"), 0.0)
}

/// Records the memory of keyed request bodies that no handler has yet.
pub(crate) fn buffered_requests(bytes: u64) {
    buffered("requests").set(bytes as f64);
}

fn buffered(of: &'static str) -> Gauge {
    metrics::gauge!("oncekey_proxy_buffered_bytes", "of" => of)
}

/// Counts a header of an upstream that was not understood.
pub(crate) fn ignored(header: &HeaderName) {
    let header = header.as_str().to_owned();
    metrics::counter!("oncekey_proxy_ignored_headers_total", "header" => header).increment(1);
}

/// Counts a request without a key whose header looks like a misspelled key header.
pub(crate) fn unrecognized_key_header() {
    metrics::counter!("oncekey_proxy_unrecognized_key_header_total").increment(1);
}

/// Counts removed headers of a request that could be mistaken for the proxy's.
pub(crate) fn stripped(headers: usize) {
    metrics::counter!("oncekey_proxy_stripped_headers_total").increment(headers as u64);
}

/// Counts a reload of the configuration.
pub(crate) fn reloaded(result: &'static str) {
    metrics::counter!("oncekey_config_reloads_total", "result" => result).increment(1);
}
