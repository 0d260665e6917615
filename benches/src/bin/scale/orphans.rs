//! Many orphans with checkpoints: how long opening takes, and how much memory.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use oncekey::{Begin, Engine, Key, Options};
use oncekey_benches::side::{fingerprint, noise};
use oncekey_benches::{Result, size};
use serde::{Deserialize, Serialize};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Orphans
    #[arg(long, default_value_t = 100_000)]
    orphans: u64,
    /// Bytes of the checkpoint of each
    #[arg(long, default_value_t = 64 << 10)]
    checkpoint: usize,
    /// Times that the store is opened, each by a process of its own
    #[arg(long, default_value_t = 3)]
    opens: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    orphans: u64,
    checkpoint: usize,
    directory_bytes: u64,
    opened: Vec<Opened>,
}

/// What a process that opens the store tells.
#[derive(Debug, Serialize, Deserialize)]
struct Opened {
    open_ms: f64,
    /// The most memory until the store was open.
    peak_bytes: u64,
    list_ms: f64,
    orphans: u64,
    /// The most memory once all orphans were listed.
    peak_listed_bytes: u64,
    read_checkpoint_us: f64,
}

pub(crate) fn run(dir: &Path, args: &Args) -> Result<Report> {
    let store = dir.join("store");
    let engine = Options::new().max_checkpoint(args.checkpoint).open(&store)?;
    fill(&engine, args)?;
    engine.close()?;
    let directory_bytes = size::directory(&store)?;
    let mut opened = Vec::new();
    for number in 1..=args.opens {
        let child =
            Command::new(std::env::current_exe()?).arg("open-orphans").arg(&store).output()?;
        if !child.status.success() {
            return Err(String::from_utf8_lossy(&child.stderr).into_owned().into());
        }
        let open: Opened = serde_json::from_slice(&child.stdout)?;
        eprintln!("open {number} of {}: {:.0} ms", args.opens, open.open_ms);
        opened.push(open);
    }
    Ok(Report { orphans: args.orphans, checkpoint: args.checkpoint, directory_bytes, opened })
}

/// Claims, saves and drops in batches, so that groups are shared.
fn fill(engine: &Engine, args: &Args) -> Result<()> {
    const BATCH: u64 = 256;
    let data = noise(args.checkpoint);
    let start = Instant::now();
    for from in (0..args.orphans).step_by(BATCH as usize) {
        let numbers = from..args.orphans.min(from + BATCH);
        let begun: Vec<_> = numbers
            .map(|number| Ok(engine.begin(&Key::new("", number.to_string())?, fingerprint())))
            .collect::<Result<_>>()?;
        let mut claims = Vec::new();
        for pending in begun {
            match pending.wait()? {
                Begin::Claimed(claim) => claims.push(claim),
                other => return Err(format!("not claimed: {other:?}").into()),
            }
        }
        let saved: Vec<_> = claims.iter().map(|claim| claim.checkpoint(&data)).collect();
        saved.into_iter().try_for_each(|pending| pending.wait())?;
        drop(claims);
        // A disk that is slow at folding would refuse claims.
        engine.fold()?;
        if (from / BATCH).is_multiple_of(40) {
            let rate = from as f64 / start.elapsed().as_secs_f64();
            eprintln!("fill: {from} of {} orphans, {rate:.0} orphans/s", args.orphans);
        }
    }
    Ok(())
}

/// What the child does.
pub(crate) fn open_and_list(dir: &Path) -> Result<()> {
    let start = Instant::now();
    let engine = Options::new().open(dir)?;
    let open_ms = start.elapsed().as_secs_f64() * 1e3;
    let peak_bytes = size::peak_memory()?;
    let start = Instant::now();
    let orphans = engine.orphans()?;
    let list_ms = start.elapsed().as_secs_f64() * 1e3;
    let peak_listed_bytes = size::peak_memory()?;
    let start = Instant::now();
    let some = orphans.iter().step_by(orphans.len().div_ceil(100).max(1));
    let mut read = 0;
    for orphan in some {
        orphan.last_checkpoint()?.ok_or("an orphan has no checkpoint")?;
        read += 1;
    }
    let read_checkpoint_us = start.elapsed().as_secs_f64() * 1e6 / f64::from(read.max(1));
    let orphans = orphans.len() as u64;
    let opened =
        Opened { open_ms, peak_bytes, list_ms, orphans, peak_listed_bytes, read_checkpoint_us };
    println!("{}", serde_json::to_string(&opened)?);
    Ok(())
}
