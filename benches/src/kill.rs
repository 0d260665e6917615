//! The store of a killed process, and how long the next open takes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oncekey::Options;

use crate::side::{Keys, Side};
use crate::{Result, drive};

/// Callers that load the store until the kill.
const CALLERS: usize = 512;

/// Milliseconds to open the store in `dir` after each of `kills`: `child` starts a process that
/// calls [`load_until_killed`] on it.
///
/// # Errors
/// Those of the child and of the open.
pub fn open_times(dir: &Path, kills: u32, child: impl Fn() -> Result<Command>) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for kill in 1..=kills {
        let mut child = child()?.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        // Not at the same point between two folds each time.
        std::thread::sleep(Duration::from_millis(2000 + 370 * u64::from(kill)));
        child.kill()?;
        let status = child.wait()?;
        if status.code().is_some() {
            return Err("the child that was to be killed ended by itself".into());
        }
        let start = Instant::now();
        let engine = Options::new().open(dir)?;
        let elapsed = start.elapsed();
        let orphans = engine.stats().orphans;
        eprintln!("kill {kill} of {kills}: opened in {elapsed:.0?}, {orphans} claims are orphans");
        times.push(elapsed.as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Says that the store in `dir` is open, and loads it for ever.
///
/// # Errors
/// Those of the engine.
pub fn load_until_killed(dir: &Path, response: usize) -> Result<()> {
    let side = Side::engine(Options::new().open(dir)?, response, &Keys::new());
    println!("open");
    std::io::stdout().flush()?;
    loop {
        drive::pairs(&side, CALLERS, 10_000_000)?;
    }
}
