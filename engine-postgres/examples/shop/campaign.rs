//! The campaign: kills the servers, and compares the orders with the answers.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use oncekey_postgres::Options;
use oorandom::Rand64;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::Result;
use crate::client::{Clients, SERVERS};
use crate::server::TABLE;

const CLIENTS: usize = 8;
const LEASE: Duration = Duration::from_secs(1);

/// Longer than the lease: the other process may end this one while it lives.
const STOPPED: Duration = Duration::from_millis(2_500);

/// Keys are in `asked` before they are sent, strokes in `stroke` when they were done: both outlive a run.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS asked (key text PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS stroke (what text NOT NULL)";

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// One of the two servers. Dropped, it is killed.
struct Server {
    url: String,
    /// The first has a name, under which its successor ends it at once; the lease of the other has to run out.
    name: &'static str,
    child: Child,
}

impl Server {
    fn start(url: &str, at: usize) -> Result<(Self, String)> {
        let name = if at == 0 { "shop-0" } else { "" };
        let (child, address) = spawn(url, name)?;
        Ok((Self { url: url.to_owned(), name, child }, address))
    }

    /// Kills it with -9.
    fn kill(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("a server ended by itself: {status}").into());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts the successor of a killed server. Returns the address where it listens.
    fn start_again(&mut self) -> Result<String> {
        let (child, address) = spawn(&self.url, self.name)?;
        self.child = child;
        Ok(address)
    }

    async fn stop(&self) -> Result<()> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-STOP", &id]).status()?;
        tokio::time::sleep(STOPPED).await;
        Command::new("kill").args(["-CONT", &id]).status()?;
        Ok(())
    }
}

/// Starts a process that ends with this one.
fn spawn(url: &str, name: &str) -> Result<(Child, String)> {
    let lease = LEASE.as_millis().to_string();
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig=KILL", "--"])
        .arg(std::env::current_exe()?)
        .args(["serve", url, "127.0.0.1:0", &lease, name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut address = String::new();
    if let Some(said) = child.stdout.take() {
        BufReader::new(said).read_line(&mut address)?;
    }
    match address.trim() {
        "" => Err("a server did not start".into()),
        address => Ok((child, address.to_owned())),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

pub(crate) async fn run(url: &str, kills: u64, seed: Option<u64>) -> Result<()> {
    let now = SystemTime::UNIX_EPOCH.elapsed()?.as_millis() as u64;
    let seed = seed.unwrap_or(now);
    println!("seed {seed}");
    let start = Instant::now();
    let database = prepare(url).await?;
    let clients = Arc::new(Clients::new(now));
    let mut servers = Vec::new();
    for at in 0..SERVERS {
        let (server, address) = Server::start(url, at)?;
        clients.listens(at, &address);
        servers.push(server);
    }
    let mut sending = Vec::new();
    for number in 0..CLIENTS {
        let (clients, database) = (clients.clone(), connect(url).await?);
        let noise = Rand64::new(u128::from(seed) << 64 | number as u128);
        sending.push(tokio::spawn(async move { clients.send(&database, noise).await }));
    }
    let noise = Rand64::new(u128::from(seed) << 64 | CLIENTS as u128);
    strike(&database, &clients, &mut servers, &sending, kills, noise).await?;
    clients.stopped.store(true, Ordering::Relaxed);
    for sending in sending {
        sending.await??;
    }
    let struck = start.elapsed();
    settle(&database, &clients).await?;
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "this run: {} s, {} keys answered, {} answers replayed and equal, {} locked, {} unavailable, {} broken off",
        struck.as_secs(),
        clients.answered(),
        count(&clients.replayed),
        count(&clients.locked),
        count(&clients.unavailable),
        count(&clients.broken),
    );
    check(&database, &clients).await
}

/// The tables, unless the campaign goes on in them.
async fn prepare(url: &str) -> Result<Client> {
    Options::new(url).create(true).open()?.close()?;
    let database = connect(url).await?;
    database.batch_execute(TABLE).await?;
    database.batch_execute(TABLES).await?;
    if database.query_one("SELECT to_regclass('oncekey.audit') IS NULL", &[]).await?.get(0) {
        database.batch_execute(include_str!("../../tests/audit.sql")).await?;
    }
    Ok(database)
}

async fn strike(
    database: &Client,
    clients: &Clients,
    servers: &mut [Server],
    sending: &[JoinHandle<Result<()>>],
    kills: u64,
    mut noise: Rand64,
) -> Result<()> {
    let mut done = 0;
    // A client that ends found a violation.
    while done < kills && !sending.iter().any(JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(noise.rand_range(100..900))).await;
        let at = noise.rand_range(0..SERVERS as u64) as usize;
        let struck = match noise.rand_range(0..10) {
            0 => {
                servers[at].stop().await?;
                database.execute("INSERT INTO stroke VALUES ('stop')", &[]).await?;
                continue;
            }
            1 if done + 1 < kills => 0..SERVERS,
            _ => at..at + 1,
        };
        for server in &mut servers[struck.clone()] {
            server.kill()?;
            database.execute("INSERT INTO stroke VALUES ('kill')", &[]).await?;
        }
        for at in struck.clone() {
            clients.listens(at, &servers[at].start_again()?);
        }
        let before = done;
        done += struck.len() as u64;
        if done / 100 > before / 100 {
            println!("{done} kills, {} keys answered", clients.answered());
        }
    }
    Ok(())
}

/// Asks for every key once more at each server: keys that no client retried, keys of an earlier run that was broken off,
/// and keys that were answered, whose answer must be the same.
async fn settle(database: &Client, clients: &Arc<Clients>) -> Result<()> {
    let run = clients.run.to_string();
    let query = "SELECT key FROM asked WHERE split_part(key, '-', 1) = $1
                 OR NOT EXISTS (SELECT 1 FROM orders WHERE orders.key = asked.key)";
    let rows = database.query(query, &[&run]).await?;
    let keys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut settling = Vec::new();
    for part in keys.chunks(keys.len().div_ceil(CLIENTS).max(1)) {
        let (clients, part) = (clients.clone(), part.to_vec());
        settling.push(tokio::spawn(async move {
            for key in part {
                for server in 0..SERVERS {
                    clients.settle(&key, server).await?;
                }
            }
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        }));
    }
    for settling in settling {
        settling.await??;
    }
    Ok(())
}

/// One order for each key, which is the one that its answer names; and no violation in the history of the rows.
async fn check(database: &Client, clients: &Clients) -> Result<()> {
    let count =
        async |query: &str| database.query_one(query, &[]).await.map(|row| row.get::<_, i64>(0));
    let keys = count("SELECT count(*) FROM asked").await?;
    let orders = count("SELECT count(*) FROM orders").await?;
    let ordered = count("SELECT count(DISTINCT key) FROM orders JOIN asked USING (key)").await?;
    let rows = database.query("SELECT key, id FROM orders", &[]).await?;
    let ids: HashMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let unlike = clients.unlike(&ids);
    let query = "SELECT what, number FROM oncekey.violation WHERE number > 0";
    let rows = database.query(query, &[]).await?;
    let violations: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    println!(
        "in all: {} kills, {} stops, {keys} keys, {orders} orders of {ordered} keys, {} taken over, {} changes of rows, \
         violations: {violations:?}",
        count("SELECT count(*) FROM stroke WHERE what = 'kill'").await?,
        count("SELECT count(*) FROM stroke WHERE what = 'stop'").await?,
        count("SELECT count(*) FROM oncekey.audit WHERE token = version AND attempt > 1").await?,
        count("SELECT count(*) FROM oncekey.audit").await?,
    );
    if let Some(key) = unlike.first() {
        return Err(
            format!("{} answers name another order, the first of {key}", unlike.len()).into()
        );
    }
    if (orders, ordered) != (keys, keys) || !violations.is_empty() {
        return Err("violated: there is not one order for each key, or the history is wrong".into());
    }
    println!("orders = keys = {keys}");
    Ok(())
}
