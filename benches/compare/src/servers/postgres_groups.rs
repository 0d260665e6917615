//! The limit of a fleet: the rows of the side `postgres`, by its own two statements, but for a whole
//! group at once, by one thread on one connection. It knows no lease, no version and no fingerprint,
//! and its answer tells only that the rows are durable.

use futures_executor::block_on;
use oncekey_benches::Result;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::postgres::{ClientThread, PLANS};
use crate::grouped::{Change, Store};
use crate::rival::Reader;
use crate::work::{Id, Row, Work};

const BEGIN: &str = "INSERT INTO record (key, value)
    SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING";
const COMPLETE: &str = "UPDATE record SET value = o.value
    FROM unnest($1::bytea[], $2::bytea[]) o (key, value) WHERE record.key = o.key";
const BOTH: &str = "WITH begun AS (INSERT INTO record (key, value)
        SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING RETURNING 1),
    completed AS (UPDATE record SET value = o.value
        FROM unnest($3::bytea[], $4::bytea[]) o (key, value) WHERE record.key = o.key RETURNING 1)
    SELECT (SELECT count(*) FROM begun) + (SELECT count(*) FROM completed)";

/// A connection for groups. Fields are dropped in this order.
pub struct Groups {
    client: Client,
    begin: Statement,
    complete: Statement,
    both: Statement,
    work: Work,
    _clients: ClientThread,
}

impl Groups {
    /// Connects to a server with the table of the side `postgres`.
    ///
    /// # Errors
    /// No server there, or no table.
    pub fn connect(host: &str, work: &Work) -> Result<Self> {
        let clients = ClientThread::start()?;
        let client = clients.connect(host)?;
        block_on(client.batch_execute(PLANS))?;
        Ok(Self {
            begin: block_on(client.prepare(BEGIN))?,
            complete: block_on(client.prepare(COMPLETE))?,
            both: block_on(client.prepare(BOTH))?,
            client,
            work: work.clone(),
            _clients: clients,
        })
    }
}

impl Store for Groups {
    fn commit(&self, group: &mut [Change]) -> Result<()> {
        let keys = |complete| {
            let of = group.iter().filter(|change| change.complete == complete);
            let mut rows: Vec<Row> = of.map(|change| change.id.row()).collect();
            rows.sort_unstable();
            rows
        };
        let (begun, completed) = (keys(false), keys(true));
        let begun: Vec<&[u8]> = begun.iter().map(|row| &row[..]).collect();
        let completed: Vec<&[u8]> = completed.iter().map(|row| &row[..]).collect();
        let claims = vec![&*self.work.claim; begun.len()];
        let records = vec![&*self.work.record; completed.len()];
        let changed = match (begun.is_empty(), completed.is_empty()) {
            (_, true) => block_on(self.client.execute(&self.begin, &[&begun, &claims]))?,
            (true, _) => block_on(self.client.execute(&self.complete, &[&completed, &records]))?,
            _ => {
                let params: [&(dyn ToSql + Sync); 4] = [&begun, &claims, &completed, &records];
                block_on(self.client.query_one(&self.both, &params))?.try_get::<_, i64>(0)? as u64
            }
        };
        if changed == group.len() as u64 { Ok(()) } else { Err("a fresh key was not new".into()) }
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn load(&self, _ids: &[Id]) -> Result<()> {
        Err("this side takes no part in replays".into())
    }

    fn reader(&self) -> Result<Reader> {
        Err("this side takes no part in replays".into())
    }
}
