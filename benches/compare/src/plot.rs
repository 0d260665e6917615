//! Drawings of results: lines over logarithmic axes, each labelled where it ends.

use std::path::Path;

use oncekey_benches::Result;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::http::{Http, Load};
use crate::results::Results;
use crate::sides;

const SIZE: (u32, u32) = (960, 600);
/// A line of more points has no dots.
const MOST_DOTS: usize = 60;
/// Room at the right for the names of the lines.
const LABELS: u32 = 130;

/// Okabe and Ito's colours, told apart by everybody; the second dozen of lines is dashed.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
];

/// What is drawn, and how.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Above it.
    pub title: String,
    /// What lies to the right.
    pub x: Axis,
    /// What lies up.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it measures.
    pub label: String,
    /// Whether steps of the same length multiply.
    pub log: bool,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// Each two points are a line of their own.
    pub spans: bool,
    /// Thick, for what the drawing is about.
    pub strong: bool,
    /// Which colour; by its place in the list if there is none.
    pub colour: Option<usize>,
    /// Broken, for a variant of another line.
    pub dashed: bool,
}

/// Everything that there is of the results.
///
/// # Errors
/// Those of the filesystem; nothing to draw.
pub fn results(results: &Results, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    if results.pairs.is_empty() && results.http.is_empty() {
        return Err("nothing to draw".into());
    }
    if !results.pairs.is_empty() {
        pairs(results, out)?;
    }
    if !results.http.is_empty() {
        http(&results.http, out)?;
    }
    Ok(())
}

/// Requests over HTTP: throughput, and CPU time of server and store, by connections.
fn http(cells: &[Http], out: &Path) -> Result<()> {
    let lines = [
        ("bare", Load::NoKey, "no key", true),
        ("oncekey", Load::New, "oncekey", false),
        ("oncekey", Load::Replay, "oncekey, replay", true),
        ("oncekey-mimalloc", Load::New, "with mimalloc", false),
        ("oncekey-postgres", Load::New, "oncekey-postgres", false),
        ("redis", Load::New, "redis", false),
        ("redis", Load::Replay, "redis, replay", true),
        ("postgres", Load::New, "postgres", false),
    ];
    let drawing = |title: &str, label: &str, value: fn(&Http) -> f64| Drawing {
        title: title.to_owned(),
        x: Axis { label: "connections".to_owned(), log: true },
        y: Axis { label: label.to_owned(), log: true },
        series: (lines.iter())
            .map(|&(side, load, name, dashed)| Series {
                name: name.to_owned(),
                points: (cells.iter().filter(|cell| cell.side == side && cell.load == load))
                    .map(|cell| (cell.connections as f64, value(cell)))
                    .collect(),
                spans: false,
                strong: name == "oncekey",
                colour: Some(match side {
                    "oncekey-mimalloc" => 4,
                    "oncekey-postgres" => 2,
                    _ => colour(side),
                }),
                dashed,
            })
            .filter(|series| !series.points.is_empty())
            .collect(),
    };
    let rate = |cell: &Http| cell.requests_per_second;
    draw(
        &drawing("Requests to one handler of axum, new keys and hot replays", "requests/s", rate),
        &out.join("http-throughput.svg"),
    )?;
    let cpu = |cell: &Http| cell.server_cpu_us + cell.store_cpu_us;
    draw(
        &drawing("CPU time of server and store for a request", "µs", cpu),
        &out.join("http-cpu.svg"),
    )
}

/// Throughput and 99th percentile of pairs by callers, of all sides.
fn pairs(results: &Results, out: &Path) -> Result<()> {
    let callers = || Axis { label: "callers".to_owned(), log: true };
    let drawing = |title: &str, label: &str, value: fn(&crate::results::Pairs) -> f64| Drawing {
        title: title.to_owned(),
        x: callers(),
        y: Axis { label: label.to_owned(), log: true },
        series: sides::all()
            .iter()
            .map(|side| Series {
                name: (*side).to_owned(),
                points: (results.pairs.iter().filter(|pairs| pairs.side == *side))
                    .map(|pairs| (pairs.callers as f64, value(pairs)))
                    .collect(),
                spans: false,
                strong: *side == "oncekey",
                colour: Some(colour(side)),
                dashed: side.ends_with("-own") || *side == "redis-conns" || *side == "raw",
            })
            .filter(|series| !series.points.is_empty())
            .collect(),
    };
    draw(
        &drawing("Durable begin + complete pairs", "pairs/s", |pairs| pairs.pairs_per_second),
        &out.join("pairs-throughput.svg"),
    )?;
    draw(
        &drawing("Latency of a pair, 99th percentile", "µs", |pairs| pairs.p99_us),
        &out.join("pairs-p99.svg"),
    )
}

/// The same for a side and its variants.
fn colour(side: &str) -> usize {
    let families = ["raw", "oncekey", "rocksdb", "fjall", "sqlite", "redis", "lmdb"];
    match side {
        "postgres" | "redb" => 7,
        _ => families.iter().position(|family| side.starts_with(family)).unwrap_or(7),
    }
}

/// Draws to the SVG file `out`.
///
/// # Errors
/// Those of the filesystem; nothing to draw.
pub fn draw(drawing: &Drawing, out: &Path) -> Result<()> {
    let points = || drawing.series.iter().flat_map(|series| &series.points);
    let x = Scale::new(&drawing.x, points().map(|point| point.0))?;
    let y = Scale::new(&drawing.y, points().map(|point| point.1))?;
    let root = SVGBackend::new(out, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(&drawing.title, ("sans-serif", 20))
        .margin(12)
        .margin_right(LABELS)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .x_desc(&drawing.x.label)
        .y_desc(&drawing.y.label)
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(220, 220, 220))
        .draw()?;
    let mut ends = Vec::new();
    for (index, series) in drawing.series.iter().enumerate() {
        let colour = COLOURS[series.colour.unwrap_or(index) % COLOURS.len()];
        let style = colour.stroke_width(if series.strong { 4 } else { 2 });
        let line: Vec<_> = series.points.iter().map(|&(a, b)| (x.place(a), y.place(b))).collect();
        let lines = line.chunks(if series.spans { 2 } else { usize::MAX });
        for line in lines {
            if series.dashed {
                chart.draw_series(DashedLineSeries::new(line.iter().copied(), 7, 5, style))?;
            } else {
                chart.draw_series(LineSeries::new(line.iter().copied(), style))?;
            }
        }
        if line.len() <= MOST_DOTS {
            chart.draw_series(line.iter().map(|&at| Circle::new(at, 3, colour.filled())))?;
        }
        if let Some(&at) = line.last() {
            ends.push((chart.backend_coord(&at), series, colour));
        }
    }
    // Names that would lie over each other move apart, in their order.
    ends.sort_by_key(|((_, y), ..)| *y);
    let mut lowest = 0;
    for ((_, at), ..) in &mut ends {
        *at = (*at).max(lowest + 16);
        lowest = *at;
    }
    let mut limit = SIZE.1 as i32 - 40;
    for ((_, at), ..) in ends.iter_mut().rev() {
        *at = (*at).min(limit);
        limit = *at - 16;
    }
    for ((_, at), series, colour) in ends {
        let left = (SIZE.0 - LABELS) as i32 + 4;
        let key = [(left, at), (left + 18, at)];
        let style = colour.stroke_width(if series.strong { 4 } else { 2 });
        if series.dashed {
            for half in [(left, left + 7), (left + 11, left + 18)] {
                root.draw(&PathElement::new(vec![(half.0, at), (half.1, at)], style))?;
            }
        } else {
            root.draw(&PathElement::new(key.to_vec(), style))?;
        }
        let text = TextStyle::from(("sans-serif", 14).into_font()).color(&colour);
        root.draw(&Text::new(series.name.clone(), (left + 23, at - 7), text))?;
    }
    root.present()?;
    Ok(())
}

/// An axis with its range: a logarithmic one is linear in the logarithm.
#[derive(Clone)]
struct Scale {
    range: RangedCoordf64,
    bounds: std::ops::Range<f64>,
    log: bool,
    /// Every value that occurs, if they are few: the numbers of callers.
    values: Vec<f64>,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Result<Self> {
        let log = axis.log;
        let place = |value: f64| if log { value.log10() } else { value };
        let mut values: Vec<_> = values.map(place).filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let (Some(&low), Some(&high)) = (values.first(), values.last()) else {
            return Err("nothing to draw".into());
        };
        let margin = ((high - low) * 0.04).max(0.02);
        let low = if log || low < 0.0 { low - margin } else { 0.0 };
        let bounds = low..high + margin;
        if values.len() > 6 {
            values.clear();
        }
        Ok(Self { range: bounds.clone().into(), bounds, log, values })
    }

    fn place(&self, value: f64) -> f64 {
        if self.log { value.log10() } else { value }
    }
}

impl Ranged for Scale {
    type FormatOption = plotters::coord::ranged1d::NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.range.map(value, limit)
    }

    fn key_points<Hint: plotters::coord::ranged1d::KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if !self.log {
            return self.range.key_points(hint);
        }
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        if !self.values.is_empty() {
            return self.values.clone();
        }
        let first = self.bounds.start.floor() as i32;
        let last = self.bounds.end.ceil() as i32;
        (first..=last)
            .flat_map(|power| [1.0_f64, 2.0, 5.0].map(|step| f64::from(power) + step.log10()))
            .filter(|at| self.bounds.contains(at))
            .collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.bounds.clone()
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        let value = if self.log { 10_f64.powf(*value) } else { *value };
        match value {
            value if value >= 999_999.5 => format!("{:.3}M", value / 1e6).replace(".000", ""),
            value if value >= 9_999.5 => format!("{:.0}k", value / 1e3),
            value if value >= 9.5 || value.fract().abs() < 1e-6 => format!("{value:.0}"),
            value => format!("{value:.2}"),
        }
    }
}
