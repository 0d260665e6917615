//! The cost of a backup for callers of the engine meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use oncekey::Options;
use oncekey_benches::Result;
use oncekey_benches::drive::{Callers, Slice, slice};
use oncekey_benches::side::{Keys, Side};
use serde::Serialize;

use crate::fill;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Megabytes that the store holds before the backup
    #[arg(long, default_value_t = 2000)]
    megabytes: u64,
    /// Callers, tasks of one thread
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Bytes of each response
    #[arg(long, default_value_t = 1024)]
    response: usize,
    /// Seconds of one slice
    #[arg(long, default_value_t = 5)]
    slice: u64,
    /// Slices before each backup, and after the last
    #[arg(long, default_value_t = 4)]
    slices: usize,
    /// Backups, one after another
    #[arg(long, default_value_t = 2)]
    backups: usize,
    /// How fast the backup copies, in megabytes a second [default: that of the engine]
    #[arg(long)]
    rate: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    callers: usize,
    response: usize,
    store_bytes: u64,
    backup_seconds: Vec<f64>,
    /// Medians of the slices without a backup: those before each of them, and after the last.
    without: Medians,
    during: Medians,
    rate_to_without: f64,
    p99_to_without: f64,
}

#[derive(Debug, Serialize)]
struct Medians {
    slices: usize,
    pairs_per_second: f64,
    p99_us: f64,
}

impl Medians {
    fn of(slices: &[Slice]) -> Self {
        let p99 = |slice: &Slice| slice.latencies.value_at_quantile(0.99) as f64 / 1e3;
        Self {
            slices: slices.len(),
            pairs_per_second: median(slices.iter().map(Slice::rate).collect()),
            p99_us: median(slices.iter().map(p99).collect()),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn run(dir: &Path, args: &Args) -> Result<Report> {
    let mut options = Options::new();
    if let Some(rate) = args.rate {
        options = options.backup_bytes_per_second(Some(rate << 20));
    }
    let engine = options.open(dir.join("engine"))?;
    let side = Side::engine(engine.clone(), args.response, &Keys::new());
    fill(&side, args.megabytes * 1_000_000 / args.response as u64)?;
    side.quiesce()?;
    let measured = |what: &str| -> Result<Slice> {
        let length = Duration::from_secs(args.slice);
        let slice = slice(&side, Callers::Tasks(args.callers), length)?;
        let stats = engine.stats();
        let (copied, bytes) = (stats.backup_bytes_copied >> 20, stats.backup_bytes >> 20);
        eprintln!("{what}: {:.0} pairs/s; {copied} of {bytes} MiB copied", slice.rate());
        Ok(slice)
    };
    let (mut without, mut during, mut backup_seconds) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..args.backups {
        for _ in 0..args.slices {
            without.push(measured("without")?);
        }
        let (copier, target) = (engine.clone(), dir.join(format!("backup-{number}")));
        let started = Instant::now();
        let copying = std::thread::spawn(move || {
            copier.backup_to(target).map(|()| started.elapsed().as_secs_f64())
        });
        let mut beside = Vec::new();
        while !copying.is_finished() {
            beside.push(measured("during")?);
        }
        backup_seconds.push(copying.join().map_err(|_| "the backup panicked")??);
        // The last one may have outlived the backup.
        if beside.len() > 1 {
            beside.pop();
        }
        during.append(&mut beside);
    }
    for _ in 0..args.slices {
        without.push(measured("without")?);
    }
    let store_bytes = engine.stats().store_bytes;
    let (without, during) = (Medians::of(&without), Medians::of(&during));
    Ok(Report {
        callers: args.callers,
        response: args.response,
        store_bytes,
        backup_seconds,
        rate_to_without: during.pairs_per_second / without.pairs_per_second,
        p99_to_without: during.p99_us / without.p99_us,
        without,
        during,
    })
}
