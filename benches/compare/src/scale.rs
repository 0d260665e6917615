//! Drawings of what the program `scale` of the benches wrote.

use std::path::{Path, PathBuf};

use oncekey_benches::Result;
use serde::Deserialize;

use crate::plot::{Axis, Drawing, Series, draw};

/// What a file may hold; by its fields.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Report {
    Latency(Latency),
    Keys(Keys),
}

/// `scale latency`.
#[derive(Debug, Deserialize)]
struct Latency {
    callers: usize,
    raw: Quantiles,
    interval_ms: u64,
    backup: Span,
    sweep: Span,
    intervals: Vec<Interval>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Span {
    began_ms: u64,
    ended_ms: u64,
}

#[derive(Debug, Deserialize)]
struct Interval {
    from_ms: u64,
    #[serde(flatten)]
    latency: Quantiles,
    folds: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Quantiles {
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
}

/// `scale keys`.
#[derive(Debug, Deserialize)]
struct Keys {
    keys: u64,
    response: usize,
    full_to_empty: f64,
    open_after_kill_ms: Vec<f64>,
}

/// Draws the latencies over time of a `scale latency`, and the throughput and opening time by live
/// keys of several `scale keys`.
///
/// # Errors
/// Those of the filesystem; a file that is neither.
pub fn plot(files: &[PathBuf], out: &Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    let mut keys = Vec::new();
    for file in files {
        match read(file)? {
            Report::Latency(report) => {
                let name = format!("latency-{}.svg", report.callers);
                draw(&report.drawing(), &out.join(name))?;
            }
            Report::Keys(report) => keys.push(report),
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    keys.sort_by_key(|report| (report.response, report.keys));
    let (mut ratios, mut opens) = (Vec::new(), Vec::new());
    for (colour, reports) in keys.chunk_by(|a, b| a.response == b.response).enumerate() {
        let colour = Some(colour + 1);
        let line = |value: fn(&Keys) -> f64| Series {
            name: format!("responses of {} B", reports[0].response),
            points: reports.iter().map(|report| (report.keys as f64, value(report))).collect(),
            spans: false,
            strong: true,
            colour,
            dashed: false,
        };
        ratios.push(line(|report| report.full_to_empty));
        opens.push(line(|report| report.open_after_kill_ms.iter().copied().fold(0.0, f64::max)));
    }
    let drawing = |title: &str, unit: &str, series| Drawing {
        title: title.to_owned(),
        x: Axis { label: "live keys".to_owned(), log: true },
        y: Axis { label: unit.to_owned(), log: false },
        series,
    };
    let title = "Durable pairs/s, in those of an empty store in the same run";
    draw(&drawing(title, "ratio", ratios), &out.join("live-keys.svg"))?;
    let title = "Opening the store after kill -9, the slowest of the kills";
    draw(&drawing(title, "ms", opens), &out.join("live-keys-open.svg"))
}

fn read(file: &Path) -> Result<Report> {
    serde_json::from_slice(&std::fs::read(file)?)
        .map_err(|error| format!("{}: {error}", file.display()).into())
}

impl Latency {
    fn drawing(&self) -> Drawing {
        // The last interval is cut off by the end.
        let whole = &self.intervals[..self.intervals.len().saturating_sub(1)];
        let line = |name: &str, colour, value: fn(&Quantiles) -> f64| Series {
            name: name.to_owned(),
            points: (whole.iter())
                .map(|interval| (interval.from_ms as f64 / 1e3, value(&interval.latency)))
                .collect(),
            spans: false,
            strong: false,
            colour: Some(colour),
            dashed: false,
        };
        let end = whole.last().map_or(0.0, |interval| interval.from_ms as f64 / 1e3);
        let raw = Series {
            name: "raw, 99 %".to_owned(),
            points: vec![(0.0, self.raw.p99_us), (end, self.raw.p99_us)],
            spans: false,
            strong: false,
            colour: Some(0),
            dashed: true,
        };
        // Below all latencies, one row for each kind of work.
        let lowest = whole.iter().map(|interval| interval.latency.p50_us).fold(f64::MAX, f64::min);
        let spans = |name: &str, row, spans: Vec<[u64; 2]>| {
            let at = lowest * 0.8_f64.powi(row);
            let ends = spans.into_iter().flatten().map(|ms| (ms as f64 / 1e3, at));
            let (points, name) = (ends.collect(), name.to_owned());
            Series { name, points, spans: true, strong: true, colour: Some(3), dashed: false }
        };
        let one = |span: Span| vec![[span.began_ms, span.ended_ms]];
        let folds = whole.iter().filter(|interval| interval.folds > 0);
        let folds = folds.map(|interval| [interval.from_ms, interval.from_ms + self.interval_ms]);
        let series = vec![
            line("99.9 %", 1, |latency| latency.p999_us),
            line("99 %", 5, |latency| latency.p99_us),
            line("50 %", 2, |latency| latency.p50_us),
            raw,
            spans("a fold ended", 1, folds.collect()),
            spans("backup", 2, one(self.backup)),
            spans("sweep", 3, one(self.sweep)),
        ];
        Drawing {
            title: format!("Latency of a pair, {} callers", self.callers),
            x: Axis { label: "seconds".to_owned(), log: false },
            y: Axis { label: "µs".to_owned(), log: true },
            series,
        }
    }
}
