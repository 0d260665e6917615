//! Two percentiles of durations, over the time since the last reading.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Eight buckets for each doubling, from one microsecond up.
const PER_DOUBLING: usize = 8;
const BUCKETS: usize = 36 * PER_DOUBLING;

/// Counts durations by buckets whose bounds are 9 % apart.
pub(crate) struct Latency(Box<[AtomicU32]>);

/// The median and the 99th percentile.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Percentiles {
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
}

impl Default for Latency {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Latency {
    pub(crate) fn record(&self, took: Duration) {
        self.0[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// The percentiles of the durations recorded since the last call.
    pub(crate) fn take(&self) -> Percentiles {
        let counts: Vec<_> = self.0.iter().map(|count| count.swap(0, Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let at = |percent: u64| {
            let rank = (all * percent).div_ceil(100);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += u64::from(*count);
                rank > 0 && seen >= rank
            });
            found.map(upper_bound)
        };
        Percentiles { p50: at(50), p99: at(99) }
    }
}

fn bucket(took: Duration) -> usize {
    let micros = took.as_secs_f64() * 1e6;
    let at = (micros.max(1.0).log2() * PER_DOUBLING as f64).ceil();
    (at as usize).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    Duration::from_secs_f64((bucket as f64 / PER_DOUBLING as f64).exp2() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_bucket_and_are_told_once() {
        let latency = Latency::default();
        assert_eq!(latency.take(), Percentiles::default());
        for millis in 1..=100 {
            latency.record(Duration::from_millis(millis));
        }
        let Percentiles { p50: Some(p50), p99: Some(p99) } = latency.take() else { panic!() };
        let near = |found: Duration, millis: f64| {
            let ratio = found.as_secs_f64() * 1000.0 / millis;
            assert!((0.99..1.1).contains(&ratio), "{found:?} for {millis} ms");
        };
        near(p50, 50.0);
        near(p99, 99.0);
        assert_eq!(latency.take(), Percentiles::default());
        latency.record(Duration::ZERO);
        latency.record(Duration::MAX);
        assert!(latency.take().p99.is_some());
    }
}
