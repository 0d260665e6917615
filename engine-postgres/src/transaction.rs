//! Completing a claim in the caller's own transaction.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use oncekey::fleet::store::{MAX_MILLIS, Store, error};
use oncekey::fleet::{Completing, failed};
use oncekey::{Claim, Error, ErrorKind, Failed, SharedBytes};
use tokio_postgres::GenericClient;
use tokio_postgres::types::{ToSql, Type};

use crate::connection;
use crate::rows::Hash;
use crate::store::PostgresStore;

/// A connection of the caller with an open transaction, of one of the clients that this crate knows.
pub trait Connection: Send {
    /// Runs the statement that completes a claim, and returns the number of its rows.
    fn complete(
        &mut self,
        statement: &Statement,
    ) -> impl Future<Output = Result<usize, Error>> + Send;
}

/// The statement that completes a claim, with its parameters in order: for clients that
/// [`Connection`] is implemented for.
#[derive(Debug)]
pub struct Statement {
    text: String,
    synchronous_commit: &'static str,
    incarnation: i64,
    hash: u128,
    token: i64,
    body: Option<SharedBytes>,
    ttl: Option<i64>,
}

/// Adds [`complete_in`](Self::complete_in) to a claim.
pub trait CompleteIn: Sized {
    /// Completes the claim within `transaction`, which must belong to the database of the store.
    /// The changes of the transaction and the response become durable by one commit, or neither
    /// does: the effects happen exactly once, even when the claim is taken over and run again.
    ///
    /// Commit the transaction, then call [`Completed::committed`]. On an error roll it back.
    ///
    /// # Errors
    /// `Fenced`, `AlreadyCompleted`: another owner resolved the claim; nothing of the transaction may stay.
    /// `InvalidInput`: the transaction cannot see the claim, because it runs in REPEATABLE READ and
    /// began before the claim, or belongs to another database; the claim comes back. `Unsupported`:
    /// the engine is not one of a fleet.
    fn complete_in(
        self,
        transaction: &mut impl Connection,
        response: &[u8],
    ) -> impl Future<Output = Result<Completed, Failed<Claim>>> + Send;
}

/// A claim whose completion is part of a transaction that was not committed yet.
///
/// When it is dropped, the engine looks at the row again: a transaction that was rolled back leaves
/// an orphan at once, one that was committed a completed operation.
#[must_use = "commit the transaction, then call `committed`"]
pub struct Completed {
    claim: Claim,
}

impl Completed {
    /// The transaction was committed: callers that wait in this process are told.
    pub fn committed(self) {}

    /// The transaction was rolled back: the claim is held as before.
    pub fn rolled_back(self) -> Claim {
        self.claim
    }
}

impl fmt::Debug for Completed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Completed({:?})", self.claim)
    }
}

impl CompleteIn for Claim {
    async fn complete_in(
        self,
        transaction: &mut impl Connection,
        response: &[u8],
    ) -> Result<Completed, Failed<Claim>> {
        complete(self, transaction, Some(response), None).await
    }
}

/// See [`CompleteIn::complete_in`]; `ttl` counts instead of that of the claim.
pub(crate) async fn complete(
    claim: Claim,
    transaction: &mut impl Connection,
    response: Option<&[u8]>,
    ttl: Option<Duration>,
) -> Result<Completed, Failed<Claim>> {
    let completing = Completing::of(&claim, response);
    let store = Completing::store(&claim).and_then(|store| store.downcast_ref());
    let Some(store) = store else {
        let context = "the store of this claim is not one of PostgreSQL";
        return Err(failed(error(ErrorKind::Unsupported, context, None), Some(claim)));
    };
    let statement = statement(store, &completing, ttl);
    match transaction.complete(&statement).await {
        Ok(0) => {}
        Ok(_) => return Ok(Completed { claim }),
        Err(error) => return Err(failed(error, Some(claim))),
    }
    let why_not = look(store, &completing).await;
    let error = why_not.err().unwrap_or_else(|| {
        let context = "the transaction cannot see the claim: it began before it, or elsewhere";
        error(ErrorKind::InvalidInput, context, None)
    });
    let over = matches!(error.kind(), ErrorKind::Fenced | ErrorKind::AlreadyCompleted);
    // The claim has ended already, so its drop changes nothing.
    Err(failed(error, (!over).then_some(claim)))
}

fn statement(store: &PostgresStore, completing: &Completing, ttl: Option<Duration>) -> Statement {
    Statement {
        text: store.statements.complete_in.text.clone(),
        synchronous_commit: store.settings.synchronous_commit,
        incarnation: completing.incarnation as i64,
        hash: completing.hash,
        token: completing.token as i64,
        body: completing.body.clone(),
        ttl: ttl.map(|ttl| {
            u64::try_from(ttl.as_millis()).map_or(MAX_MILLIS, |ms| ms.min(MAX_MILLIS)) as i64
        }),
    }
}

/// Looks at the row outside of the transaction.
async fn look(store: &PostgresStore, completing: &Completing) -> Result<(), Error> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done = Box::new(move |rows| drop(sender.send(rows)));
    store.read(0, vec![completing.hash], done);
    let closed = || error(ErrorKind::Closed, "", None);
    let rows = receiver.await.map_err(|_| closed())?.map_err(|failure| failure.error().clone())?;
    completing.why_not(rows.rows.first(), rows.now)
}

impl Connection for tokio_postgres::Transaction<'_> {
    async fn complete(&mut self, statement: &Statement) -> Result<usize, Error> {
        statement.run_by(self).await
    }
}

/// A connection in whose transaction, begun by a statement of the caller, the claim is completed.
impl Connection for tokio_postgres::Client {
    async fn complete(&mut self, statement: &Statement) -> Result<usize, Error> {
        statement.run_by(self).await
    }
}

impl Statement {
    async fn run_by(&self, client: &impl GenericClient) -> Result<usize, Error> {
        let (hash, body) = (Hash(self.hash), self.body.as_deref());
        let params: [(&(dyn ToSql + Sync), Type); 6] = [
            (&self.synchronous_commit, Type::TEXT),
            (&self.incarnation, Type::INT8),
            (&hash, Type::UUID),
            (&self.token, Type::INT8),
            (&body, Type::BYTEA),
            (&self.ttl, Type::INT8),
        ];
        let rows = client.query_typed(&self.text, &params).await;
        Ok(rows.map_err(|source| connection::failed(source, true).0.error().clone())?.len())
    }
}

#[cfg(feature = "sqlx")]
impl Connection for sqlx::PgConnection {
    async fn complete(&mut self, statement: &Statement) -> Result<usize, Error> {
        let rows = sqlx::query(&statement.text)
            .bind(statement.synchronous_commit)
            .bind(statement.incarnation)
            .bind(sqlx::types::Uuid::from_u128(statement.hash))
            .bind(statement.token)
            .bind(statement.body.as_deref())
            .bind(statement.ttl)
            .fetch_all(self)
            .await;
        let wrap = |source: sqlx::Error| {
            error(ErrorKind::Unavailable, "completing in a transaction", Some(source.into()))
        };
        Ok(rows.map_err(wrap)?.len())
    }
}

#[cfg(test)]
mod tests {
    use oncekey::fleet::store::bytes;

    use super::*;

    #[test]
    fn a_statement_is_printed_without_the_response() {
        let statement = Statement {
            text: "SELECT".to_owned(),
            synchronous_commit: "on",
            incarnation: 1,
            hash: 2,
            token: 3,
            body: Some(bytes(&[77; 12])),
            ttl: None,
        };
        let printed = format!("{statement:?}");
        assert!(printed.contains("12 bytes") && !printed.contains("77"), "{printed}");
    }
}
