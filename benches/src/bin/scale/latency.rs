//! Latency over time.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_executor::LocalPool;
use futures_util::task::LocalSpawnExt;
use hdrhistogram::Histogram;
use oncekey::Options;
use oncekey_benches::Result;
use oncekey_benches::drive::histogram;
use oncekey_benches::side::{Keys, Pairs, Side};
use oncekey_testing::ManualClock;
use serde::Serialize;

use crate::fill;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Callers, tasks of one thread
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Seconds of the engine; the raw limit has half of it before and half after
    #[arg(long, default_value_t = 90)]
    seconds: u64,
    /// Bytes of each response
    #[arg(long, default_value_t = 1024)]
    response: usize,
    /// Expired records that the sweep finds, which starts after half of the time
    #[arg(long, default_value_t = 1_000_000)]
    expired: u64,
    /// Milliseconds of one interval
    #[arg(long, default_value_t = 100)]
    interval: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    callers: usize,
    response: usize,
    expired: u64,
    interval_ms: u64,
    engine: Quantiles,
    /// The intervals during which the backup ran, which starts after a tenth of the time.
    engine_beside_backup: Quantiles,
    /// The intervals during which the sweep ran.
    engine_while_sweeping: Quantiles,
    raw: Quantiles,
    p99_to_raw: f64,
    p999_to_raw: f64,
    backup: Span,
    sweep: Span,
    intervals: Vec<Interval>,
}

/// When work in the background ran.
#[derive(Clone, Copy, Debug, Serialize)]
struct Span {
    began_ms: u64,
    ended_ms: u64,
}

impl Span {
    /// Runs `work` once `at` has passed since `start`.
    fn of(start: Instant, at: Duration, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        std::thread::sleep(at.saturating_sub(start.elapsed()));
        let began_ms = start.elapsed().as_millis() as u64;
        work()?;
        Ok(Self { began_ms, ended_ms: start.elapsed().as_millis() as u64 })
    }

    fn overlaps(self, from: Duration, width: Duration) -> bool {
        let ms = |moment: Duration| moment.as_millis() as u64;
        ms(from + width) > self.began_ms && ms(from) < self.ended_ms
    }
}

#[derive(Debug, Serialize)]
struct Quantiles {
    pairs: u64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

impl Quantiles {
    fn of(latencies: &Histogram<u64>) -> Self {
        let micros = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            pairs: latencies.len(),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            max_us: latencies.max() as f64 / 1e3,
        }
    }
}

#[derive(Debug, Serialize)]
struct Interval {
    from_ms: u64,
    /// Pairs that ended within.
    #[serde(flatten)]
    latency: Quantiles,
    /// Folds that ended within.
    folds: u64,
    /// Rows that the sweep removed within.
    swept: u64,
}

/// An interval's latencies, and what the engine had counted when its first pair ended.
struct Seen {
    latencies: Histogram<u64>,
    folds: u64,
    swept: u64,
}

pub(crate) fn run(dir: &Path, args: &Args) -> Result<Report> {
    let clock = ManualClock::new();
    let engine = Options::new()
        .clock(Arc::new(clock.clone()))
        .sweep_interval(Duration::from_secs(86_400))
        .open(dir.join("engine"))?;
    let side = Side::engine(engine.clone(), args.response, &Keys::new());
    let raw = Side::raw(&dir.join("raw"), args.response)?;
    fill(&side, args.expired)?;
    side.quiesce()?;
    clock.advance(Duration::from_secs(86_400 + 2 * 3600));

    let length = Duration::from_secs(args.seconds);
    let mut raw_latencies = histogram()?;
    raw_latencies.add(whole(&raw, args, length / 2)?)?;
    eprintln!("the engine for {} seconds", args.seconds);
    let start = Instant::now();
    let upkeep = {
        let (engine, copy) = (engine.clone(), dir.join("backup"));
        std::thread::spawn(move || -> Result<[Span; 2]> {
            let backup = Span::of(start, length / 10, || Ok(engine.backup_to(&copy)?))?;
            let sweep = Span::of(start, length / 2, || {
                eprintln!("sweep: {} records", engine.sweep()?);
                Ok(())
            })?;
            Ok([backup, sweep])
        })
    };
    let seen = drive(&side, args, start, length)?;
    let [backup, sweep] = upkeep.join().map_err(|_| "the upkeep panicked")??;
    raw_latencies.add(whole(&raw, args, length / 2)?)?;

    let interval = Duration::from_millis(args.interval);
    let (mut all, mut beside, mut sweeping) = (histogram()?, histogram()?, histogram()?);
    let mut intervals = Vec::new();
    for (index, seen_here) in seen.iter().enumerate() {
        let next = seen.get(index + 1).unwrap_or(seen_here);
        let from = interval * index as u32;
        all.add(&seen_here.latencies)?;
        if backup.overlaps(from, interval) {
            beside.add(&seen_here.latencies)?;
        }
        if sweep.overlaps(from, interval) {
            sweeping.add(&seen_here.latencies)?;
        }
        intervals.push(Interval {
            from_ms: from.as_millis() as u64,
            latency: Quantiles::of(&seen_here.latencies),
            folds: next.folds - seen_here.folds,
            swept: next.swept - seen_here.swept,
        });
    }
    let (engine, raw) = (Quantiles::of(&all), Quantiles::of(&raw_latencies));
    Ok(Report {
        callers: args.callers,
        response: args.response,
        expired: args.expired,
        interval_ms: args.interval,
        p99_to_raw: engine.p99_us / raw.p99_us,
        p999_to_raw: engine.p999_us / raw.p999_us,
        engine,
        engine_beside_backup: Quantiles::of(&beside),
        engine_while_sweeping: Quantiles::of(&sweeping),
        raw,
        backup,
        sweep,
        intervals,
    })
}

/// All latencies of a side over `length`.
fn whole(side: &Side, args: &Args, length: Duration) -> Result<Histogram<u64>> {
    let mut sum = histogram()?;
    for seen in drive(side, args, Instant::now(), length)? {
        sum.add(&seen.latencies)?;
    }
    Ok(sum)
}

/// Lets the callers do pairs on `side`, and sorts their latencies by the interval they ended in.
fn drive(side: &Side, args: &Args, start: Instant, length: Duration) -> Result<Vec<Seen>> {
    let intervals: Rc<RefCell<Vec<Seen>>> = Rc::default();
    let failure = Rc::new(RefCell::new(None));
    let mut pool = LocalPool::new();
    for _ in 0..args.callers {
        let (side, width) = (side.clone(), args.interval.max(1));
        let (intervals, failure) = (intervals.clone(), failure.clone());
        pool.spawner().spawn_local(async move {
            while start.elapsed() < length && failure.borrow().is_none() {
                let begun = Instant::now();
                let answer = side.pair().await.and_then(|()| {
                    let latency = begun.elapsed().as_nanos() as u64;
                    let index = start.elapsed().as_millis() as usize / width as usize;
                    record(&mut intervals.borrow_mut(), index, latency, &side)
                });
                if let Err(error) = answer {
                    *failure.borrow_mut() = Some(error);
                }
            }
        })?;
    }
    pool.run();
    match failure.take() {
        Some(error) => Err(error),
        None => Ok(intervals.take()),
    }
}

fn record(intervals: &mut Vec<Seen>, index: usize, latency: u64, side: &Side) -> Result<()> {
    while intervals.len() <= index {
        let swept = match side {
            Side::Engine { engine, .. } => engine.stats().swept,
            Side::Raw { .. } => 0,
        };
        intervals.push(Seen { latencies: histogram()?, folds: side.folds(), swept });
    }
    intervals[index].latencies.saturating_record(latency);
    Ok(())
}
