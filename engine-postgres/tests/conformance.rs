//! The suites that every backend passes, on PostgreSQL: plainly, behind a pooler in transaction mode, with
//! SERIALIZABLE as the default of the database, and as the role with the least rights.

#![allow(clippy::unwrap_used)]

mod common;

use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use common::modes::{grant, pooler, settings_of};
use common::{Cluster, Raw, cluster};
use oncekey::fleet::store::Store;
use oncekey_postgres::Options;
use oncekey_testing::conformance::{Fleet, SharedStore};

/// How a database is reached.
trait Mode: Send + Sync + 'static {
    /// Random cases.
    const PACE: u32 = 3;

    /// Prepares a new, empty database. `None`, with a line on standard output, where this machine lacks a program.
    fn prepare(_cluster: &'static Cluster, _database: &str) -> Option<()> {
        Some(())
    }

    fn options(cluster: &'static Cluster, database: &str) -> Options {
        cluster.options(database, "")
    }
}

/// A database whose clock stands still.
struct Database<M> {
    cluster: &'static Cluster,
    name: String,
    clock: Mutex<Raw>,
    mode: PhantomData<M>,
}

/// The statements of a store name `clock_timestamp` without a schema: this one is found first.
const CLOCK: &str = "
    CREATE SCHEMA clock;
    CREATE TABLE clock.stands (at timestamptz NOT NULL);
    INSERT INTO clock.stands VALUES (pg_catalog.clock_timestamp());
    CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
        AS 'SELECT at FROM clock.stands';
    GRANT USAGE ON SCHEMA clock TO PUBLIC;
    GRANT SELECT ON clock.stands TO PUBLIC";

impl<M: Mode> SharedStore for Database<M> {
    const PACE: u32 = M::PACE;

    fn new() -> Option<Self> {
        let cluster = cluster()?;
        let name = cluster.database();
        let raw = cluster.raw(&name);
        raw.run(CLOCK);
        raw.run("SET default_transaction_isolation = 'read committed'");
        raw.run(&format!("ALTER DATABASE {name} SET search_path = clock, pg_catalog, public"));
        M::prepare(cluster, &name)?;
        Some(Self { cluster, name, clock: Mutex::new(raw), mode: PhantomData })
    }

    fn connect(&self, ttl: Duration) -> Arc<dyn Store> {
        Arc::new(M::options(self.cluster, &self.name).ttl(ttl).store().unwrap())
    }

    fn advance(&self, by: Duration) {
        let by = by.as_millis();
        let clock = self.clock.lock().unwrap();
        clock.run(&format!("UPDATE clock.stands SET at = at + interval '{by} milliseconds'"));
    }
}

impl<M> Drop for Database<M> {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let _left = self.cluster.raw("postgres").try_run(&drop);
    }
}

struct Plain;

impl Mode for Plain {
    const PACE: u32 = 8;
}

struct Pooled;

/// The pooler of this process.
fn transaction_mode(cluster: &'static Cluster) -> Option<&'static PathBuf> {
    static POOLER: OnceLock<Option<PathBuf>> = OnceLock::new();
    POOLER.get_or_init(|| pooler(cluster, "transaction")).as_ref()
}

impl Mode for Pooled {
    fn prepare(cluster: &'static Cluster, database: &str) -> Option<()> {
        settings_of(cluster, &format!("DATABASE {database}"));
        transaction_mode(cluster).map(|_| ())
    }

    fn options(cluster: &'static Cluster, database: &str) -> Options {
        let socket = transaction_mode(cluster).unwrap().display();
        let url = format!("host={socket} port=6432 user=postgres dbname={database}");
        Options::new(url).startup_options(false).create(true)
    }
}

struct Serializable;

impl Mode for Serializable {
    fn prepare(cluster: &'static Cluster, database: &str) -> Option<()> {
        cluster.raw("postgres").run(&format!(
            "ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'"
        ));
        Some(())
    }
}

struct FewRights;

impl Mode for FewRights {
    fn prepare(cluster: &'static Cluster, database: &str) -> Option<()> {
        static ROLE: OnceLock<()> = OnceLock::new();
        ROLE.get_or_init(|| cluster.raw("postgres").run("CREATE ROLE app LOGIN"));
        drop(cluster.options(database, "").open().unwrap());
        grant(&cluster.raw(database), "app");
        Some(())
    }

    fn options(cluster: &'static Cluster, database: &str) -> Options {
        let (socket, port) = (cluster.dir.display(), cluster.port);
        Options::new(format!("host={socket} port={port} user=app dbname={database}"))
    }
}

macro_rules! suites {
    ($($module:ident: $mode:ty),*) => {
        $(mod $module {
            use super::*;

            oncekey_testing::semantics!(Fleet<Database<$mode>>);
            oncekey_testing::waiting!(Fleet<Database<$mode>>);
            oncekey_testing::histories!(Fleet<Database<$mode>>);
            oncekey_testing::linearizability!(Fleet<Database<$mode>>);
        })*
    };
}

suites!(plain: Plain, pooled: Pooled, serializable: Serializable, few_rights: FewRights);
