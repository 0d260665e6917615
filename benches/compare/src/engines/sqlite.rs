//! SQLite, in WAL mode with `synchronous=FULL`: every commit syncs the WAL.
//!
//! - One transaction for each group, prepared statements. The claim's row id is kept and the record
//!   replaces it by that: no second search by key. A table with a row id writes 1 KiB rows in the
//!   order they came in; only the index of keys is random.
//! - The WAL is checkpointed every 64 MiB instead of every 4 MiB, and is overwritten, never
//!   truncated, so that syncs do not have to allocate blocks. Settling checkpoints all of it.
//! - 64 MiB page cache for each connection, reads through a memory map of the whole file. Compiled with
//!   fdatasync(2), as distributions do, see `.cargo/config.toml`: build in this directory.
//! - Alone, every caller has a connection and they wait for each other in the program, which is fair
//!   and wakes at once, where SQLite's own busy handler sleeps and polls.

use std::path::{Path, PathBuf};

use oncekey_benches::Result;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, params};

use crate::grouped::{Change, Store};
use crate::rival::Reader;
use crate::work::{Id, Work};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS record (
    row INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL)";
const BEGIN: &str = "INSERT INTO record (key, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const COMPLETE: &str = "UPDATE record SET value = ?2 WHERE row = ?1";
const REPLAY: &str = "SELECT value FROM record WHERE key = ?1";

/// As large as a file may ever get: it costs address space only.
const MAP_BYTES: u64 = 1 << 40;

/// A database file and its idle connections.
pub struct Sqlite {
    file: PathBuf,
    connections: Mutex<Vec<Connection>>,
    writer: Mutex<()>,
    work: Work,
}

impl Sqlite {
    /// Opens the database in `dir` or creates it.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn open(dir: &Path, work: &Work) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = dir.join("records.sqlite");
        let connection = connect(&file)?;
        connection.execute(CREATE, [])?;
        Ok(Self {
            file,
            connections: Mutex::new(vec![connection]),
            writer: Mutex::new(()),
            work: work.clone(),
        })
    }

    fn connection(&self) -> Result<Connection> {
        let idle = self.connections.lock().pop();
        idle.map_or_else(|| connect(&self.file), Ok)
    }

    fn write(&self, connection: &mut Connection, group: &mut [Change]) -> Result<()> {
        let _writer = self.writer.lock();
        let behavior = rusqlite::TransactionBehavior::Immediate;
        let transaction = connection.transaction_with_behavior(behavior)?;
        {
            let mut begin = transaction.prepare_cached(BEGIN)?;
            let mut complete = transaction.prepare_cached(COMPLETE)?;
            for change in group {
                if change.complete {
                    complete.execute(params![change.place, &*self.work.record])?;
                } else {
                    let row = change.id.row();
                    if begin.execute(params![&row[..], &*self.work.claim])? == 0 {
                        return Err("a fresh key was not new".into());
                    }
                    change.place = transaction.last_insert_rowid();
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

fn connect(file: &Path) -> Result<Connection> {
    // No mutex in the connection: it is used by one thread at a time.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
        PRAGMA synchronous = FULL;
        PRAGMA wal_autocheckpoint = 16384;
        PRAGMA cache_size = -65536;
        PRAGMA temp_store = MEMORY;
        PRAGMA mmap_size = {MAP_BYTES};"
    ))?;
    Ok(connection)
}

impl Store for Sqlite {
    fn commit(&self, group: &mut [Change]) -> Result<()> {
        let mut connection = self.connection()?;
        self.write(&mut connection, group)?;
        self.connections.lock().push(connection);
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        let connection = self.connection()?;
        let busy: i64 =
            connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))?;
        self.connections.lock().push(connection);
        if busy == 0 { Ok(()) } else { Err("a checkpoint was not completed".into()) }
    }

    /// One transaction, in order.
    fn load(&self, ids: &[Id]) -> Result<()> {
        let mut connection = self.connection()?;
        for chunk in ids.chunks(250_000) {
            let transaction = connection.transaction()?;
            {
                let mut insert = transaction.prepare_cached(BEGIN)?;
                for id in chunk {
                    insert.execute(params![&id.row()[..], &*self.work.record])?;
                }
            }
            transaction.commit()?;
        }
        self.connections.lock().push(connection);
        self.settle()
    }

    fn reader(&self) -> Result<Reader> {
        let (connection, work) = (connect(&self.file)?, self.work.clone());
        Ok(Box::new(move |id, out| {
            let mut statement = connection.prepare_cached(REPLAY)?;
            let key = id.row();
            let mut rows = statement.query([&key[..]])?;
            let row = rows.next()?.ok_or("a record is missing")?;
            work.replay(row.get_ref(0)?.as_blob()?, out)
        }))
    }
}
