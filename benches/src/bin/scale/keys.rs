//! Many live keys.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use oncekey::Options;
use oncekey_benches::drive::{self, Callers};
use oncekey_benches::report::{Figures, median};
use oncekey_benches::side::{Keys, Side};
use oncekey_benches::{Result, kill, size};
use serde::Serialize;

use crate::fill;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Live keys
    #[arg(long, default_value_t = 10_000_000)]
    keys: u64,
    /// Bytes of each response
    #[arg(long, default_value_t = 1024)]
    response: usize,
    /// Callers of the measurement
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Slices of each side, in turns
    #[arg(long, default_value_t = 10)]
    slices: usize,
    /// Seconds of one slice
    #[arg(long, default_value_t = 5)]
    slice: u64,
    /// Times that the store is killed and opened again
    #[arg(long, default_value_t = 5)]
    kills: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    keys: u64,
    response: usize,
    callers: usize,
    /// Memory before the store was opened, and after it was filled and quiet.
    memory_before_bytes: u64,
    memory_filled_bytes: u64,
    memory_bytes_per_key: f64,
    directory_bytes: u64,
    directory_bytes_per_key: f64,
    full: Figures,
    empty: Figures,
    /// The median of the ratios of slices that followed each other.
    full_to_empty: f64,
    open_after_kill_ms: Vec<f64>,
    /// Memory of a process of its own that opened the store at the end, and how many keys it had then.
    memory_opened_bytes: u64,
    keys_opened: u64,
}

pub(crate) fn run(dir: &Path, args: &Args) -> Result<Report> {
    let (full_dir, empty_dir) = (dir.join("full"), dir.join("empty"));
    let keys = Keys::new();
    let memory_before_bytes = size::memory()?;
    let full = Side::engine(Options::new().open(&full_dir)?, args.response, &keys);
    fill(&full, args.keys)?;
    full.quiesce()?;
    let memory_filled_bytes = size::memory()?;
    let directory_bytes = size::directory(&full_dir)?;
    eprintln!("filled: {} MiB of memory", memory_filled_bytes >> 20);

    let empty = Side::engine(Options::new().open(&empty_dir)?, args.response, &keys);
    let sides = [&full, &empty];
    let callers = Callers::Tasks(args.callers);
    let mut measured = [Vec::new(), Vec::new()];
    for side in sides {
        drive::slice(side, callers, Duration::from_millis(500))?;
        side.quiesce()?;
    }
    for round in 0..args.slices {
        for turn in 0..2 {
            let index = (round + turn) % 2;
            let slice = drive::slice(sides[index], callers, Duration::from_secs(args.slice))?;
            sides[index].quiesce()?;
            let name = ["full", "empty"][index];
            eprintln!(
                "{name}, slice {} of {}: {:.0} pairs/s",
                round + 1,
                args.slices,
                slice.rate()
            );
            measured[index].push(slice);
        }
    }
    let ratios: Vec<_> = measured[0]
        .iter()
        .zip(&measured[1])
        .map(|(full, empty)| full.rate() / empty.rate())
        .collect();
    let figures = (Figures::new("full", &measured[0])?, Figures::new("empty", &measured[1])?);
    drop((full, empty));
    let open_after_kill_ms = kill::open_times(&full_dir, args.kills, || {
        let mut child = Command::new(std::env::current_exe()?);
        child.arg("load-until-killed").arg(&full_dir).arg(format!("--response={}", args.response));
        Ok(child)
    })?;
    let opened =
        Command::new(std::env::current_exe()?).arg("open-and-measure").arg(&full_dir).output()?;
    let opened = String::from_utf8(opened.stdout)?;
    let (memory, keys) = opened.trim().split_once(' ').ok_or("the child measured nothing")?;
    let (memory_opened_bytes, keys_opened) = (memory.parse()?, keys.parse()?);
    Ok(Report {
        keys: args.keys,
        response: args.response,
        callers: args.callers,
        memory_before_bytes,
        memory_filled_bytes,
        memory_bytes_per_key: memory_filled_bytes as f64 / args.keys.max(1) as f64,
        directory_bytes,
        directory_bytes_per_key: directory_bytes as f64 / args.keys.max(1) as f64,
        full: figures.0,
        empty: figures.1,
        full_to_empty: median(&ratios).ok_or("no slice")?,
        open_after_kill_ms,
        memory_opened_bytes,
        keys_opened,
    })
}

/// What the child prints: memory in bytes, keys.
pub(crate) fn open_and_measure(dir: &Path) -> Result<()> {
    let engine = Options::new().open(dir)?;
    // Filters are loaded when a sweep is done.
    engine.sweep()?;
    println!("{} {}", size::memory()?, engine.stats().folded_records);
    Ok(())
}
