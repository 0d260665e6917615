//! The counts of one upstream.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Gauge, Histogram};

/// How far a request to an upstream came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its name was looked up.
    Resolve,
    Connect,
    Tls,
    /// A connection was taken: all were in use, or an idle one turned out closed.
    Checkout,
    /// The request was sent.
    Write,
    /// The head of the response was waited for.
    Head,
    /// Its body was read.
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

/// Counts for one upstream.
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
            // After a reload both sets of upstreams count.
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

    /// The upstream answered: from when the request was handed to a connection to the head.
    pub(crate) fn answered(&self, took: Duration) {
        self.seconds.record(took);
    }

    /// A request, or a connection, failed. `sent` says whether any of it may have arrived.
    pub(crate) fn failed(&self, stage: Stage, sent: bool) {
        metrics::counter!(
            "oncekey_proxy_upstream_failures_total",
            "upstream" => self.name.clone(),
            "stage" => stage.as_str(),
            "sent" => if sent { "maybe" } else { "no" }
        )
        .increment(1);
    }

    /// The result of the health check.
    pub(crate) fn is_up(&self, up: bool) {
        let up = if up { 1.0 } else { 0.0 };
        metrics::gauge!("oncekey_proxy_upstream_up", "upstream" => self.name.clone()).set(up);
    }

    /// A connection that has a request.
    pub(crate) fn busy(&self) -> Counted {
        Counted::new(&self.busy, 1.0)
    }

    /// A connection that waits for one.
    pub(crate) fn idle(&self) -> Counted {
        Counted::new(&self.idle, 1.0)
    }

    /// A connection that any number of requests share.
    pub(crate) fn shared(&self) -> Counted {
        Counted::new(&self.shared, 1.0)
    }
}

/// A part of a gauge, for as long as this lives.
pub(crate) struct Counted {
    gauge: Gauge,
    by: f64,
}

impl Counted {
    pub(crate) fn new(gauge: &Gauge, by: f64) -> Self {
        gauge.increment(by);
        Self { gauge: gauge.clone(), by }
    }

    /// Counts more.
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
