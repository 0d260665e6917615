//! The metrics of one upstream.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Gauge, Histogram};

/// The stage at which a request to an upstream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// While the name was looked up.
    Resolve,
    Connect,
    Tls,
    /// While a connection was taken: all were in use, or an idle one was already closed.
    Checkout,
    /// While the request was sent.
    Write,
    /// While the proxy waited for the head of the response.
    Head,
    /// While the body was read.
    Body,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Checkout => "checkout",
            Self::Write => "write",
            Self::Head => "head",
            Self::Body => "body",
        }
    }
}

/// The counters and gauges of one upstream.
pub(crate) struct Meter {
    name: String,
    seconds: Histogram,
    busy: Gauge,
    idle: Gauge,
    shared: Gauge,
}

impl Meter {
    /// `name` is the address of the upstream as it was configured.
    pub(crate) fn new(name: String) -> Arc<Self> {
        let connections = |state: &'static str| {
            let gauge = metrics::gauge!(
                "oncekey_proxy_upstream_connections", "upstream" => name.clone(), "state" => state
            );
            // During a reload both the old and the new upstreams count.
            gauge.increment(0.0);
            gauge
        };
        let seconds = "oncekey_proxy_upstream_seconds";
        Arc::new(Self {
            seconds: metrics::histogram!(seconds, "upstream" => name.clone()),
            busy: connections("busy"),
            idle: connections("idle"),
            shared: connections("shared"),
            name,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Records the time from the handover of the request to a connection until the head of the response.
    pub(crate) fn answered(&self, took: Duration) {
        self.seconds.record(took);
    }

    /// Counts the failure of a request or a connection. `sent` says whether any part of the request may have
    /// arrived.
    pub(crate) fn failed(&self, stage: Stage, sent: bool) {
        metrics::counter!(
            "oncekey_proxy_upstream_failures_total",
            "upstream" => self.name.clone(),
            "stage" => stage.as_str(),
            "sent" => if sent { "maybe" } else { "no" }
        )
        .increment(1);
    }

    /// Records the result of the health check.
    pub(crate) fn is_up(&self, up: bool) {
        let up = if up { 1.0 } else { 0.0 };
        metrics::gauge!("oncekey_proxy_upstream_up", "upstream" => self.name.clone()).set(up);
    }

    /// Counts a connection with a request.
    pub(crate) fn busy(&self) -> Counted {
        Counted::new(&self.busy, 1.0)
    }

    /// Counts a connection that waits for a request.
    pub(crate) fn idle(&self) -> Counted {
        Counted::new(&self.idle, 1.0)
    }

    /// Counts a connection that any number of requests share.
    pub(crate) fn shared(&self) -> Counted {
        Counted::new(&self.shared, 1.0)
    }
}

/// A part of a gauge, which is subtracted when this is dropped.
pub(crate) struct Counted {
    gauge: Gauge,
    by: f64,
}

impl Counted {
    pub(crate) fn new(gauge: &Gauge, by: f64) -> Self {
        gauge.increment(by);
        Self { gauge: gauge.clone(), by }
    }

    /// Adds to this part.
    pub(crate) fn grow(&mut self, by: f64) {
        self.gauge.increment(by);
        self.by += by;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.decrement(self.by);
    }
}
