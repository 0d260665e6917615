//! The engine over a PostgreSQL with the settings of the side `postgres`: its default options.

use std::path::Path;

use oncekey_benches::Result;
use oncekey_benches::usage::Usage;
use oncekey_postgres::Options;

use super::postgres::Database;
use crate::engines::oncekey::Oncekey;
use crate::rival::{Answer, Rival};
use crate::work::{Id, Work};

/// A server and an engine in one side. Fields are dropped in this order.
pub struct OncekeyPostgres {
    engine: Oncekey,
    database: Database,
}

/// A store there, which is created where none is. Replays are not kept in memory, so that each is asked of
/// the server.
pub fn options(url: &str) -> Options {
    let options = oncekey::fleet::Options { replay_bytes: 0, ..Default::default() };
    Options::new(url).create(true).engine(options)
}

/// An engine on the store there.
///
/// # Errors
/// Those of [`Options::open`].
pub fn connect(url: &str, work: &Work) -> Result<Oncekey> {
    Ok(Oncekey::over(options(url).open()?, work))
}

impl OncekeyPostgres {
    /// Makes a database in `dir` and starts a server with one engine.
    ///
    /// # Errors
    /// No server; those of an open.
    pub fn start(dir: &Path, work: &Work) -> Result<Self> {
        let database = Database::start(dir, false)?;
        Ok(Self { engine: connect(&database.url(), work)?, database })
    }
}

impl Rival for OncekeyPostgres {
    fn pair_blocking(&self, id: Id) -> Result<()> {
        self.engine.pair_blocking(id)
    }

    fn pair(&self, id: Id) -> Answer<'_> {
        self.engine.pair(id)
    }

    fn settle(&self) -> Result<()> {
        self.database.run("CHECKPOINT").map(drop)
    }

    fn servers(&self) -> Result<Usage> {
        self.database.usage()
    }
}
