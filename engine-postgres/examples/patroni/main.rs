//! Failovers of a PostgreSQL that Patroni keeps, with etcd, three members of each on this machine: the leader is
//! killed, stopped, cut off or asked to hand over, while engines run operations. Nothing that was
//! acknowledged may be lost, and no key be granted twice.
//!
//! `patroni DIR [failovers] [minutes]`. The campaign goes on where it stopped: DIR keeps the cluster, every
//! key that was acknowledged and a line for each failover. Needs a patroni of 3.0.4 or later, Debian's etcd-server,
//! a PostgreSQL (the newest that is installed, or the one whose folder `ONCEKEY_POSTGRES_BIN` names) and the ports from 24000 on.

mod cluster;
mod load;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use cluster::{Blow, Cluster};
use load::Load;
use tokio_postgres::NoTls;

type Error = Box<dyn std::error::Error>;
type Result<T> = std::result::Result<T, Error>;

const PORT: u16 = 24_000;

/// How long a cluster may take to have another leader, or to be whole again, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Keys that are asked for after each failover.
const ASKED: usize = 300;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("patroni DIR [failovers] [minutes]")?);
    let failovers: usize = args.next().map_or(Ok(200), |n| n.parse())?;
    let minutes: u64 = args.next().map_or(Ok(60), |n| n.parse())?;
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let run = SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
    let mut cluster = Cluster::start(&dir, PORT)?;
    let (leader, timeline) = cluster.healthy(PATIENCE)?;
    println!("m{leader} leads on timeline {timeline}");
    let url = cluster.url();
    let mut load = Load::start(&url, run, &dir.join("acknowledged"))?;
    let outcome = strike(&dir, &mut cluster, &load, failovers, end);
    load.stop();
    let outcome = outcome.and_then(|()| cluster.healthy(PATIENCE).map(drop));
    let Left { missing, second_lanes } = left(&url, &dir.join("acknowledged"))?;
    let (violations, granted, unknown) = load.told();
    let done = lines(&dir.join("failovers"))?.len();
    println!(
        "{done} failovers in all; this run: {granted} keys granted, {unknown} answers unknown or refused; \
         {second_lanes} instances with two groups at once; {} acknowledged in all, {} lost; violations: {violations:?}",
        lines(&dir.join("acknowledged"))?.iter().collect::<HashSet<_>>().len(),
        missing.len()
    );
    outcome?;
    if second_lanes == 0 {
        return Err("no engine had two groups under way".into());
    }
    if missing.is_empty() && violations.is_empty() { Ok(()) } else { Err("violated".into()) }
}

fn lines(path: &Path) -> Result<Vec<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn strike(
    dir: &Path,
    cluster: &mut Cluster,
    load: &Load,
    failovers: usize,
    end: Instant,
) -> Result<()> {
    let record = dir.join("failovers");
    let mut done = lines(&record)?.len();
    let mut record = fs::File::options().create(true).append(true).open(record)?;
    let mut noise = oorandom::Rand64::new(SystemTime::UNIX_EPOCH.elapsed()?.as_nanos());
    while done < failovers && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(noise.rand_range(500..3_000)));
        let blow = Blow::ALL[noise.rand_range(0..Blow::ALL.len() as u64) as usize];
        let start = Instant::now();
        println!("{blow:?} …");
        let (leader, timeline) = cluster.strike(blow, PATIENCE)?;
        let told = load.acknowledged();
        let led = start.elapsed().as_secs_f64();
        let step = (told.len() / ASKED).max(1);
        let asked: Vec<_> = told.iter().step_by(step).cloned().collect();
        // By an engine that lived through it, and by one that did not.
        let mut missing = load::all_there(&load.engines[done % load.engines.len()], &asked)?;
        cluster.healthy(PATIENCE)?;
        missing.extend(load::all_there(&load::open(&cluster.url())?, &asked)?);
        if let Some(missing) = missing.first() {
            return Err(format!("lost: {missing}").into());
        }
        done += 1;
        let line = format!(
            "{blow:?}: m{leader} leads on timeline {timeline} after {led:.1} s, whole after {:.1} s, {} of {} acknowledged asked for",
            start.elapsed().as_secs_f64(),
            asked.len(),
            told.len()
        );
        println!("{done}: {line}");
        writeln!(record, "{line}")?;
    }
    Ok(())
}

/// The store after a run.
struct Left {
    /// Acknowledged keys, of all runs, that are not completed in the store.
    missing: Vec<String>,
    /// Instances that had two groups under way at once.
    second_lanes: i64,
}

fn left(url: &str, acknowledged: &Path) -> Result<Left> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (completed, second_lanes) = runtime.block_on(async {
        let mut config: tokio_postgres::Config = url.parse()?;
        config.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        // Of an empty scope: its length, then the key.
        let query = "SELECT substr(identity, 2) FROM oncekey.key WHERE state = 3";
        let rows = client.query(query, &[]).await?;
        let completed: HashSet<Vec<u8>> = rows.iter().map(|row| row.get(0)).collect();
        let query = "SELECT count(*) FROM oncekey.mark WHERE lane = 1 AND number > 0";
        Ok::<_, Error>((completed, client.query_one(query, &[]).await?.get(0)))
    })?;
    let names = lines(acknowledged)?;
    let missing = names.into_iter().filter(|name| !completed.contains(name.as_bytes())).collect();
    Ok(Left { missing, second_lanes })
}
