//! What is counted and measured, for `/metrics`. docs/proxy.md names it.

use std::io;
use std::time::Duration;

use http::StatusCode;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the histograms of durations, in seconds.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How often what was measured is moved to where it is read.
const UPKEEP: Duration = Duration::from_secs(5);

/// Counts from now on. Without a call nothing is counted, at no cost.
///
/// # Errors
/// When the process counts already.
pub(crate) fn install() -> io::Result<PrometheusHandle> {
    let suffix = Matcher::Suffix("_seconds".to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(suffix, &SECONDS)
        .map_err(io::Error::other)?
        .install_recorder()
        .map_err(io::Error::other)?;
    metrics::gauge!("oncekey_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// A request was answered. `route` is the pattern; `None` when it was refused before it had one.
pub(crate) fn answered(
    route: Option<&str>,
    keyed: bool,
    outcome: &'static str,
    status: StatusCode,
    took: Duration,
) {
    let route = route.unwrap_or("none").to_owned();
    let keyed = if keyed { "yes" } else { "no" };
    let status = match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    metrics::counter!(
        "oncekey_proxy_requests_total",
        "route" => route.clone(), "keyed" => keyed, "outcome" => outcome, "status" => status
    )
    .increment(1);
    metrics::histogram!("oncekey_proxy_request_seconds", "route" => route, "keyed" => keyed)
        .record(took);
}

/// A request to an upstream, or a connection, failed. `sent` says whether any of it may have arrived.
pub(crate) fn upstream_failed(upstream: &impl ToString, sent: bool) {
    metrics::counter!(
        "oncekey_proxy_upstream_failures_total",
        "upstream" => upstream.to_string(), "sent" => if sent { "maybe" } else { "no" }
    )
    .increment(1);
}

/// Headers of a request that would be taken for the proxy's were removed.
pub(crate) fn stripped(headers: usize) {
    metrics::counter!("oncekey_proxy_stripped_headers_total").increment(headers as u64);
}

/// The configuration was read again.
pub(crate) fn reloaded(result: &'static str) {
    metrics::counter!("oncekey_config_reloads_total", "result" => result).increment(1);
}
