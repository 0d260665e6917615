//! A new store: how long opening takes, how many bytes it begins with, and whether it is slower for being small.

use std::path::Path;
use std::time::{Duration, Instant};

use oncekey::Options;
use oncekey_benches::drive::{self, Callers};
use oncekey_benches::side::{Keys, Side};
use oncekey_benches::{Result, size};
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// New stores with default options, opened one after another
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    opens: u32,
    /// Callers, tasks of one thread
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Slices of each side, in turns
    #[arg(long, default_value_t = 5)]
    slices: usize,
    /// Seconds of a slice
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Bytes of each response
    #[arg(long, default_value_t = 1024)]
    response: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    opens: u32,
    open_ms: Spread,
    /// Of a new store that was opened and not used.
    directory_bytes: u64,
    callers: usize,
    response: usize,
    /// Default options: the first segments are small, the later ones grow.
    growing: Pace,
    /// The first segments are nearly as large as segments become.
    large_at_once: Pace,
    growing_to_large: f64,
}

#[derive(Debug, Serialize)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Result<Self> {
        figures.sort_by(f64::total_cmp);
        let (&[least, ..], &[.., most]) = (&figures[..], &figures[..]) else {
            return Err("no figures".into());
        };
        Ok(Self { median: figures[figures.len() / 2], least, most })
    }
}

#[derive(Debug, Serialize)]
struct Pace {
    /// The median over the slices.
    pairs_per_second: f64,
    /// In order: the first begins with a new store.
    slices: Vec<f64>,
    /// Of the directory in the end.
    directory_bytes: u64,
}

pub(crate) fn run(dir: &Path, args: &Args) -> Result<Report> {
    let (open_ms, directory_bytes) = open(dir, args)?;
    eprintln!("open: median {:.1} ms, {directory_bytes} bytes", open_ms.median);
    // The first segments hold two of the longest responses.
    let sides = [("growing", Options::new()), ("large", Options::new().max_response(15 << 20))];
    let keys = Keys::new();
    let mut stores = Vec::new();
    for (name, options) in sides {
        let side = Side::engine(options.open(dir.join(name))?, args.response, &keys);
        stores.push((name, side, Vec::new()));
    }
    let length = Duration::from_secs(args.seconds);
    for turn in 0..args.slices {
        // Each side is first as often as the other.
        let swap = turn % 2;
        for index in [swap, 1 - swap] {
            let (name, side, rates) = &mut stores[index];
            let rate = drive::slice(side, Callers::Tasks(args.callers), length)?.rate();
            side.quiesce()?;
            eprintln!("{name}: {rate:.0} pairs/s");
            rates.push(rate);
        }
    }
    let mut paces = Vec::new();
    for (name, _, slices) in stores {
        let pairs_per_second = Spread::of(slices.clone())?.median;
        let directory_bytes = size::directory(&dir.join(name))?;
        paces.push(Pace { pairs_per_second, slices, directory_bytes });
    }
    let Ok([growing, large_at_once]) = <[Pace; 2]>::try_from(paces) else {
        return Err("a side is missing".into());
    };
    Ok(Report {
        opens: args.opens,
        open_ms,
        directory_bytes,
        callers: args.callers,
        response: args.response,
        growing_to_large: growing.pairs_per_second / large_at_once.pairs_per_second,
        growing,
        large_at_once,
    })
}

/// Opens new stores, and removes each.
fn open(dir: &Path, args: &Args) -> Result<(Spread, u64)> {
    let store = dir.join("new");
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for _ in 0..args.opens {
        let start = Instant::now();
        let engine = Options::new().open(&store)?;
        taken.push(start.elapsed().as_secs_f64() * 1e3);
        bytes = bytes.max(size::directory(&store)?);
        engine.close()?;
        std::fs::remove_dir_all(&store)?;
    }
    Ok((Spread::of(taken)?, bytes))
}
