//! The counts that only the layer can make.

use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot of the counts of a layer and its clones, as
/// [`IdempotencyLayer::stats`](crate::IdempotencyLayer::stats) takes it. Counts start at zero with the layer.
/// How many requests were claimed, replayed, locked, mismatched or orphaned is in [`oncekey::Stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerStats {
    /// Handlers that run now, including the storing of their responses.
    pub running: u64,
    /// Bytes of memory that hold request bodies now, before their handlers get them.
    pub buffered_bytes: u64,
    /// Requests refused because of their key: missing, malformed, sent twice.
    pub key_refused: u64,
    /// Requests refused because of their body: over the limit, it could not be read, or it stalled.
    pub body_refused: u64,
    /// Requests refused because the bodies of all requests together filled
    /// [`max_buffered`](crate::IdempotencyLayer::max_buffered).
    pub body_overloaded: u64,
    /// Requests refused because the store was unavailable.
    pub store_unavailable: u64,
    /// Responses that were sent although the store failed to record them. Their retries are refused until the
    /// engine is reopened.
    pub complete_failed: u64,
    /// Operations that were completed without a response to replay: too large, or a stream.
    pub not_stored: u64,
    /// Keys that were freed because nothing had happened: the response said so, or the handler was never
    /// started.
    pub not_executed: u64,
    /// Executions that ended with an unknown outcome: a panic, an error of the inner service, a response body
    /// that failed, a response that carries [`OutcomeUnknown`](crate::OutcomeUnknown).
    pub abandoned: u64,
    /// Stored responses that could not be decoded.
    pub undecodable: u64,
    /// Requests with a key and a cookie, while the policy has no scope: two users that send the same
    /// key and the same body get one response.
    pub unscoped_cookies: u64,
}

/// The counters behind [`LayerStats`].
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) key_refused: Counter,
    pub(crate) body_refused: Counter,
    pub(crate) body_overloaded: Counter,
    pub(crate) store_unavailable: Counter,
    pub(crate) complete_failed: Counter,
    pub(crate) not_stored: Counter,
    pub(crate) not_executed: Counter,
    pub(crate) abandoned: Counter,
    pub(crate) undecodable: Counter,
    pub(crate) unscoped_cookies: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            key_refused: Counter::new("oncekey_layer_key_refused_total"),
            body_refused: Counter::new("oncekey_layer_body_refused_total"),
            body_overloaded: Counter::new("oncekey_layer_body_overloaded_total"),
            store_unavailable: Counter::new("oncekey_layer_store_unavailable_total"),
            complete_failed: Counter::new("oncekey_layer_complete_failed_total"),
            not_stored: Counter::new("oncekey_layer_not_stored_total"),
            not_executed: Counter::new("oncekey_layer_not_executed_total"),
            abandoned: Counter::new("oncekey_layer_abandoned_total"),
            undecodable: Counter::new("oncekey_layer_undecodable_total"),
            unscoped_cookies: Counter::new("oncekey_layer_unscoped_cookies_total"),
        }
    }
}

/// Counts for this layer. With the feature `metrics` it also counts under a name for the whole process.
#[derive(Debug)]
pub(crate) struct Counter {
    value: AtomicU64,
    name: &'static str,
}

impl Counter {
    fn new(name: &'static str) -> Self {
        Self { value: AtomicU64::new(0), name }
    }

    pub(crate) fn add(&self) {
        self.add_first();
    }

    /// Adds one. Returns whether it is the first.
    pub(crate) fn add_first(&self) -> bool {
        #[cfg(feature = "metrics")]
        metrics::counter!(self.name).increment(1);
        let _ = self.name;
        self.value.fetch_add(1, Ordering::Relaxed) == 0
    }

    fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// Changes a gauge that all layers of the process share, with the feature `metrics`.
pub(crate) fn raise(gauge: Gauge, by: usize) {
    #[cfg(feature = "metrics")]
    metrics::gauge!(gauge.0).increment(by as f64);
    let _ = (gauge.0, by);
}

pub(crate) fn lower(gauge: Gauge, by: usize) {
    #[cfg(feature = "metrics")]
    metrics::gauge!(gauge.0).decrement(by as f64);
    let _ = (gauge.0, by);
}

/// The name of a gauge.
#[derive(Clone, Copy)]
pub(crate) struct Gauge(&'static str);

pub(crate) const RUNNING: Gauge = Gauge("oncekey_layer_running");
pub(crate) const BUFFERED_BYTES: Gauge = Gauge("oncekey_layer_buffered_bytes");

impl Counters {
    pub(crate) fn snapshot(&self, running: usize, buffered: usize) -> LayerStats {
        LayerStats {
            running: running as u64,
            buffered_bytes: buffered as u64,
            key_refused: self.key_refused.value(),
            body_refused: self.body_refused.value(),
            body_overloaded: self.body_overloaded.value(),
            store_unavailable: self.store_unavailable.value(),
            complete_failed: self.complete_failed.value(),
            not_stored: self.not_stored.value(),
            not_executed: self.not_executed.value(),
            abandoned: self.abandoned.value(),
            undecodable: self.undecodable.value(),
            unscoped_cookies: self.unscoped_cookies.value(),
        }
    }
}
