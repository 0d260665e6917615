//! The metrics and logs of the features `metrics` and `tracing`, under the names that
//! docs/operations.md documents.
#![cfg(all(feature = "metrics", feature = "tracing"))]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Sim, begin, body, claim, key};
use metrics::{Counter, Gauge, Histogram, HistogramFn, KeyName, Metadata, Recorder, SharedString};
use oncekey::Statistic;
use oncekey_testing::{Fault, OpKind};

/// Keeps the value of each counter and gauge, and what each histogram recorded.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Instruments>>);

#[derive(Default)]
struct Instruments {
    values: BTreeMap<String, Arc<AtomicU64>>,
    histograms: BTreeMap<String, Arc<Samples>>,
}

#[derive(Default)]
struct Samples(Mutex<Vec<f64>>);

impl HistogramFn for Samples {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

fn name(key: &metrics::Key) -> String {
    let labels: String =
        key.labels().map(|label| format!("{{{}={}}}", label.key(), label.value())).collect();
    format!("{}{labels}", key.name())
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}

    fn register_counter(&self, key: &metrics::Key, _: &Metadata<'_>) -> Counter {
        let mut instruments = self.0.lock().unwrap();
        Counter::from_arc(instruments.values.entry(name(key)).or_default().clone())
    }

    fn register_gauge(&self, key: &metrics::Key, _: &Metadata<'_>) -> Gauge {
        let mut instruments = self.0.lock().unwrap();
        Gauge::from_arc(instruments.values.entry(name(key)).or_default().clone())
    }

    fn register_histogram(&self, key: &metrics::Key, _: &Metadata<'_>) -> Histogram {
        let mut instruments = self.0.lock().unwrap();
        Histogram::from_arc(instruments.histograms.entry(name(key)).or_default().clone())
    }
}

impl Recorded {
    fn counter(&self, name: &str) -> u64 {
        let instruments = self.0.lock().unwrap();
        instruments.values.get(name).map_or(0, |value| value.load(Ordering::Relaxed))
    }

    fn gauge(&self, name: &str) -> f64 {
        let instruments = self.0.lock().unwrap();
        f64::from_bits(instruments.values.get(name).expect(name).load(Ordering::Relaxed))
    }

    fn histogram(&self, name: &str) -> Vec<f64> {
        let instruments = self.0.lock().unwrap();
        instruments.histograms.get(name).expect(name).0.lock().unwrap().clone()
    }

    fn names(&self) -> Vec<String> {
        let instruments = self.0.lock().unwrap();
        instruments.values.keys().chain(instruments.histograms.keys()).cloned().collect()
    }
}

/// What was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// One test, since recorder and subscriber are those of the process: the engine reports from
/// threads of its own.
#[test]
fn everything_that_is_documented_is_reported() {
    let recorded = Recorded::default();
    metrics::set_global_recorder(recorded.clone()).unwrap();
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();

    let sim = Sim::new();
    let engine = sim.open();
    let first = claim(&engine, "secret-key");
    drop(begin(&engine, "secret-key"));
    sim.clock.advance(Duration::from_secs(7));
    assert_eq!(engine.stats().in_flight, 1);
    assert_eq!(recorded.gauge("oncekey_in_flight"), 1.0);
    assert_eq!(recorded.gauge("oncekey_oldest_claim_seconds"), 7.0);
    first.complete(b"response").wait().unwrap();
    drop(begin(&engine, "secret-key"));
    drop(engine.begin(&key("secret-key"), body("other")).wait().unwrap());
    claim(&engine, "aborted").abort().wait().unwrap();
    drop(claim(&engine, "orphan"));
    drop(begin(&engine, "orphan"));
    let orphan = engine.orphans().unwrap().remove(0);
    orphan.clone().release().wait().unwrap();
    orphan.release().wait().unwrap_err();
    drop(claim(&engine, "taken over"));
    drop(begin(&engine, "taken over"));
    let orphan = engine.orphans().unwrap().remove(0);
    orphan.take_over().wait().unwrap().complete(b"").wait().unwrap();
    for (outcome, count) in [
        ("claimed", 4),
        ("locked", 1),
        ("replayed", 1),
        ("mismatched", 1),
        ("orphaned", 2),
        ("completed", 2),
        ("aborted", 1),
        ("abandoned", 2),
        ("released", 1),
        ("taken_over", 1),
        ("fenced", 1),
    ] {
        let name = format!("oncekey_answers_total{{outcome={outcome}}}");
        assert_eq!(recorded.counter(&name), count, "{outcome}");
    }

    let groups = engine.stats().groups as usize;
    let entries = recorded.histogram("oncekey_group_entries");
    assert_eq!(
        (entries.len(), entries.iter().sum::<f64>()),
        (groups, engine.stats().entries as f64)
    );
    assert_eq!(recorded.histogram("oncekey_sync_seconds").len(), groups);
    assert!(recorded.histogram("oncekey_group_bytes").iter().all(|bytes| *bytes >= 4096.0));

    drop(claim(&engine, "left"));
    drop(begin(&engine, "left"));
    engine.fold().unwrap();
    sim.clock.advance(2 * common::TTL);
    engine.sweep().unwrap();
    // A second one may be under way, for the orphan that expired.
    assert!(!recorded.histogram("oncekey_fold_seconds").is_empty());
    assert!(recorded.histogram("oncekey_fold_records")[0] >= 3.0);
    assert!(recorded.counter("oncekey_swept_records_total") >= 1);
    let stats = engine.stats();
    assert_eq!(recorded.gauge("oncekey_store_bytes"), stats.store_bytes as f64);
    for (name, statistic) in stats.fields() {
        let gauge = match statistic {
            Statistic::Gauge(_) | Statistic::State(_) => format!("oncekey_{name}"),
            Statistic::Age(_) => format!("oncekey_{name}_seconds"),
            Statistic::Counter(_) => continue,
        };
        assert!(recorded.gauge(&gauge) >= 0.0, "{gauge}");
    }

    let failing = Fault::at_kind(OpKind::Sync, 0).errno(Fault::EIO).forever();
    sim.disk.inject(failing);
    engine.begin(&key("new"), body("a")).wait().unwrap_err();
    assert_eq!(recorded.counter("oncekey_failures_total"), 1);
    assert!(recorded.counter("oncekey_answers_total{outcome=error}") >= 1);
    sim.disk.clear_faults();
    engine.reopen().unwrap();
    drop(engine);

    let text = log.text();
    for event in
        ["opened path=/store", "folded", "swept", "the engine failed", "error=input/output"]
    {
        assert!(text.contains(event), "{event}: {text}");
    }
    assert_eq!(text.matches("opened path=/store").count(), 2, "{text}");
    assert!(!text.contains("secret-key"), "{text}");

    let page = include_str!("../../docs/operations.md");
    for name in recorded.names() {
        let name = name.split('{').next().unwrap();
        assert!(page.contains(&format!("\n| `{name}` |")), "{name} is not documented");
    }
}
