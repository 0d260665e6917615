//! What the program does with the sides: pairs, replays, and a check that neither is faked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oncekey_benches::Result;
use oncekey_benches::drive::{self, Slice};
use oncekey_benches::report::{Figures, median};
use oncekey_benches::usage::Usage;

use crate::disk::Disk;
use crate::results::{Pairs, Replays, Results};
use crate::rival::{Rival, Side};
use crate::sides;
use crate::work::{Id, Ids, Work, mix};

/// The sequence of keys of records that are stored for replays.
const STORED: u64 = 1;

/// How long each side runs.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// Rounds, in each of which every side has one slice.
    pub rounds: usize,
    /// How long a slice is.
    pub slice: Duration,
}

/// Begin + complete pairs: all sides at `callers` callers, slice by slice in turns.
///
/// # Errors
/// Those of any side but a server that does not start: that is said, and it is left out.
pub fn pairs(
    dir: &Path,
    names: &[String],
    callers: usize,
    turns: Turns,
    work: &Work,
    results: &mut Results,
) -> Result<()> {
    let (ids, disk) = (Arc::new(Ids::new()), Arc::new(Disk::of(dir)?));
    let mut open = Vec::new();
    for name in names {
        match sides::open(name, &dir.join(name), work, callers) {
            Ok(rival) => open.push((name.clone(), Side::new(rival, ids.clone(), disk.clone()))),
            Err(error) if name.starts_with("redis") || name.starts_with("postgres") => {
                eprintln!("{name} does not take part: {error}");
                results.missing.push((name.clone(), error.to_string()));
            }
            Err(error) => return Err(format!("{name}: {error}").into()),
        }
    }
    let mut measured: Vec<Vec<Slice>> = vec![Vec::new(); open.len()];
    for (name, side) in &open {
        drive::slice(side, side.callers(callers), Duration::from_millis(500))
            .map_err(|error| format!("{name}: {error}"))?;
    }
    for round in 0..turns.rounds {
        for turn in 0..open.len() {
            // Every other round in reverse, so that no side always follows the same one.
            let index = if round % 2 == 0 { turn } else { open.len() - 1 - turn };
            let (name, side) = &open[index];
            // What others left in the page cache is neither this side's work nor its bytes.
            disk.sync()?;
            let slice = drive::slice(side, side.callers(callers), turns.slice)
                .map_err(|error| format!("{name}: {error}"))?;
            let (number, rate) = (round + 1, slice.rate());
            eprintln!("{callers} callers, {name}, slice {number}: {rate:.0} pairs/s");
            measured[index].push(slice);
        }
    }
    for ((name, _), slices) in open.iter().zip(&measured) {
        // The figures carry a static name, which is not used here.
        let figures = Figures::new("", slices)?;
        results.pairs.push(Pairs::new(name, callers, figures));
    }
    drop(open);
    for name in names {
        remove(&dir.join(name))?;
    }
    Ok(())
}

/// Replays of one side: `records` are stored, then asked for at random.
///
/// # Errors
/// Those of the side.
pub fn replays(
    dir: &Path,
    name: &str,
    records: u64,
    hot: u64,
    turns: Turns,
    work: &Work,
    results: &mut Results,
) -> Result<()> {
    let store = dir.join(name);
    let rival = sides::open(name, &store, work, 1)?;
    let mut ids: Vec<_> = (0..records).map(|number| Id::new(STORED, number)).collect();
    ids.sort_unstable();
    let start = Instant::now();
    rival.load(&ids)?;
    let load_seconds = start.elapsed().as_secs_f64();
    // Asked for in any order, so the order of keys must not matter.
    drop(ids);
    let mut asked = vec![records];
    if name == "oncekey" && hot < records {
        asked.push(hot);
    }
    for asked in asked {
        warm(&*rival, asked, work)?;
        for threads in [1, 2] {
            let mut rates = Vec::new();
            let mut per_cpu = Vec::new();
            for round in 0..turns.rounds {
                let (rate, cpu) = replay(&*rival, asked, threads, round as u64, turns.slice, work)?;
                rates.push(rate);
                per_cpu.push(cpu);
            }
            let replays_per_second = median(&rates).ok_or("no round")?;
            let replays_per_cpu_second = median(&per_cpu).ok_or("no round")?;
            eprintln!(
                "{name}, {asked} of {records} records, {threads} threads: \
                 {replays_per_second:.0} replays/s"
            );
            results.replays.push(Replays {
                side: name.to_owned(),
                records,
                asked,
                threads,
                replays_per_second,
                replays_per_cpu_second,
                rounds: rates,
                load_seconds,
            });
        }
    }
    drop(rival);
    remove(&store)
}

/// Asks for every record once, so that what fits in memory is there.
fn warm(rival: &dyn Rival, asked: u64, work: &Work) -> Result<()> {
    let (mut reader, mut out) = (rival.reader()?, Vec::new());
    for number in 0..asked {
        reader(&Id::new(STORED, number), &mut out)?;
        if out != work.response() {
            return Err("a replay is not the response".into());
        }
    }
    Ok(())
}

/// One round: replays per second, and per second of CPU time of the whole process.
fn replay(
    rival: &dyn Rival,
    asked: u64,
    threads: usize,
    round: u64,
    length: Duration,
    work: &Work,
) -> Result<(f64, f64)> {
    let readers = (0..threads).map(|_| rival.reader()).collect::<Result<Vec<_>>>()?;
    let (usage, start) = (Usage::now()?, Instant::now());
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = readers
            .into_iter()
            .enumerate()
            .map(|(thread, mut reader)| {
                scope.spawn(move || -> Result<u64> {
                    let (mut done, mut out) = (0, Vec::new());
                    let mut random = mix(round << 8 | thread as u64);
                    while start.elapsed() < length {
                        for _ in 0..64 {
                            random = mix(random);
                            reader(&Id::new(STORED, random % asked), &mut out)?;
                        }
                        done += 64;
                    }
                    (out == work.response()).then_some(done).ok_or("a wrong replay".into())
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<u64>>| {
            thread.join().map_err(|_| "a reader panicked")?
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let done = counts.iter().sum::<u64>() as f64;
    let cpu = Usage::now()?.since(usage).cpu.as_secs_f64();
    Ok((done / start.elapsed().as_secs_f64(), done / cpu))
}

/// Every embedded side does pairs for a moment and is closed; then every key that it answered must
/// be found, completed, in the reopened store.
///
/// # Errors
/// Those of any side; an answered key that is not there.
pub fn check(dir: &Path, callers: usize, turns: Turns, work: &Work) -> Result<()> {
    let (ids, disk) = (Arc::new(Ids::new()), Arc::new(Disk::of(dir)?));
    for name in sides::EMBEDDED {
        let (store, answered) = (dir.join(name), Arc::default());
        let failed = |error| format!("{name}: {error}");
        let rival = sides::open(name, &store, work, callers).map_err(failed)?;
        let side = Side::new(rival, ids.clone(), disk.clone()).recording(Arc::clone(&answered));
        for _ in 0..turns.rounds {
            drive::slice(&side, side.callers(callers), turns.slice).map_err(failed)?;
        }
        // What comes after the last settling is in the log or journal alone.
        drive::pairs(&side, callers, 100).map_err(failed)?;
        drop(side);
        let rival = sides::open(name, &store, work, callers).map_err(failed)?;
        let mut reader = rival.reader().map_err(failed)?;
        let mut out = Vec::new();
        let answered = std::mem::take(&mut *answered.lock());
        for id in &answered {
            reader(id, &mut out).map_err(failed)?;
            if out != work.response() {
                return Err(format!("{name}: a response is not the one recorded").into());
            }
        }
        if reader(&ids.fresh(), &mut out).is_ok() {
            return Err(format!("{name}: a key that was never used has a record").into());
        }
        println!("{name}: {} answered keys are all in the reopened store", answered.len());
        drop(reader);
        drop(rival);
        remove(&store)?;
    }
    Ok(())
}

fn remove(dir: &PathBuf) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
