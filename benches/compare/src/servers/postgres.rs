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

use super::{Server, SocketDir, as_user};
use crate::engines::cache_bytes;
use crate::rival::{Answer, Rival};
use crate::work::{Id, Work};

/// Connections at most.
pub const POOL: usize = 64;

const CREATE: &str = "CREATE TABLE record (key bytea PRIMARY KEY, value bytea NOT NULL)
    WITH (fillfactor = 12);
    ALTER TABLE record ALTER COLUMN value SET STORAGE EXTERNAL";
/// A begin: a row for a new key.
pub const BEGIN: &str = "INSERT INTO record (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
/// A complete: the row holds the record.
pub const COMPLETE: &str = "UPDATE record SET value = $2 WHERE key = $1";

/// Plans that suit groups, whatever the size of a table: those that the engine asks for.
pub const PLANS: &str = "SET enable_seqscan = off; SET enable_hashjoin = off;
    SET enable_mergejoin = off; SET jit = off; SET plan_cache_mode = force_generic_plan";

/// A server of this run, in a directory of its own.
pub struct Database {
    server: Server,
    sockets: SocketDir,
    /// Its standby: dropped after it, so that no commit waits for one that is gone.
    standby: Option<Box<Database>>,
}

/// What a server of the comparison runs with.
const SETTINGS: [&str; 13] = [
    "listen_addresses=",
    "max_connections=300",
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
    "jit=off",
];

impl Database {
    /// Makes a database in `dir` and starts its server; with a synchronous standby on the same disk, if asked.
    ///
    /// # Errors
    /// No server.
    pub fn start(dir: &Path, with_standby: bool) -> Result<Self> {
        let programs = programs()?;
        std::fs::create_dir_all(dir)?;
        give_to_postgres(dir)?;
        let data = dir.join("data").display().to_string();
        let mut initdb = as_user("postgres", &[]);
        initdb.arg(programs.join("initdb")).args(["-D", &data, "-U", "postgres", "-A", "trust"]);
        run(initdb.args(["-E", "UTF8", "--locale=C", "-N"]))?;
        let replication: &[&str] = match with_standby {
            true => &["wal_level=replica", "max_wal_senders=4"],
            false => &["wal_level=minimal", "max_wal_senders=0"],
        };
        let mut primary = Self::serve(dir, "pg", replication)?;
        if with_standby {
            let standby = dir.join("standby");
            std::fs::create_dir_all(&standby)?;
            give_to_postgres(&standby)?;
            let (host, copy) = (primary.host(), standby.join("data").display().to_string());
            let mut backup = as_user("postgres", &[]);
            backup
                .arg(programs.join("pg_basebackup"))
                .args(["-U", "postgres", "-h", &host, "-D", &copy]);
            run(backup.args(["-c", "fast", "-R", "-X", "stream", "-N"]))?;
            primary.standby = Some(Box::new(Self::serve(&standby, "pgs", &["max_wal_senders=4"])?));
            primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")?;
            primary.run("SELECT pg_reload_conf()")?;
        }
        Ok(primary)
    }

    fn serve(dir: &Path, name: &str, more: &[&str]) -> Result<Self> {
        let programs = programs()?;
        let sockets = SocketDir::create(name)?;
        give_to_postgres(&sockets.0)?;
        let data = dir.join("data").display().to_string();
        let postgres = programs.join("postgres").display().to_string();
        let socket_option = format!("unix_socket_directories={}", sockets.0.display());
        let buffers = format!("shared_buffers={}MB", cache_bytes() >> 20);
        let mut command = vec![postgres.as_str(), "-D", &data];
        for setting in [&[socket_option.as_str(), &buffers][..], &SETTINGS, more].concat() {
            command.extend(["-c", setting]);
        }
        let server = Server::start(&command, "postgres", Signal::INT, &dir.join("log"))?;
        let mut database = Self { server, sockets, standby: None };
        let host = database.host();
        database.server.wait_until(|| psql(&host, "SELECT 1").ok())?;
        Ok(database)
    }

    /// Where clients find it.
    pub fn host(&self) -> String {
        self.sockets.0.display().to_string()
    }

    /// What engines find it by.
    pub fn url(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.host())
    }

    /// Runs a statement; gives what it printed.
    ///
    /// # Errors
    /// What the server says.
    pub fn run(&self, statement: &str) -> Result<String> {
        psql(&self.host(), statement)
    }

    /// What its processes have spent; not those of its standby, which would be another machine.
    ///
    /// # Errors
    /// The server is gone.
    pub fn usage(&self) -> Result<Usage> {
        self.server.usage()
    }
}

fn psql(host: &str, statement: &str) -> Result<String> {
    let mut psql = std::process::Command::new("psql");
    psql.args([
        "-X", "-A", "-t", "-q", "-U", "postgres", "-d", "postgres", "-h", host, "-c", statement,
    ]);
    run(&mut psql)
}

fn run(command: &mut std::process::Command) -> Result<String> {
    let output = command.stdin(std::process::Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}

/// Connections to a server, and a row for each key: a statement each for begin and complete.
pub struct Rows {
    pool: Mutex<Pool>,
    _clients: ClientThread,
    work: Work,
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

/// The programs of the newest version that is installed, or those in the folder that `ONCEKEY_POSTGRES_BIN` names.
///
/// # Errors
/// Not installed.
pub fn programs() -> Result<PathBuf> {
    oncekey_testing::postgres::programs().ok_or_else(|| "PostgreSQL is not installed".into())
}

impl Rows {
    /// Makes the table.
    ///
    /// # Errors
    /// What the server says.
    pub fn create(database: &Database) -> Result<()> {
        database.run(CREATE).map(drop)
    }

    /// The number of connections, at most [`POOL`].
    ///
    /// # Errors
    /// No server there, or no table.
    pub fn connect(host: &str, work: &Work, connections: usize) -> Result<Self> {
        let clients = ClientThread::start()?;
        let mut pool = Pool::default();
        for _ in 0..connections.clamp(1, POOL) {
            let client = clients.connect(host)?;
            let begin = futures_executor::block_on(client.prepare(BEGIN))?;
            let complete = futures_executor::block_on(client.prepare(COMPLETE))?;
            pool.idle.push(Connection { client, begin, complete });
        }
        Ok(Self { pool: Mutex::new(pool), _clients: clients, work: work.clone() })
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

impl Rival for Rows {
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
        Ok(())
    }
}

/// A server and its clients in one side. Fields are dropped in this order.
pub struct Postgres {
    rows: Rows,
    database: Database,
}

impl Postgres {
    /// Makes a database in `dir` and starts a server with `connections` clients.
    ///
    /// # Errors
    /// No server.
    pub fn start(dir: &Path, work: &Work, connections: usize) -> Result<Self> {
        let database = Database::start(dir, false)?;
        Rows::create(&database)?;
        Ok(Self { rows: Rows::connect(&database.host(), work, connections)?, database })
    }
}

impl Rival for Postgres {
    fn pair_blocking(&self, id: Id) -> Result<()> {
        self.rows.pair_blocking(id)
    }

    fn pair(&self, id: Id) -> Answer<'_> {
        self.rows.pair(id)
    }

    fn settle(&self) -> Result<()> {
        self.database.run("CHECKPOINT").map(drop)
    }

    fn servers(&self) -> Result<Usage> {
        self.database.usage()
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
pub(super) struct ClientThread {
    runtime: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ClientThread {
    pub(super) fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            // Stopped or dropped: either way it is over.
            drop(runtime.block_on(stopped));
        });
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn connect(&self, host: &str) -> Result<Client> {
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
