//! Turns of fill and expire.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oncekey::Options;
use oncekey_benches::side::{Keys, Pairs, Side};
use oncekey_benches::{Result, drive, size};
use oncekey_testing::ManualClock;
use serde::Serialize;

use crate::{FILLERS, fill};

/// The default TTL, and as many steps of a turn as it has hours.
const HOURS: u64 = 24;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keys of one turn
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of each response
    #[arg(long, default_value_t = 1024)]
    response: usize,
    /// Turns
    #[arg(long, default_value_t = 10)]
    turns: u64,
    /// Let a turn expire at once before the next begins; without it keys come and go by the hour
    #[arg(long)]
    at_once: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    keys: u64,
    response: usize,
    at_once: bool,
    turns: Vec<Turn>,
    /// The largest peak by that of the first turn; 1.3 is the most promised.
    growth: f64,
}

#[derive(Debug, Serialize)]
struct Turn {
    /// The most that the directory took.
    peak_bytes: u64,
    /// What it took after the last sweep.
    end_bytes: u64,
    /// Records in the store file after the last sweep.
    records: u64,
}

/// Time is moved by hand; a step is an hour, after which the expired are swept.
pub(crate) fn run(dir: &Path, args: &Args) -> Result<Report> {
    let dir = dir.join("turns");
    let clock = ManualClock::new();
    let engine = Options::new()
        .clock(Arc::new(clock.clone()))
        .sweep_interval(Duration::from_secs(86_400))
        .open(&dir)?;
    let side = Side::engine(engine.clone(), args.response, &Keys::new());
    let mut turns = Vec::new();
    for number in 1..=args.turns {
        let mut peak_bytes = 0;
        if args.at_once {
            fill(&side, args.keys)?;
            peak_bytes = size::directory(&dir)?;
            clock.advance(Duration::from_secs(3600 * (HOURS + 2)));
            engine.sweep()?;
        } else {
            for _ in 0..HOURS {
                drive::pairs(&side, FILLERS, args.keys / HOURS)?;
                side.settle()?;
                peak_bytes = peak_bytes.max(size::directory(&dir)?);
                clock.advance(Duration::from_secs(3600));
                engine.sweep()?;
            }
        }
        let end_bytes = size::directory(&dir)?;
        let records = engine.stats().folded_records;
        eprintln!(
            "turn {number} of {}: peak {} MiB, end {} MiB, {records} records",
            args.turns,
            peak_bytes >> 20,
            end_bytes >> 20
        );
        turns.push(Turn { peak_bytes, end_bytes, records });
    }
    let peaks = turns.iter().map(|turn| turn.peak_bytes);
    let first = turns.first().map_or(1, |turn| turn.peak_bytes);
    let growth = peaks.max().unwrap_or(0) as f64 / first as f64;
    Ok(Report { keys: args.keys, response: args.response, at_once: args.at_once, turns, growth })
}
