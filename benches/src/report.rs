//! The figures of a run, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use crate::Result;
use crate::drive::{Slice, histogram};

/// Everything that one run of the program measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Bytes of each response.
    pub response: usize,
    /// Live keys in the side called `full`, 0 without it.
    pub preload: u64,
    /// One for each number of callers.
    pub runs: Vec<Run>,
    /// Milliseconds to open the store after each `kill -9`.
    pub reopen_ms: Vec<f64>,
}

/// All sides at one number of callers.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// How many callers.
    pub callers: usize,
    /// The sides, the yardstick last.
    pub sides: Vec<Figures>,
}

/// One side at one number of callers.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// The measurement.
    pub side: &'static str,
    /// The median over the slices.
    pub pairs_per_second: f64,
    /// Pairs per second of each slice, in order.
    pub slices: Vec<f64>,
    /// Half of all pairs took at most that long.
    pub p50_us: f64,
    /// 99 of 100 pairs took at most that long.
    pub p99_us: f64,
    /// 999 of 1000 pairs took at most that long.
    pub p999_us: f64,
    /// CPU time of the whole process, callers included.
    pub cpu_us_per_pair: f64,
    /// Bytes sent to the storage layer.
    pub written_per_pair: f64,
    /// Folds over all slices.
    pub folds: u64,
}

impl Figures {
    /// Sums the slices of one side up.
    ///
    /// # Errors
    /// No slice.
    pub fn new(side: &'static str, slices: &[Slice]) -> Result<Self> {
        let mut latencies = histogram()?;
        for slice in slices {
            latencies.add(&slice.latencies)?;
        }
        let pairs = slices.iter().map(|slice| slice.pairs).sum::<u64>().max(1) as f64;
        let cpu: f64 = slices.iter().map(|slice| slice.usage.cpu.as_secs_f64()).sum();
        let written: u64 = slices.iter().map(|slice| slice.usage.written).sum();
        let rates: Vec<_> = slices.iter().map(Slice::rate).collect();
        let micros = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Self {
            side,
            pairs_per_second: median(&rates).ok_or("a side without a slice")?,
            slices: rates,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            cpu_us_per_pair: cpu * 1e6 / pairs,
            written_per_pair: written as f64 / pairs,
            folds: slices.iter().map(|slice| slice.folds).sum(),
        })
    }
}

impl Run {
    /// The median over the rounds of the side's speed as a multiple of the yardstick's in the same
    /// round. The ratio does not change when the machine is faster in one round than in the next.
    fn paired(side: &Figures, yardstick: &Figures) -> f64 {
        let rounds = side.slices.iter().zip(&yardstick.slices);
        let ratios: Vec<_> = rounds.map(|(side, yardstick)| side / yardstick).collect();
        median(&ratios).unwrap_or(f64::NAN)
    }

    fn side(&self, name: &str) -> Option<&Figures> {
        self.sides.iter().find(|side| side.side == name)
    }
}

/// The middle value; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (upper + sorted[sorted.len() / 2 - 1]) / 2.0 })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>7}  {:<8}{:>9}{:>7}{:>8}{:>9}{:>9}{:>10}{:>9}{:>8}{:>7}",
            "callers",
            "side",
            "pairs/s",
            "ratio",
            "paired",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "cpu us",
            "bytes",
            "folds"
        )?;
        for run in &self.runs {
            let Some(yardstick) = run.sides.last() else {
                continue;
            };
            for side in &run.sides {
                writeln!(
                    f,
                    "{:>7}  {:<8}{:>9.0}{:>7.3}{:>8.3}{:>9.0}{:>9.0}{:>10.0}{:>9.2}{:>8.0}{:>7}",
                    run.callers,
                    side.side,
                    side.pairs_per_second,
                    side.pairs_per_second / yardstick.pairs_per_second,
                    Run::paired(side, yardstick),
                    side.p50_us,
                    side.p99_us,
                    side.p999_us,
                    side.cpu_us_per_pair,
                    side.written_per_pair,
                    side.folds
                )?;
            }
        }
        for run in &self.runs {
            if let (Some(full), Some(empty)) = (run.side("full"), run.side("engine")) {
                writeln!(
                    f,
                    "{:>7}  on {} live keys / on an empty store: {:.3}, paired {:.3}",
                    run.callers,
                    self.preload,
                    full.pairs_per_second / empty.pairs_per_second,
                    Run::paired(full, empty)
                )?;
            }
        }
        if let Some(middle) = median(&self.reopen_ms) {
            let all: Vec<_> = self.reopen_ms.iter().map(|ms| format!("{ms:.0}")).collect();
            writeln!(f, "open after kill -9: median {middle:.0} ms ({})", all.join(", "))?;
        }
        write!(f, "ratio: to the last side of each number of callers, medians over slices")
    }
}
