//! One connection: statements with a deadline, warnings of the server, and the meaning of errors.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use oncekey::ErrorKind;
use oncekey::fleet::store::{Failure, error};
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row, Socket, Statement};

use crate::rows::Params;
use crate::statements::Sql;
use crate::tls::Tls;

/// How long to wait for an answer before the connection is given up: the server's own bound and
/// some time for the network. A wait for a standby does not heed the server's bound.
const PATIENCE: Duration = Duration::from_secs(13);

/// A connection that the handshake accepted.
pub(crate) struct Connection {
    client: Client,
    /// The prepared ones, by [`Sql::id`].
    statements: HashMap<usize, Statement>,
    /// Counts the warnings that came.
    warnings: Arc<AtomicU64>,
    /// Whether statements are prepared by name. A pooler may not keep them.
    named: Arc<AtomicBool>,
}

impl Connection {
    /// Connects. The future of the connection runs on the runtime's thread until either end closes.
    ///
    /// # Errors
    /// `Unavailable`, or a lasting refusal.
    pub(crate) async fn open(
        config: &Config,
        tls: Option<Tls>,
        named: Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        match tls {
            Some(tls) => Self::open_over(config, tls, named).await,
            None => Self::open_over(config, NoTls, named).await,
        }
    }

    async fn open_over<T>(config: &Config, tls: T, named: Arc<AtomicBool>) -> Result<Self, Failure>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let connected = tokio::time::timeout(PATIENCE, config.connect(tls)).await;
        let (client, mut connection) = match connected {
            Ok(connected) => connected.map_err(|source| failed(source, false).0)?,
            Err(_) => return Err(Failure::NotCarriedOut(unavailable("connecting took too long"))),
        };
        let warnings = Arc::new(AtomicU64::new(0));
        let counted = warnings.clone();
        tokio::task::spawn_local(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) if is_warning(&notice) => {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        });
        Ok(Self { client, statements: HashMap::new(), warnings, named })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The number of warnings so far. Only a warning reports that a wait for a standby was
    /// cancelled: the server answers success.
    pub(crate) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Relaxed)
    }

    /// Runs a statement of this crate.
    ///
    /// # Errors
    /// The failure, and whether the connection is spent.
    pub(crate) async fn run(
        &mut self,
        sql: &Sql,
        params: &Params<'_>,
    ) -> Result<Vec<Row>, (Failure, bool)> {
        let answer = match tokio::time::timeout(PATIENCE, self.query(sql, params)).await {
            Ok(answer) => answer,
            Err(_) => {
                return Err((
                    Failure::Unknown(unavailable("the server did not answer in time")),
                    true,
                ));
            }
        };
        answer.map_err(|source| {
            if is_forgotten(&source) && self.named.swap(false, Ordering::Relaxed) {
                // The pooler gives each transaction another server.
                let context = "the pooler does not keep prepared statements";
                return (Failure::NotCarriedOut(unavailable(context)), true);
            }
            failed(source, true)
        })
    }

    async fn query(
        &mut self,
        sql: &Sql,
        params: &Params<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !self.named.load(Ordering::Relaxed) {
            let typed: Vec<(&(dyn ToSql + Sync), Type)> = (params.iter())
                .zip(&sql.types)
                .map(|(param, of)| (&**param as &(dyn ToSql + Sync), of.clone()))
                .collect();
            return self.client.query_typed(&sql.text, &typed).await;
        }
        let statement = match self.statements.entry(sql.id) {
            Entry::Occupied(prepared) => prepared.into_mut(),
            Entry::Vacant(none) => {
                none.insert(self.client.prepare_typed(&sql.text, &sql.types).await?)
            }
        };
        let params: Vec<&(dyn ToSql + Sync)> =
            params.iter().map(|param| &**param as &(dyn ToSql + Sync)).collect();
        // The answer is complete only with the server's `ReadyForQuery`, after every notice.
        self.client.query(&*statement, &params).await
    }

    /// Runs text without parameters; several statements at once.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) async fn batch(&self, text: &str) -> Result<(), (Failure, bool)> {
        match tokio::time::timeout(PATIENCE, self.client.batch_execute(text)).await {
            Ok(answer) => answer.map_err(|source| failed(source, true)),
            Err(_) => {
                Err((Failure::Unknown(unavailable("the server did not answer in time")), true))
            }
        }
    }
}

fn is_warning(notice: &DbError) -> bool {
    notice.parsed_severity() == Some(Severity::Warning) || notice.severity() == "WARNING"
}

/// Whether the server does not know a prepared statement, or knows another one by its name.
fn is_forgotten(source: &tokio_postgres::Error) -> bool {
    let codes = [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT];
    source.code().is_some_and(|code| codes.contains(code))
}

pub(crate) fn unavailable(context: impl Into<String>) -> oncekey::Error {
    error(ErrorKind::Unavailable, context, None)
}

/// The meaning of a failure, and whether the connection is spent. `sent`: a statement was under way.
pub(crate) fn failed(source: tokio_postgres::Error, sent: bool) -> (Failure, bool) {
    let Some(code) = source.code().cloned() else {
        let context = if sent { "the connection was lost" } else { "the server cannot be reached" };
        let lost = error(ErrorKind::Unavailable, context, Some(source.into()));
        let failure = if sent { Failure::Unknown(lost) } else { Failure::NotCarriedOut(lost) };
        return (failure, true);
    };
    let (class, text) = (&code.code()[..2], code.code().to_owned());
    let wrap =
        |kind, context: &str| error(kind, format!("{context} ({text})"), Some(source.into()));
    match (class, code.code()) {
        (_, "40001" | "40P01" | "55P03" | "57014") => (
            Failure::NotCarriedOut(wrap(ErrorKind::Unavailable, "the server asks to try again")),
            false,
        ),
        (_, "25006") => {
            (Failure::NotCarriedOut(wrap(ErrorKind::Unavailable, "the server is read-only")), true)
        }
        (_, "53100") => {
            (Failure::NotCarriedOut(wrap(ErrorKind::StoreFull, "the disk of the server")), false)
        }
        ("53", _) => (
            Failure::NotCarriedOut(wrap(ErrorKind::Overloaded, "the server lacks a resource")),
            true,
        ),
        ("57" | "08" | "58" | "XX", _) if sent => {
            (Failure::Unknown(wrap(ErrorKind::Unavailable, "the server went away")), true)
        }
        ("57" | "08" | "58" | "XX", _) => {
            (Failure::NotCarriedOut(wrap(ErrorKind::Unavailable, "the server is not ready")), true)
        }
        (_, "42501") => {
            (Failure::Refused(wrap(ErrorKind::StoreUnreadable, "the role lacks a right")), true)
        }
        ("28", _) => {
            let context = "the server refuses the role or its password";
            (Failure::Refused(wrap(ErrorKind::StoreUnreadable, context)), true)
        }
        (_, "3D000" | "3F000" | "42P01") => {
            (Failure::Refused(wrap(ErrorKind::StoreMissing, "no such database or table")), true)
        }
        _ => (Failure::Refused(wrap(ErrorKind::Io, "the server refused a statement")), false),
    }
}
