//! Processes of a fleet that are killed with -9, and stopped beyond their lease, at random, while each runs
//! orders whose rows and responses are one commit. Then: as many orders as keys, and a history of the rows,
//! written by a trigger, without a violation.
//!
//! `hammer URL [seconds] [processes] [stops: 0 or 1]`. The database must be empty.

use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use oncekey::{Begin, Claim, Engine, Fingerprint, Key};
use oncekey_postgres::{CompleteIn, Options};
use tokio_postgres::{Client, NoTls};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Keys are used for about as long as it takes to come to this many behind the newest.
const WINDOW: u64 = 24;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let url = args.first().ok_or("hammer URL [seconds] [processes] [stops]")?.clone();
    let number =
        |at: usize, default: u64| args.get(at).and_then(|arg| arg.parse().ok()).unwrap_or(default);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if args.get(1).is_some_and(|arg| arg == "child") {
        return runtime.block_on(child(&url, number(2, 0), number(3, 0)));
    }
    let (seconds, processes, stops) = (number(1, 20), number(2, 4), number(3, 0) == 1);
    runtime.block_on(prepare(&url))?;
    let (kills, stopped, start) = torment(&url, seconds, processes as usize, stops)?;
    runtime.block_on(check(&url, start, kills, stopped))
}

fn engine(url: &str) -> Result<Engine> {
    let start = Instant::now();
    loop {
        match Options::new(url).create(true).lease(Duration::from_secs(1)).open() {
            Ok(engine) => return Ok(engine),
            Err(error) if start.elapsed() > Duration::from_secs(30) => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn prepare(url: &str) -> Result<()> {
    engine(url)?.close()?;
    let client = connect(url).await?;
    client.batch_execute("CREATE TABLE orders (name text NOT NULL, token text NOT NULL)").await?;
    client.batch_execute(include_str!("audit.sql")).await?;
    Ok(())
}

/// Milliseconds of the wall clock.
fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64)
}

/// The newest key at this moment; all processes agree nearly.
fn newest(start: u64) -> u64 {
    now().saturating_sub(start) / 20
}

fn torment(url: &str, seconds: u64, processes: usize, stops: bool) -> Result<(u64, u64, u64)> {
    let start = now();
    let end = start + seconds * 1_000;
    let spawn = || -> Result<Child> {
        let arguments = ["child".to_owned(), start.to_string(), end.to_string()];
        Ok(Command::new(std::env::current_exe()?).arg(url).args(arguments).spawn()?)
    };
    let mut children = (0..processes).map(|_| spawn()).collect::<Result<Vec<_>>>()?;
    let mut noise = oorandom::Rand64::new(u128::from(start));
    println!("seed {start}");
    let (mut kills, mut stopped) = (0, 0);
    while now() + 1_000 < end {
        std::thread::sleep(Duration::from_millis(100 + noise.rand_range(0..500)));
        let which = noise.rand_range(0..processes as u64) as usize;
        let id = children[which].id().to_string();
        if stops && noise.rand_range(0..3) == 0 {
            // Longer than the lease: it is declared ended while it lives.
            Command::new("kill").args(["-STOP", &id]).status()?;
            std::thread::sleep(Duration::from_millis(2_500));
            Command::new("kill").args(["-CONT", &id]).status()?;
            stopped += 1;
        } else {
            children[which].kill()?;
            children[which].wait()?;
            children[which] = spawn()?;
            kills += 1;
        }
    }
    for child in &mut children {
        child.wait()?;
    }
    Ok((kills, stopped, start))
}

async fn child(url: &str, start: u64, end: u64) -> Result<()> {
    let engine = engine(url)?;
    let mut client = connect(url).await?;
    let mut noise = oorandom::Rand64::new(u128::from(std::process::id()) << 64 | u128::from(now()));
    while now() < end {
        let newest = newest(start);
        let name = newest.saturating_sub(noise.rand_range(0..WINDOW)).to_string();
        if let Some(claim) = claim(&engine, &name).await {
            match noise.rand_range(0..10) {
                0 => drop(claim),
                1 => drop(claim.abort().await),
                _ => drop(order(&mut client, claim, noise.rand_range(0..30)).await),
            }
        }
    }
    engine.close()?;
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

/// Ends what the killed left, and looks at everything.
async fn check(url: &str, start: u64, kills: u64, stopped: u64) -> Result<()> {
    let engine = engine(url)?;
    let mut client = connect(url).await?;
    let last = newest(start);
    for number in 0..=last {
        let name = number.to_string();
        let key = Key::new("orders", &name)?;
        let patience = Instant::now();
        loop {
            let fingerprint = Fingerprint::builder().part("body", &name).finish();
            let claim = match engine.begin(&key, fingerprint).await? {
                Begin::Replay(recorded) if recorded.response() == Some(name.as_bytes()) => break,
                Begin::Claimed(claim) => claim,
                Begin::Orphaned(orphan) => orphan.take_over().await?,
                Begin::Locked(_) if patience.elapsed() < Duration::from_secs(60) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                other => return Err(format!("{name}: {other:?}").into()),
            };
            order(&mut client, claim, 0).await?;
        }
    }
    let mut bad = 0;
    let twice = "SELECT 'a key has not one order', count(*) FROM (SELECT name FROM orders GROUP BY name HAVING count(*) <> 1) t";
    for row in client
        .query(&format!("SELECT what, number FROM oncekey.violation UNION ALL {twice}"), &[])
        .await?
    {
        let (what, found): (String, i64) = (row.get(0), row.get(1));
        if found > 0 {
            println!("VIOLATION: {what}: {found}");
            bad += found;
        }
    }
    let count =
        async |query: &str| client.query_one(query, &[]).await.map(|row| row.get::<_, i64>(0));
    let orders = count("SELECT count(*) FROM orders").await?;
    let changes = count("SELECT count(*) FROM oncekey.audit").await?;
    let over =
        count("SELECT count(*) FROM oncekey.audit WHERE token = version AND attempt > 1").await?;
    println!(
        "{kills} kills, {stopped} stops, {} keys, {orders} orders, {over} taken over, {changes} changes, {bad} violations",
        last + 1
    );
    if bad > 0 || orders != last as i64 + 1 { Err("violated".into()) } else { Ok(()) }
}
