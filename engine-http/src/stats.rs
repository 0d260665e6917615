//! The counts that only the layer can make.

use std::sync::atomic::{AtomicU64, Ordering};

/// Generates `LayerStats` and its counters from one list.
macro_rules! counters {
    ($($(#[$meaning:meta])* $name:ident,)*) => {
        /// A snapshot of the counts of a layer and its clones, as
        /// [`IdempotencyLayer::stats`](crate::IdempotencyLayer::stats) takes it. Counts start at zero with
        /// the layer. How many requests were claimed, replayed, locked, mismatched or orphaned is in
        /// [`oncekey::Stats`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct LayerStats {
            /// Handlers that run now, including the storing of their responses.
            pub running: u64,
            /// Bytes of memory that hold request bodies now, before their handlers get them.
            pub buffered_bytes: u64,
            $($(#[$meaning])* pub $name: u64,)*
        }

        impl LayerStats {
            /// Every count with the name of its field.
            #[cfg(feature = "admin")]
            pub(crate) fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![
                    ("running", self.running),
                    ("buffered_bytes", self.buffered_bytes),
                    $((stringify!($name), self.$name),)*
                ]
            }
        }

        /// The counters behind [`LayerStats`].
        #[derive(Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Default for Counters {
            fn default() -> Self {
                Self {
                    $($name: Counter::new(concat!("oncekey_layer_", stringify!($name), "_total")),)*
                }
            }
        }

        impl Counters {
            pub(crate) fn snapshot(&self, running: usize, buffered: usize) -> LayerStats {
                LayerStats {
                    running: running as u64,
                    buffered_bytes: buffered as u64,
                    $($name: self.$name.value(),)*
                }
            }
        }
    };
}

counters! {
    /// Requests refused because of their key: missing, malformed, sent twice.
    key_refused,
    /// Requests refused because of their body: over the limit, it could not be read, or it stalled.
    body_refused,
    /// Requests refused because the bodies of all requests together filled
    /// [`max_buffered`](crate::IdempotencyLayer::max_buffered).
    body_overloaded,
    /// Requests refused because the store was unavailable.
    store_unavailable,
    /// Responses that were sent although the store failed to record them. Their retries are refused until the
    /// engine is reopened.
    complete_failed,
    /// Operations that were completed without a response to replay: too large, or a stream.
    not_stored,
    /// Keys that were freed because nothing had happened: the response said so, or the handler was never
    /// started.
    not_executed,
    /// Executions that ended with an unknown outcome: a panic, an error of the inner service, a response body
    /// that failed, a response that carries [`OutcomeUnknown`](crate::OutcomeUnknown).
    abandoned,
    /// Stored responses that could not be decoded.
    undecodable,
    /// Requests with a key and a cookie, while the policy has no scope: two users that send the same
    /// key and the same body get one response.
    unscoped_cookies,
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
