//! The list of sides, by name.

use std::path::Path;
use std::sync::Arc;

use oncekey_benches::Result;

use crate::engines::oncekey::Oncekey;
use crate::engines::raw::Raw;
#[cfg(feature = "engines")]
use crate::engines::{fjall::Fjall, lmdb::Lmdb, redb::Redb, rocksdb::RocksDb, sqlite::Sqlite};
#[cfg(feature = "engines")]
use crate::grouped::{Alone, Grouped};
use crate::rival::Rival;
use crate::servers::oncekey_postgres::OncekeyPostgres;
use crate::servers::postgres::Postgres;
use crate::servers::redis::{Connections, Pipelined};
use crate::work::Work;

/// Those that keep records and run inside the program. `-own`: each caller commits by itself.
#[cfg(not(feature = "engines"))]
pub const EMBEDDED: [&str; 1] = ["oncekey"];
/// Those that keep records and run inside the program. `-own`: each caller commits by itself.
#[cfg(feature = "engines")]
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
const SERVERS: [&str; 4] = ["redis-pipe", "redis-conns", "postgres", "oncekey-postgres"];

/// Every side, in the order of tables.
pub fn all() -> Vec<&'static str> {
    [&["raw"][..], &EMBEDDED, &SERVERS].concat()
}

/// Those that take part in replays: reading is the same with and without a committer.
#[cfg(not(feature = "engines"))]
pub const READERS: [&str; 1] = ["oncekey"];
/// Those that take part in replays: reading is the same with and without a committer.
#[cfg(feature = "engines")]
pub const READERS: [&str; 6] = ["oncekey", "fjall", "rocksdb", "sqlite", "lmdb", "redb"];

/// Opens or creates the store of the side `name` in `dir`, for that many callers.
///
/// # Errors
/// Those of the side; no side of that name.
pub fn open(name: &str, dir: &Path, work: &Work, callers: usize) -> Result<Arc<dyn Rival>> {
    Ok(match name {
        "raw" => Arc::new(Raw::create(dir, work)?),
        "oncekey" => Arc::new(Oncekey::open(dir, work)?),
        #[cfg(feature = "engines")]
        "fjall" => Arc::new(Grouped::new(Fjall::open(dir, work)?)?),
        #[cfg(feature = "engines")]
        "fjall-own" => Arc::new(Alone(Fjall::open(dir, work)?)),
        #[cfg(feature = "engines")]
        "rocksdb" => Arc::new(Grouped::new(RocksDb::open(dir, work, false)?)?),
        #[cfg(feature = "engines")]
        "rocksdb-own" => Arc::new(Alone(RocksDb::open(dir, work, true)?)),
        #[cfg(feature = "engines")]
        "sqlite" => Arc::new(Grouped::new(Sqlite::open(dir, work)?)?),
        #[cfg(feature = "engines")]
        "sqlite-own" => Arc::new(Alone(Sqlite::open(dir, work)?)),
        #[cfg(feature = "engines")]
        "lmdb" => Arc::new(Grouped::new(Lmdb::open(dir, work)?)?),
        #[cfg(feature = "engines")]
        "lmdb-own" => Arc::new(Alone(Lmdb::open(dir, work)?)),
        #[cfg(feature = "engines")]
        "redb" => Arc::new(Grouped::new(Redb::open(dir, work)?)?),
        "redis-pipe" => Arc::new(Pipelined::start(dir, work)?),
        "redis-conns" => Arc::new(Connections::start(dir, work)?),
        "postgres" => Arc::new(Postgres::start(dir, work, callers)?),
        "oncekey-postgres" => Arc::new(OncekeyPostgres::start(dir, work)?),
        other => return Err(format!("no side is called {other}: {}", all().join(", ")).into()),
    })
}
