//! The history of the statistics over the last quarter of an hour and the last day.

use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use oncekey::{Engine, Statistic};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::text::{camel, millis, since_1970};
use crate::layer::IdempotencyLayer;

/// Step and number of samples: 15 minutes by the second, a day by ten seconds.
const FINE: (Duration, usize) = (Duration::from_secs(1), 900);
const COARSE: (Duration, usize) = (Duration::from_secs(10), 8640);
const FINE_PER_COARSE: usize = 10;

/// A further figure, read each second. `None` means unknown.
pub(crate) type Gauge = Box<dyn Fn() -> Option<f64> + Send + Sync>;

/// Two rings of samples. NaN stands for an unknown figure.
#[derive(Default)]
pub(crate) struct Series {
    gauges: Mutex<Vec<(&'static str, Gauge)>>,
    state: Mutex<State>,
    begun: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The name of each column, and whether the column is a counter.
    columns: Vec<(String, bool)>,
    last: Vec<f64>,
    fine: VecDeque<Vec<f64>>,
    coarse: VecDeque<Vec<f64>>,
    /// The times of the newest fine and coarse rows.
    ends: [Option<SystemTime>; 2],
    /// The number of fine rows that are in no coarse row yet.
    fresh: usize,
}

impl Series {
    /// Adds the figure `name`. `gauge` is read with each sample from now on.
    pub(crate) fn add(&self, name: &'static str, gauge: Gauge) {
        self.gauges.lock().push((name, gauge));
    }

    /// Whether the caller must start the sampling: true for the first caller alone.
    pub(crate) fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::Relaxed)
    }

    /// Takes a sample.
    pub(crate) fn sample(&self, engine: &Engine, layer: Option<&IdempotencyLayer>) {
        let mut columns = Vec::new();
        let mut values = Vec::new();
        for (name, statistic) in engine.stats().fields() {
            let (suffix, counts, value) = match statistic {
                Statistic::Gauge(number) => ("", false, number as f64),
                Statistic::Counter(number) => ("", true, number as f64),
                Statistic::State(is) => ("", false, f64::from(u8::from(is))),
                Statistic::Age(age) => {
                    ("Ms", false, age.map_or(f64::NAN, |age| millis(age) as f64))
                }
            };
            columns.push((camel(name) + suffix, counts));
            values.push(value);
        }
        let of_layer = layer.map(IdempotencyLayer::stats).map(|stats| {
            [
                ("running", false, stats.running),
                ("bufferedBytes", false, stats.buffered_bytes),
                ("notStored", true, stats.not_stored),
                ("notExecuted", true, stats.not_executed),
                ("storeUnavailable", true, stats.store_unavailable),
            ]
        });
        for (name, counts, value) in of_layer.into_iter().flatten() {
            columns.push((name.to_owned(), counts));
            values.push(value as f64);
        }
        for (name, gauge) in &*self.gauges.lock() {
            columns.push(((*name).to_owned(), false));
            values.push(gauge().unwrap_or(f64::NAN));
        }
        self.state.lock().push(columns, values, SystemTime::now());
    }

    /// The samples of the last `window`, at most a day. Each figure has the same number of samples, the
    /// newest last.
    pub(crate) fn show(&self, window: Duration) -> Value {
        self.state.lock().show(window)
    }
}

impl State {
    fn push(&mut self, columns: Vec<(String, bool)>, values: Vec<f64>, now: SystemTime) {
        if self.columns != columns {
            // The first sample after a change of the columns only sets the start of the counters.
            *self = Self { columns, last: values, ..Self::default() };
            return;
        }
        let counts = self.columns.iter().map(|(_, counts)| *counts);
        let row = values.iter().zip(&self.last).zip(counts).map(|((value, last), counts)| {
            // A counter starts at zero when the engine is reopened.
            if !counts {
                *value
            } else if value >= last {
                value - last
            } else {
                *value
            }
        });
        self.fine.push_back(row.collect());
        self.last = values;
        self.ends[0] = Some(now);
        self.fresh += 1;
        if self.fresh >= FINE_PER_COARSE {
            self.fresh = 0;
            self.ends[1] = Some(now);
            let coarse = self.coarsened();
            self.coarse.push_back(coarse);
        }
        self.fine.drain(..self.fine.len().saturating_sub(FINE.1));
        self.coarse.drain(..self.coarse.len().saturating_sub(COARSE.1));
    }

    /// The last ten samples as one: the sum for a counter, the largest value for other figures.
    fn coarsened(&self) -> Vec<f64> {
        let rows = || self.fine.iter().rev().take(FINE_PER_COARSE);
        let column = |(at, (_, counts)): (usize, &(String, bool))| match counts {
            true => rows().map(|row| row[at]).sum(),
            false => rows().map(|row| row[at]).fold(f64::NAN, f64::max),
        };
        self.columns.iter().enumerate().map(column).collect()
    }

    fn show(&self, window: Duration) -> Value {
        let is_fine = window <= FINE.0 * FINE.1 as u32;
        let ((step, _), rows, end) = match is_fine {
            true => (FINE, &self.fine, self.ends[0]),
            false => (COARSE, &self.coarse, self.ends[1]),
        };
        let wanted = window.as_secs().div_ceil(step.as_secs()) as usize;
        let from = rows.len().saturating_sub(wanted);
        let mut shown = Map::new();
        shown.insert("stepMs".to_owned(), json!(millis(step)));
        shown.insert("endMs".to_owned(), json!(end.map(since_1970)));
        for (at, (name, _)) in self.columns.iter().enumerate() {
            let column = rows.iter().skip(from).map(|row| number(row[at]));
            shown.insert(name.clone(), Value::Array(column.collect()));
        }
        Value::Object(shown)
    }
}

impl std::fmt::Debug for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Series")
    }
}

/// A figure as JSON: NaN is null, a whole number has no fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { json!(value as i64) } else { json!(value) }
}

/// Samples each second, until the last strong reference to `of` is dropped.
pub(crate) async fn keep_sampling<T>(of: Weak<T>, sample: impl Fn(&T)) {
    let mut second = tokio::time::interval(FINE.0);
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        second.tick().await;
        match of.upgrade() {
            Some(of) => sample(&of),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_differences_and_gauges_are_values() {
        let mut state = State::default();
        let columns = || vec![("claimed".to_owned(), true), ("inFlight".to_owned(), false)];
        let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        for second in 0..=20_u64 {
            // Reopened after 15 seconds: the counter starts at zero.
            let claimed = if second < 15 { 3 * second } else { 3 * (second - 14) };
            state.push(columns(), vec![claimed as f64, second as f64], at(second));
        }
        let fine = state.show(Duration::from_secs(15 * 60));
        assert_eq!((&fine["stepMs"], &fine["endMs"]), (&json!(1000), &json!(20_000)));
        assert_eq!(fine["claimed"], json!(vec![3; 20]));
        assert_eq!(state.show(Duration::from_secs(2))["inFlight"], json!([19, 20]));
        let day = state.show(Duration::from_secs(24 * 60 * 60));
        assert_eq!(day["stepMs"], json!(10_000));
        assert_eq!((&day["claimed"], &day["inFlight"]), (&json!([30, 30]), &json!([10, 20])));
    }

    #[test]
    fn rings_are_bounded_and_what_is_not_known_is_null() {
        let mut state = State::default();
        for _ in 0..=FINE.1 + 5 {
            state.push(vec![("p99".to_owned(), false)], vec![f64::NAN], SystemTime::now());
        }
        assert_eq!(state.fine.len(), FINE.1);
        assert_eq!(state.show(Duration::from_secs(1))["p99"], json!([null]));
    }
}
