//! PostgreSQL with `synchronous_commit=on`, by a pool of connections.
//!
//! - A begin is `INSERT ... ON CONFLICT DO NOTHING`, a complete an `UPDATE`, both prepared, each a
//!   transaction. PostgreSQL groups commits by itself.
//! - At most [`POOL`] connections: more processes than that only get in each other's way on few
//!   cores. A Unix socket. Clients are tasks of one thread.
//! - Memory as for the others; checkpoints happen when the clock's slice ends and not within; WAL
//!   segments are recycled; `fillfactor` leaves room in each page for the completed records, so that
//!   updates are heap-only and the index is not written twice; responses are not compressed, being
//!   noise; autovacuum is off: PostgreSQL is spared the work that would give space back.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use oncekey_benches::Result;
use oncekey_benches::usage::Usage;
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio_postgres::{Client, NoTls, Statement};

use super::{Server, SocketDir, as_user, find};
use crate::engines::cache_bytes;
use crate::rival::{Answer, Rival};
use crate::work::{Id, Work};

/// Connections at most.
pub const POOL: usize = 64;

const CREATE: &str = "CREATE TABLE record (key bytea PRIMARY KEY, value bytea NOT NULL)
    WITH (fillfactor = 12);
    ALTER TABLE record ALTER COLUMN value SET STORAGE EXTERNAL";
const BEGIN: &str = "INSERT INTO record (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const COMPLETE: &str = "UPDATE record SET value = $2 WHERE key = $1";

/// A server of this run and connections to it. Fields are dropped in this order: the clients, then
/// the thread that serves them, then the server.
pub struct Postgres {
    pool: Mutex<Pool>,
    control: Client,
    _clients: ClientThread,
    server: Server,
    work: Work,
    _dir: SocketDir,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    waiting: VecDeque<oneshot::Sender<Connection>>,
}

struct Connection {
    client: Client,
    begin: Statement,
    complete: Statement,
}

/// Where Debian, or the path, has the programs of version 15.
///
/// # Errors
/// Not installed.
pub fn programs() -> Result<PathBuf> {
    find(&["postgres", "initdb"], &["/usr/lib/postgresql/15/bin"])
}

impl Postgres {
    /// Makes a database in `dir` and starts a server with `connections` clients.
    ///
    /// # Errors
    /// No server.
    pub fn start(dir: &Path, work: &Work, connections: usize) -> Result<Self> {
        let programs = programs()?;
        std::fs::create_dir_all(dir)?;
        let sockets = SocketDir::create("pg")?;
        give_to_postgres(dir)?;
        give_to_postgres(&sockets.0)?;
        let data = dir.join("data").display().to_string();
        let output = as_user("postgres", &[])
            .arg(programs.join("initdb"))
            .args(["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"])
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let postgres = programs.join("postgres").display().to_string();
        let socket_option = format!("unix_socket_directories={}", sockets.0.display());
        let buffers = format!("shared_buffers={}MB", cache_bytes() >> 20);
        let mut command = vec![postgres.as_str(), "-D", &data];
        for setting in [
            socket_option.as_str(),
            &buffers,
            "listen_addresses=",
            "max_connections=200",
            "fsync=on",
            "synchronous_commit=on",
            "full_page_writes=on",
            "wal_sync_method=fdatasync",
            "wal_compression=lz4",
            "wal_buffers=64MB",
            "max_wal_size=16GB",
            "min_wal_size=1GB",
            "checkpoint_timeout=1h",
            "autovacuum=off",
            "wal_level=minimal",
            "max_wal_senders=0",
            "jit=off",
        ] {
            command.extend(["-c", setting]);
        }
        let log = dir.join("log");
        let mut server = Server::start(&command, "postgres", Signal::INT, &log)?;
        let clients = ClientThread::start()?;
        let host = sockets.0.display().to_string();
        let control = server.wait_until(|| clients.connect(&host).ok())?;
        futures_executor::block_on(control.batch_execute(CREATE))?;
        let mut pool = Pool::default();
        for _ in 0..connections.clamp(1, POOL) {
            let client = clients.connect(&host)?;
            let begin = futures_executor::block_on(client.prepare(BEGIN))?;
            let complete = futures_executor::block_on(client.prepare(COMPLETE))?;
            pool.idle.push(Connection { client, begin, complete });
        }
        let pool = Mutex::new(pool);
        Ok(Self { pool, control, _clients: clients, server, work: work.clone(), _dir: sockets })
    }

    /// An idle connection, or the next that is given back.
    async fn take(&self) -> Result<Connection> {
        let receiver = {
            let mut pool = self.pool.lock();
            if let Some(connection) = pool.idle.pop() {
                return Ok(connection);
            }
            let (sender, receiver) = oneshot::channel();
            pool.waiting.push_back(sender);
            receiver
        };
        Ok(receiver.await?)
    }

    fn give_back(&self, mut connection: Connection) {
        let mut pool = self.pool.lock();
        while let Some(waiting) = pool.waiting.pop_front() {
            match waiting.send(connection) {
                Ok(()) => return,
                Err(gone) => connection = gone.into_inner(),
            }
        }
        pool.idle.push(connection);
    }

    async fn change(&self, id: Id, complete: bool) -> Result<()> {
        let connection = self.take().await?;
        let row = id.row();
        let (statement, value) = if complete {
            (&connection.complete, &*self.work.record)
        } else {
            (&connection.begin, &*self.work.claim)
        };
        let changed = connection.client.execute(statement, &[&&row[..], &value]).await?;
        self.give_back(connection);
        if changed == 1 { Ok(()) } else { Err("a fresh key was not new".into()) }
    }
}

impl Rival for Postgres {
    fn pair_blocking(&self, id: Id) -> Result<()> {
        futures_executor::block_on(self.pair(id))
    }

    fn pair(&self, id: Id) -> Answer<'_> {
        Box::pin(async move {
            self.change(id, false).await?;
            self.change(id, true).await
        })
    }

    fn settle(&self) -> Result<()> {
        Ok(futures_executor::block_on(self.control.batch_execute("CHECKPOINT"))?)
    }

    fn servers(&self) -> Result<Usage> {
        self.server.usage()
    }
}

/// PostgreSQL refuses to run as root, and wants to own its directory.
fn give_to_postgres(dir: &Path) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        let status = std::process::Command::new("chown").arg("postgres").arg(dir).status()?;
        if !status.success() {
            return Err("there is no user called postgres".into());
        }
    }
    Ok(())
}

/// The thread that moves bytes between clients and server.
struct ClientThread {
    runtime: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ClientThread {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            // Stopped or dropped: either way it is over.
            drop(runtime.block_on(stopped));
        });
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    fn connect(&self, host: &str) -> Result<Client> {
        let connecting = tokio_postgres::Config::new()
            .host_path(host)
            .user("postgres")
            .dbname("postgres")
            .clone();
        let (sender, receiver) = oneshot::channel();
        self.runtime.spawn(async move {
            let connected = connecting.connect(NoTls).await;
            drop(sender.send(connected.map(|(client, connection)| {
                // An error of the connection reaches every query of its client.
                tokio::spawn(async move { drop(connection.await) });
                client
            })));
        });
        Ok(receiver.recv()??)
    }
}

impl Drop for ClientThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing left to say.
            drop(thread.join());
        }
    }
}
