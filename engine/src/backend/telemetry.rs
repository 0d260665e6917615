//! The reports of the running engine: metrics with the feature `metrics`, events with the feature
//! `tracing`, nothing without. docs/operations.md promises every name here. Keys, scopes and
//! responses are never reported.

use std::path::Path;
use std::time::Duration;

#[cfg(feature = "metrics")]
use crate::backend::reports::Statistic;
use crate::backend::reports::Stats;
use crate::base::error::Error;

/// An answer was given to a caller.
pub(crate) fn answered(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("oncekey_answers_total", "outcome" => outcome).increment(1);
    let _ = outcome;
}

/// A group was made durable.
pub(crate) fn group_synced(entries: u64, bytes: u64, sync: Duration) {
    #[cfg(feature = "metrics")]
    {
        metrics::histogram!("oncekey_group_entries").record(entries as f64);
        metrics::histogram!("oncekey_group_bytes").record(bytes as f64);
        metrics::histogram!("oncekey_sync_seconds").record(sync);
    }
    let _ = (entries, bytes, sync);
}

/// Recent records were moved into the store file.
pub(crate) fn folded(records: usize, took: Duration) {
    #[cfg(feature = "metrics")]
    {
        metrics::histogram!("oncekey_fold_records").record(records as f64);
        metrics::histogram!("oncekey_fold_seconds").record(took);
    }
    #[cfg(feature = "tracing")]
    tracing::debug!(target: "oncekey", records, ?took, "folded");
    let _ = (records, took);
}

/// The space of expired records was given back.
pub(crate) fn swept(records: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!("oncekey_swept_records_total").increment(records);
    #[cfg(feature = "tracing")]
    if records > 0 {
        tracing::debug!(target: "oncekey", records, "swept");
    }
    let _ = records;
}

/// The engine latched: it refuses writes until it is reopened.
pub(crate) fn failed(error: &Error) {
    #[cfg(feature = "metrics")]
    metrics::counter!("oncekey_failures_total").increment(1);
    #[cfg(feature = "tracing")]
    tracing::error!(target: "oncekey", %error, "the engine failed; it refuses writes until it is reopened");
    let _ = error;
}

/// Other users may read the files of a store, and the engine cannot change that.
pub(crate) fn stays_wide(error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "oncekey", %error, "others may read the files of the store");
    let _ = error;
}

/// The note of the owner cannot be written: other processes cannot find it.
pub(crate) fn not_noted(error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "oncekey", %error, "the owner is not noted in the store");
    let _ = error;
}

/// A store was opened, or reopened in place.
pub(crate) fn opened(path: &Path, orphans: u64, took: Duration) {
    #[cfg(feature = "tracing")]
    tracing::info!(target: "oncekey", path = %path.display(), orphans, ?took, "opened");
    let _ = (path, orphans, took);
}

/// New claims are refused from now on because the disk or the store is full, or no longer refused.
pub(crate) fn full_changed(full: bool) {
    #[cfg(feature = "tracing")]
    if full {
        tracing::warn!(target: "oncekey", "the store is full; new claims are refused");
    } else {
        tracing::info!(target: "oncekey", "the store has room again");
    }
    let _ = full;
}

/// Sets the gauges. Without the feature `metrics` the snapshot is not taken.
pub(crate) fn gauges(stats: impl FnOnce() -> Stats) {
    #[cfg(feature = "metrics")]
    {
        for (name, statistic) in stats().fields() {
            match statistic {
                Statistic::Gauge(number) => {
                    metrics::gauge!(format!("oncekey_{name}")).set(number as f64);
                }
                Statistic::Age(age) => {
                    let age = age.unwrap_or_default().as_secs_f64();
                    metrics::gauge!(format!("oncekey_{name}_seconds")).set(age);
                }
                Statistic::State(is) => {
                    metrics::gauge!(format!("oncekey_{name}")).set(f64::from(u8::from(is)));
                }
                // Counted where it happens.
                Statistic::Counter(_) => {}
            }
        }
    }
    #[cfg(not(feature = "metrics"))]
    let _ = stats;
}
