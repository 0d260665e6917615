//! A PostgreSQL of the tests' own: in a temporary directory, as a user without rights, ended with the
//! process that started it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod asking;
pub mod modes;
pub mod proxy;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oncekey::fleet::store::{Done, Failure, Group, NewInstance, RowImage, RowState, Store, bytes};
use oncekey_postgres::{Options, PostgresStore};
use tokio::runtime::Runtime;

pub struct Cluster {
    pub dir: PathBuf,
    pub port: u16,
    databases: AtomicU64,
}

/// Where Debian has the programs, the newest first, or the path.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort();
    (versions.into_iter().rev())
        .chain(std::env::split_paths(&path))
        .find(|dir| ["postgres", "initdb"].iter().all(|program| dir.join(program).exists()))
}

fn as_user() -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command
}

/// Gives a folder to the user that the programs run as.
pub fn give(dir: &Path) {
    if rustix::process::geteuid().is_root() {
        assert!(
            Command::new("chown").args(["-R", "postgres"]).arg(dir).status().unwrap().success()
        );
    }
}

/// The cluster of this test binary; `None` where PostgreSQL is not installed.
pub fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| programs().map(|programs| Cluster::start(&programs)));
    if cluster.is_none() {
        println!("LEFT OUT: PostgreSQL is not installed (Debian: postgresql-15)");
    }
    cluster.as_ref()
}

impl Cluster {
    fn start(programs: &Path) -> Self {
        forget_old_ones();
        let dir = std::env::temp_dir().join(format!("oncekey-pg-{}", std::process::id()));
        let _old = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        if rustix::process::geteuid().is_root() {
            assert!(Command::new("chown").arg("postgres").arg(&dir).status().unwrap().success());
        }
        let data = dir.join("data");
        let initdb = as_user()
            .arg("--")
            .arg(programs.join("initdb"))
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "-D"])
            .arg(&data)
            .current_dir(&dir)
            .output()
            .unwrap();
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let (postgres, start_dir) = (programs.join("postgres"), dir.clone());
        // The kernel ends the server with the thread that started it: one that stays as long as we do.
        std::thread::spawn(move || {
            let log = std::fs::File::create(start_dir.join("log")).unwrap();
            let mut server = as_user()
                .args(["--pdeathsig=INT", "--"])
                .arg(postgres)
                .arg("-D")
                .arg(start_dir.join("data"))
                .args([
                    "-c",
                    "listen_addresses=127.0.0.1",
                    "-c",
                    "max_connections=600",
                    "-c",
                    "shared_buffers=64MB",
                ])
                .args(["-c", "autovacuum=off", "-c"])
                .arg(format!("unix_socket_directories={}", start_dir.display()))
                .args(["-c", &format!("port={port}")])
                .current_dir(&start_dir)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            server.wait().unwrap();
        });
        let cluster = Self { dir, port, databases: AtomicU64::new(0) };
        let start = Instant::now();
        while cluster.try_raw("postgres").is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "the server did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        cluster
    }

    /// A new database, its name.
    pub fn database(&self) -> String {
        let name = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.raw("postgres").run(&format!("CREATE DATABASE {name}"));
        name
    }

    pub fn url(&self, database: &str) -> String {
        format!("host={} port={} user=postgres dbname={database}", self.dir.display(), self.port)
    }

    /// A new store with an instance.
    pub fn store(&self) -> Opened {
        self.open(&self.database(), "", Duration::from_secs(15))
    }

    pub fn open(&self, database: &str, more: &str, lease: Duration) -> Opened {
        let store = self.options(database, more).store().unwrap();
        Opened::of(self, store, database, lease)
    }

    pub fn open_with(
        &self,
        database: &str,
        with: impl FnOnce(Options) -> Options,
        lease: Duration,
    ) -> Opened {
        let store = with(self.options(database, "")).store().unwrap();
        Opened::of(self, store, database, lease)
    }

    pub fn options(&self, database: &str, more: &str) -> Options {
        Options::new(format!("{} {more}", self.url(database))).create(true)
    }

    fn try_raw(&self, database: &str) -> Option<Raw> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let url = self.url(database);
        let connecting = tokio_postgres::connect(&url, tokio_postgres::NoTls);
        let (client, connection) = runtime.block_on(connecting).ok()?;
        runtime.spawn(connection);
        Some(Raw { runtime, client })
    }

    /// A connection for what tests do behind the store's back.
    pub fn raw(&self, database: &str) -> Raw {
        self.try_raw(database).unwrap()
    }
}

/// Directories of processes that are gone.
fn forget_old_ones() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix("oncekey-pg-")
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            let _gone = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A plain connection, with its own runtime.
pub struct Raw {
    runtime: Runtime,
    client: tokio_postgres::Client,
}

impl Raw {
    pub fn run(&self, text: &str) {
        self.runtime.block_on(self.client.batch_execute(text)).unwrap();
    }

    pub fn try_run(&self, text: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(text))
    }

    /// The values of the first column, as text.
    pub fn texts(&self, text: &str) -> Vec<String> {
        let messages = self.runtime.block_on(self.client.simple_query(text)).unwrap();
        messages
            .iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    Some(row.get(0).unwrap_or("NULL").to_owned())
                }
                _ => None,
            })
            .collect()
    }

    pub fn text(&self, text: &str) -> String {
        self.texts(text).remove(0)
    }

    pub fn number(&self, text: &str) -> i64 {
        self.text(text).parse().unwrap()
    }
}

/// A store with an instance of its own.
pub struct Opened {
    pub store: PostgresStore,
    pub instance: u64,
    pub database: String,
    pub raw: Raw,
    groups: AtomicU64,
}

/// Waits for the answer of a store.
pub fn ask<T: Send + 'static>(ask: impl FnOnce(Done<T>)) -> Result<T, Failure> {
    let (sender, receiver) = std::sync::mpsc::channel();
    ask(Box::new(move |answer| drop(sender.send(answer))));
    receiver.recv_timeout(Duration::from_secs(60)).expect("an answer within a minute")
}

pub type Answer = oncekey::fleet::store::GroupAnswer;

impl Opened {
    fn of(cluster: &Cluster, store: PostgresStore, database: &str, lease: Duration) -> Self {
        let new = NewInstance { name: String::new(), lease, build: "test".to_owned() };
        let opened = store.open(&new).unwrap();
        Self {
            store,
            instance: opened.registered.instance,
            database: database.to_owned(),
            raw: cluster.raw(database),
            groups: AtomicU64::new(0),
        }
    }

    pub fn group(&self, images: Vec<RowImage>) -> Result<Answer, Failure> {
        self.group_until(images, u64::MAX)
    }

    pub fn group_until(&self, images: Vec<RowImage>, valid_until: u64) -> Result<Answer, Failure> {
        let number = 1 + self.groups.fetch_add(1, Ordering::Relaxed);
        let group = Group { instance: self.instance, number, valid_until, durable: true, images };
        ask(|done| self.store.group(group, done))
    }

    /// The group again, until it is carried out.
    pub fn surely(&self, images: Vec<RowImage>) -> Answer {
        loop {
            match self.group(images.clone()) {
                Err(Failure::NotCarriedOut(_)) => {}
                answer => return answer.unwrap(),
            }
        }
    }

    pub fn read(&self, hash: u128) -> oncekey::fleet::store::Rows {
        ask(|done| self.store.read(self.instance, vec![hash], done)).unwrap()
    }

    pub fn end(&self, others: &[u64]) -> Result<Vec<u64>, Failure> {
        ask(|done| self.store.end(self.instance, others.to_vec(), done))
    }

    pub fn renew(&self) -> oncekey::fleet::store::Renewal {
        ask(|done| self.store.renew(self.instance, done)).unwrap()
    }

    pub fn upkeep(&self) -> oncekey::fleet::store::Upkeep {
        ask(|done| self.store.upkeep(self.instance, Duration::ZERO, done)).unwrap()
    }

    pub fn claim(&self, hash: u128) -> RowImage {
        claim(self.instance, hash)
    }
}

/// Numbers of changes, never used twice.
pub fn next_op() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn claim(instance: u64, hash: u128) -> RowImage {
    RowImage {
        hash,
        expected: 0,
        writer: instance,
        op: next_op(),
        state: RowState::InFlight,
        attempt: 1,
        grants: true,
        resolves: false,
        ttl: 86_400_000,
        deadline_in: None,
        since: None,
        expires_in: None,
        identity: bytes(b"\x00key"),
        // Version 1, a total, no parts.
        fingerprint: Some(bytes(&[&[1], &[7; 16][..], &[0]].concat())),
        checkpoint: None,
        body: None,
    }
}

/// Ends the claim that a version granted.
pub fn change(claim: &RowImage, version: u64, state: RowState) -> RowImage {
    RowImage {
        expected: version,
        op: next_op(),
        state,
        grants: false,
        fingerprint: None,
        expires_in: (state != RowState::InFlight).then_some(match state {
            RowState::Free => 60_000,
            _ => claim.ttl,
        }),
        body: (state == RowState::Completed).then(|| bytes(b"response")),
        ..claim.clone()
    }
}
