//! The state that the lanes of a store share.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use oncekey::fleet::store::Failure;
use tokio_postgres::Config;

use crate::connection::Connection;
use crate::handshake::{Known, Met};
use crate::options::Settings;
use crate::statements::Statements;
use crate::tls::Tls;

/// The state that the lanes of a store share.
pub(crate) struct Common {
    pub(crate) settings: Arc<Settings>,
    pub(crate) config: Config,
    pub(crate) statements: Arc<Statements>,
    pub(crate) tls: Option<Tls>,
    pub(crate) known: Known,
    pub(crate) named: Arc<AtomicBool>,
    /// The store that was opened. Every connection must meet the same one.
    pub(crate) first: RefCell<Option<Met>>,
}

impl Common {
    /// A new connection, before its handshake.
    pub(crate) async fn connection(&self) -> Result<Connection, Failure> {
        Connection::open(&self.config, self.tls.clone(), self.named.clone()).await
    }
}
