//! Callers: a number of them keep one side busy for one slice of time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_executor::LocalPool;
use futures_util::task::LocalSpawnExt;
use hdrhistogram::Histogram;

use crate::Result;
use crate::side::Pairs;
use crate::usage::Usage;

/// How callers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Tasks of one thread.
    Tasks(usize),
    /// A thread each.
    Threads(usize),
}

/// The result of one slice.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Pairs that were answered.
    pub pairs: u64,
    /// Until the last was answered and the side had settled.
    pub elapsed: Duration,
    /// Its cost.
    pub usage: Usage,
    /// Folds that ended within.
    pub folds: u64,
    /// Latencies of pairs, in nanoseconds.
    pub latencies: Histogram<u64>,
}

impl Slice {
    /// Pairs per second.
    pub fn rate(&self) -> f64 {
        self.pairs as f64 / self.elapsed.as_secs_f64()
    }
}

/// Latencies up to a minute, to three digits.
///
/// # Errors
/// None: the bounds are valid.
pub fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// When a caller stops.
#[derive(Clone, Copy, Debug)]
enum Stop {
    At(Instant),
    After(u64),
}

/// Lets `callers` do pairs on `side` for `duration`, then settles it.
///
/// # Errors
/// The first of any caller, or of settling.
pub fn slice(side: &impl Pairs, callers: Callers, duration: Duration) -> Result<Slice> {
    let (folds, usage, start) = (side.folds(), side.usage()?, Instant::now());
    let latencies = run(side, callers, |_| Stop::At(start + duration))?;
    side.settle()?;
    Ok(Slice {
        pairs: latencies.len(),
        elapsed: start.elapsed(),
        usage: side.usage()?.since(usage),
        folds: side.folds() - folds,
        latencies,
    })
}

/// Lets `callers` tasks do `pairs` pairs on `side`, without a measurement.
///
/// # Errors
/// The first of any caller.
pub fn pairs(side: &impl Pairs, callers: usize, pairs: u64) -> Result<()> {
    let callers = callers.max(1) as u64;
    let share = |index| pairs / callers + u64::from(index < pairs % callers);
    run(side, Callers::Tasks(callers as usize), |index| Stop::After(share(index)))?;
    Ok(())
}

fn run(side: &impl Pairs, callers: Callers, stop: impl Fn(u64) -> Stop) -> Result<Histogram<u64>> {
    match callers {
        Callers::Tasks(count) => run_tasks(side, count as u64, stop),
        Callers::Threads(count) => run_threads(side, count as u64, stop),
    }
}

fn run_tasks(side: &impl Pairs, count: u64, stop: impl Fn(u64) -> Stop) -> Result<Histogram<u64>> {
    let latencies = Rc::new(RefCell::new(histogram()?));
    let failure = Rc::new(RefCell::new(None));
    let mut pool = LocalPool::new();
    for index in 0..count {
        let (side, stop) = (side.clone(), stop(index));
        let (latencies, failure) = (latencies.clone(), failure.clone());
        pool.spawner().spawn_local(async move {
            let mut done = 0;
            loop {
                let begun = Instant::now();
                if stop.is_due(begun, done) || failure.borrow().is_some() {
                    return;
                }
                if let Err(error) = side.pair().await {
                    *failure.borrow_mut() = Some(error);
                    return;
                }
                latencies.borrow_mut().saturating_record(nanos(begun.elapsed()));
                done += 1;
            }
        })?;
    }
    pool.run();
    match failure.take() {
        Some(error) => Err(error),
        None => Ok(latencies.take_or_clone()),
    }
}

fn run_threads(
    side: &impl Pairs,
    count: u64,
    stop: impl Fn(u64) -> Stop,
) -> Result<Histogram<u64>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|index| {
                let stop = stop(index);
                scope.spawn(move || run_thread(side, stop))
            })
            .collect();
        threads.into_iter().try_fold(histogram()?, |mut sum, thread| {
            sum.add(thread.join().map_err(|_| "a caller panicked")??)?;
            Ok(sum)
        })
    })
}

fn run_thread(side: &impl Pairs, stop: Stop) -> Result<Histogram<u64>> {
    let mut latencies = histogram()?;
    loop {
        let begun = Instant::now();
        if stop.is_due(begun, latencies.len()) {
            return Ok(latencies);
        }
        side.pair_blocking()?;
        latencies.saturating_record(nanos(begun.elapsed()));
    }
}

impl Stop {
    fn is_due(self, now: Instant, done: u64) -> bool {
        match self {
            Self::At(at) => now >= at,
            Self::After(pairs) => done >= pairs,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Takes the value out when it has no other holder.
trait TakeOrClone<T> {
    fn take_or_clone(self) -> T;
}

impl<T: Clone> TakeOrClone<T> for Rc<RefCell<T>> {
    fn take_or_clone(self) -> T {
        Rc::try_unwrap(self).map_or_else(|shared| shared.borrow().clone(), RefCell::into_inner)
    }
}
