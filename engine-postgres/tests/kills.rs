//! Processes of a fleet are killed with -9, or stopped beyond their lease, at random. Each runs orders whose rows and
//! responses are one commit, and takes over the claims of the killed, as `Recovery::Retry` does. Beside them a crowd
//! of callers has two groups under way at once. At the end there are as many orders as keys, and the history of the rows,
//! which a trigger writes, has no violation.
//!
//! `ONCEKEY_KILLS` is the number of kills. `ONCEKEY_KILLS_URL` is the database of an earlier campaign that goes on:
//! its orders are counted and checked again.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use common::cluster;
use oncekey::{Begin, Claim, Engine, ErrorKind, Fingerprint, Key};
use oncekey_postgres::{CompleteIn, Options};
use tokio_postgres::{Client, NoTls};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A key is in use until there are about this many newer ones.
const WINDOW: u64 = 24;

/// Milliseconds from one new key to the next.
const PACE: u64 = 20;

/// So many callers of a process begin at once, and complete at once. It is enough for two groups.
const CROWD: u64 = 60;

const PROCESSES: usize = 4;
const LEASE: Duration = Duration::from_secs(1);

const TABLES: &str = "
    CREATE TABLE orders (name text NOT NULL, token text NOT NULL);
    CREATE TABLE run (number serial PRIMARY KEY, keys bigint NOT NULL, kills bigint NOT NULL, stops bigint NOT NULL)";

#[test]
fn killed_and_stopped_at_random_there_are_as_many_orders_as_keys() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = number("ONCEKEY_KILLS").unwrap_or(20);
    let url = match std::env::var("ONCEKEY_KILLS_URL") {
        Ok(url) => url,
        Err(_) => {
            let Some(cluster) = cluster() else { return };
            cluster.url(&cluster.database())
        }
    };
    let seed = number("ONCEKEY_SEED").unwrap_or_else(now);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(prepare(&url)).unwrap();
    let run = torment(&url, kills, seed).unwrap();
    runtime.block_on(check(&url, &run)).unwrap();
}

#[test]
fn a_process_of_the_fleet() {
    let Ok(url) = std::env::var("ONCEKEY_CHILD_URL") else { return };
    let start = std::env::var("ONCEKEY_CHILD_START").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(child(&url, start)).unwrap();
}

fn engine(url: &str) -> Result<Engine> {
    let start = Instant::now();
    loop {
        match Options::new(url).create(true).lease(LEASE).open() {
            Ok(engine) => return Ok(engine),
            Err(error) if start.elapsed() > Duration::from_secs(60) => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The tables, unless the campaign goes on.
async fn prepare(url: &str) -> Result<()> {
    engine(url)?.close()?;
    let client = connect(url).await?;
    if client.query_one("SELECT to_regclass('run') IS NULL", &[]).await?.get(0) {
        client.batch_execute(TABLES).await?;
        client.batch_execute(include_str!("audit.sql")).await?;
    }
    Ok(())
}

/// Milliseconds of the wall clock.
fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64)
}

/// The newest key at this moment, nearly the same in all processes.
fn newest(start: u64) -> u64 {
    now().saturating_sub(start) / PACE
}

/// A run of the campaign; its keys are named by its start.
struct Run {
    start: u64,
    last: u64,
    kills: u64,
    stops: u64,
}

fn spawn(url: &str, start: u64) -> Result<Child> {
    Ok(Command::new(std::env::current_exe()?)
        .args(["--exact", "a_process_of_the_fleet"])
        .env("ONCEKEY_CHILD_URL", url)
        .env("ONCEKEY_CHILD_START", start.to_string())
        // Its end is the end of the process.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?)
}

fn torment(url: &str, until: u64, seed: u64) -> Result<Run> {
    let start = now();
    println!("ONCEKEY_SEED={seed}, keys {start}-…");
    let mut children = (0..PROCESSES).map(|_| spawn(url, start)).collect::<Result<Vec<_>>>()?;
    let mut noise = oorandom::Rand64::new(u128::from(seed));
    let (mut kills, mut stops) = (0, 0);
    while kills < until {
        std::thread::sleep(Duration::from_millis(100 + noise.rand_range(0..500)));
        let which = noise.rand_range(0..PROCESSES as u64) as usize;
        let id = children[which].id().to_string();
        if noise.rand_range(0..8) == 0 {
            // The pause is longer than the lease: the process is declared ended while it lives.
            Command::new("kill").args(["-STOP", &id]).status()?;
            std::thread::sleep(Duration::from_millis(2_500));
            Command::new("kill").args(["-CONT", &id]).status()?;
            stops += 1;
        } else {
            children[which].kill()?;
            children[which].wait()?;
            children[which] = spawn(url, start)?;
            kills += 1;
        }
    }
    for child in &mut children {
        drop(child.stdin.take());
        child.wait()?;
    }
    Ok(Run { start, last: newest(start), kills, stops })
}

/// Runs orders until its standard input ends.
async fn child(url: &str, start: u64) -> Result<()> {
    let engine = engine(url)?;
    let mut client = connect(url).await?;
    let mut noise = oorandom::Rand64::new(u128::from(std::process::id()) << 64 | u128::from(now()));
    let asked = std::thread::spawn(|| std::io::stdin().lines().count());
    let crowd = std::thread::spawn({
        let engine = engine.clone();
        move || {
            let life = format!("{start}-{}", std::process::id());
            for turn in 0.. {
                match crowd(&engine, &format!("{life}-{turn}")) {
                    Err(error) if error.kind() == ErrorKind::Closed => return,
                    _ => std::thread::sleep(Duration::from_millis(500)),
                }
            }
        }
    });
    while !asked.is_finished() {
        let number = newest(start).saturating_sub(noise.rand_range(0..WINDOW));
        let name = format!("{start}-{number}");
        if let Some(claim) = claim(&engine, &name).await {
            match noise.rand_range(0..10) {
                0 => drop(claim),
                1 => drop(claim.abort().await),
                _ => drop(order(&mut client, claim, noise.rand_range(0..30)).await),
            }
        }
    }
    engine.close()?;
    crowd.join().map_err(|_| "the crowd panicked")?;
    Ok(())
}

/// New keys that are claimed at once and completed at once.
fn crowd(engine: &Engine, turn: &str) -> oncekey::Result<()> {
    let begins: Vec<_> = (0..CROWD)
        .map(|number| {
            let key = Key::new("crowd", format!("{turn}-{number}"))?;
            Ok(engine.begin(&key, Fingerprint::builder().finish()))
        })
        .collect::<oncekey::Result<_>>()?;
    let mut ends = Vec::new();
    for begin in begins {
        if let Begin::Claimed(claim) = begin.wait()? {
            ends.push(claim.complete(turn.as_bytes()));
        }
    }
    ends.into_iter().for_each(|end| drop(end.wait()));
    Ok(())
}

/// A claim of a new key, or of one whose owner is gone.
async fn claim(engine: &Engine, name: &str) -> Option<Claim> {
    let key = Key::new("orders", name).ok()?;
    let fingerprint = Fingerprint::builder().part("body", name).finish();
    match engine.begin(&key, fingerprint).await.ok()? {
        Begin::Claimed(claim) => Some(claim),
        Begin::Orphaned(orphan) => orphan.take_over().await.ok(),
        _ => None,
    }
}

/// The order and its response, in one commit.
async fn order(client: &mut Client, claim: Claim, millis: u64) -> Result<()> {
    let (name, token) = (String::from_utf8(claim.key().key().to_vec())?, claim.token().to_string());
    let mut transaction = client.transaction().await?;
    let insert = "INSERT INTO orders VALUES ($1, $2)";
    transaction.execute(insert, &[&name, &token]).await?;
    tokio::time::sleep(Duration::from_millis(millis)).await;
    let completed = claim.complete_in(&mut transaction, name.as_bytes()).await?;
    transaction.commit().await?;
    completed.committed();
    Ok(())
}

/// Completes a key that the killed left, or reads its response.
async fn settle(engine: &Engine, client: &mut Client, name: &str) -> Result<()> {
    let key = Key::new("orders", name)?;
    let patience = Instant::now();
    loop {
        let fingerprint = Fingerprint::builder().part("body", name).finish();
        let claim = match engine.begin(&key, fingerprint).await? {
            Begin::Replay(recorded) if recorded.response() == Some(name.as_bytes()) => {
                return Ok(());
            }
            Begin::Claimed(claim) => claim,
            Begin::Orphaned(orphan) => orphan.take_over().await?,
            Begin::Locked(_) if patience.elapsed() < Duration::from_secs(60) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            other => return Err(format!("{name}: {other:?}").into()),
        };
        order(client, claim, 0).await?;
    }
}

/// Ends the claims that the killed left, and checks every order of the campaign.
async fn check(url: &str, run: &Run) -> Result<()> {
    let engine = engine(url)?;
    let mut client = connect(url).await?;
    for number in 0..=run.last {
        settle(&engine, &mut client, &format!("{}-{number}", run.start)).await?;
    }
    let insert = "INSERT INTO run (keys, kills, stops) VALUES ($1, $2, $3)";
    let [keys, kills, stops] = [run.last + 1, run.kills, run.stops].map(|number| number as i64);
    client.execute(insert, &[&keys, &kills, &stops]).await?;
    let rows =
        client.query("SELECT what, number FROM oncekey.violation WHERE number > 0", &[]).await?;
    let violations: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let count =
        async |query: &str| client.query_one(query, &[]).await.map(|row| row.get::<_, i64>(0));
    let keys = count("SELECT sum(keys)::bigint FROM run").await?;
    let ordered = count("SELECT count(DISTINCT name) FROM orders").await?;
    let orders = count("SELECT count(*) FROM orders").await?;
    println!(
        "{} kills, {} stops, {keys} keys, {orders} orders, {} taken over, {} changes, violations: {violations:?}",
        count("SELECT sum(kills)::bigint FROM run").await?,
        count("SELECT sum(stops)::bigint FROM run").await?,
        count("SELECT count(*) FROM oncekey.audit WHERE token = version AND attempt > 1").await?,
        count("SELECT count(*) FROM oncekey.audit").await?,
    );
    let beside = count("SELECT sum(number)::bigint FROM oncekey.mark WHERE lane = 1").await?;
    assert!(beside > 0, "no group went beside another one");
    assert_eq!((orders, ordered), (keys, keys), "one order for each key");
    assert!(violations.is_empty());
    Ok(())
}
