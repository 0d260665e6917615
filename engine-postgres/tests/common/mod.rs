//! The server of the tests, and stores in it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod asking;
pub mod modes;
pub mod proxy;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oncekey::fleet::store::{Done, Failure, Group, NewInstance, RowImage, RowState, Store, bytes};
use oncekey_postgres::{Options, PostgresStore};
use oncekey_testing::postgres::PostgresServer;
use tokio::runtime::Runtime;

pub struct Cluster {
    pub dir: PathBuf,
    pub port: u16,
    server: &'static PostgresServer,
}

/// The cluster of this test binary; `None` where PostgreSQL is not installed.
pub fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let server = PostgresServer::of_this_process()?;
    let (dir, port) = (server.dir().to_owned(), server.port());
    Some(CLUSTER.get_or_init(|| Cluster { dir, port, server }))
}

impl Cluster {
    /// A new database, its name.
    pub fn database(&self) -> String {
        self.server.database()
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

    /// A connection of its own, for changes that the store does not know of.
    pub fn raw(&self, database: &str) -> Raw {
        let runtime = runtime();
        let url = self.url(database);
        let connecting = tokio_postgres::connect(&url, tokio_postgres::NoTls);
        let (client, connection) = runtime.block_on(connecting).unwrap();
        runtime.spawn(connection);
        Raw { runtime, client }
    }
}

/// A runtime with one worker, beside the thread of the test.
pub fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
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
        ask(|done| self.store.group(self.next(0, images, valid_until), done))
    }

    /// The next group of the instance, on this lane.
    pub fn next(&self, lane: usize, images: Vec<RowImage>, valid_until: u64) -> Group {
        let number = 1 + self.groups.fetch_add(1, Ordering::Relaxed);
        Group { lane, instance: self.instance, number, valid_until, durable: true, images }
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

    /// A claim that is granted, with the version of its row.
    pub fn granted(&self, hash: u128) -> (RowImage, u64) {
        let image = self.claim(hash);
        let version = self.surely(vec![image.clone()]).applied[0].version;
        (image, version)
    }

    /// A key that is claimed and brought to this state.
    pub fn brought_to(&self, hash: u128, state: RowState) {
        let (image, version) = self.granted(hash);
        self.surely(vec![change(&image, version, state)]);
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
