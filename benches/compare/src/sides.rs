//! The list of sides, by name.

use std::path::Path;
use std::sync::Arc;

use oncekey_benches::Result;

use crate::engines::fjall::Fjall;
use crate::engines::lmdb::Lmdb;
use crate::engines::oncekey::Oncekey;
use crate::engines::raw::Raw;
use crate::engines::redb::Redb;
use crate::engines::rocksdb::RocksDb;
use crate::engines::sqlite::Sqlite;
use crate::grouped::{Alone, Grouped};
use crate::rival::Rival;
use crate::servers::postgres::Postgres;
use crate::servers::redis::{Connections, Pipelined};
use crate::work::Work;

/// Those that keep records and run inside the program. `-own`: each caller commits by itself.
pub const EMBEDDED: [&str; 10] = [
    "oncekey",
    "fjall",
    "fjall-own",
    "rocksdb",
    "rocksdb-own",
    "sqlite",
    "sqlite-own",
    "lmdb",
    "lmdb-own",
    "redb",
];

/// Those that run beside the program.
const SERVERS: [&str; 3] = ["redis-pipe", "redis-conns", "postgres"];

/// Every side, in the order of tables.
pub fn all() -> Vec<&'static str> {
    [&["raw"][..], &EMBEDDED, &SERVERS].concat()
}

/// Those that take part in replays: reading is the same with and without a committer.
pub const READERS: [&str; 6] = ["oncekey", "fjall", "rocksdb", "sqlite", "lmdb", "redb"];

/// Opens or creates the store of the side `name` in `dir`, for that many callers.
///
/// # Errors
/// Those of the side; no side of that name.
pub fn open(name: &str, dir: &Path, work: &Work, callers: usize) -> Result<Arc<dyn Rival>> {
    Ok(match name {
        "raw" => Arc::new(Raw::create(dir, work)?),
        "oncekey" => Arc::new(Oncekey::open(dir, work)?),
        "fjall" => Arc::new(Grouped::new(Fjall::open(dir, work)?)?),
        "fjall-own" => Arc::new(Alone(Fjall::open(dir, work)?)),
        "rocksdb" => Arc::new(Grouped::new(RocksDb::open(dir, work, false)?)?),
        "rocksdb-own" => Arc::new(Alone(RocksDb::open(dir, work, true)?)),
        "sqlite" => Arc::new(Grouped::new(Sqlite::open(dir, work)?)?),
        "sqlite-own" => Arc::new(Alone(Sqlite::open(dir, work)?)),
        "lmdb" => Arc::new(Grouped::new(Lmdb::open(dir, work)?)?),
        "lmdb-own" => Arc::new(Alone(Lmdb::open(dir, work)?)),
        "redb" => Arc::new(Grouped::new(Redb::open(dir, work)?)?),
        "redis-pipe" => Arc::new(Pipelined::start(dir, work)?),
        "redis-conns" => Arc::new(Connections::start(dir, work)?),
        "postgres" => Arc::new(Postgres::start(dir, work, callers)?),
        other => return Err(format!("no side is called {other}: {}", all().join(", ")).into()),
    })
}
