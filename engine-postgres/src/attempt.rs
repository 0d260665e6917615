//! Completing an execution of the HTTP layer in the handler's own transaction.

use std::fmt;
use std::future::Future;

use http::Response;
use oncekey::fleet::store::error;
use oncekey::{Error, ErrorKind};
use oncekey_http::Attempt;

use crate::transaction::{self, Completed, Connection};

/// Adds [`complete_in`](Self::complete_in) to the [`Attempt`] of a handler.
///
/// ```no_run
/// # use bytes::Bytes;
/// # use http::Response;
/// use oncekey_http::Attempt;
/// use oncekey_postgres::CompleteAttemptIn;
///
/// async fn order(
///     attempt: Attempt,
///     client: &mut tokio_postgres::Client,
/// ) -> Result<Response<Bytes>, Box<dyn std::error::Error>> {
///     let mut transaction = client.transaction().await?;
///     transaction.execute("INSERT INTO orders DEFAULT VALUES", &[]).await?;
///     let response = Response::builder().status(201).body(Bytes::from("ordered"))?;
///     let completed = attempt.complete_in(&mut transaction, response).await?;
///     transaction.commit().await?;
///     Ok(completed.committed())
/// }
/// ```
pub trait CompleteAttemptIn {
    /// Completes the execution within `transaction`, which must belong to the database of the
    /// store: the changes of the transaction and the response become durable by one commit, or
    /// neither does. Retries get the response as the layer would have stored it, for as long as its
    /// policy says, without the headers that layers between the handler and this one add.
    ///
    /// Commit the transaction, then answer with [`AttemptCompleted::committed`].
    ///
    /// # Errors
    /// Roll back. `Fenced`, `AlreadyCompleted`: another owner resolved the operation; nothing of
    /// the transaction may stay. `InvalidInput`: the transaction cannot see the claim, because it
    /// runs in REPEATABLE READ and began before the claim, or belongs to another database.
    /// `Unsupported`: the engine is not one of a fleet. `Closed`: the execution has ended, or is
    /// being completed already. Then the layer settles the answer of the handler as usual.
    fn complete_in<B>(
        &self,
        transaction: &mut impl Connection,
        response: Response<B>,
    ) -> impl Future<Output = Result<AttemptCompleted<B>, Error>> + Send
    where
        B: AsRef<[u8]> + Send + Sync;
}

/// An execution whose completion is part of a transaction that was not committed yet.
///
/// When it is dropped, the layer ends the execution: it stores the handler's answer, unless the
/// transaction was committed. Then the committed response stays.
#[must_use = "commit the transaction, then answer with `committed`"]
pub struct AttemptCompleted<B> {
    response: Response<B>,
    held: Held,
}

/// Gives the claim back to the layer, however the completion ends.
struct Held {
    attempt: Attempt,
    completed: Option<Completed>,
    committed: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(completed) = self.completed.take() {
            self.attempt.give_back(completed.rolled_back(), self.committed);
        }
    }
}

impl<B> AttemptCompleted<B> {
    /// The transaction was committed: the answer of the handler.
    pub fn committed(mut self) -> Response<B> {
        self.held.committed = true;
        self.response
    }

    /// The transaction was rolled back: the layer stores the handler's answer.
    pub fn rolled_back(self) -> Response<B> {
        self.response
    }
}

impl<B> fmt::Debug for AttemptCompleted<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttemptCompleted({:?})", self.held.attempt)
    }
}

impl CompleteAttemptIn for Attempt {
    async fn complete_in<B>(
        &self,
        transaction: &mut impl Connection,
        response: Response<B>,
    ) -> Result<AttemptCompleted<B>, Error>
    where
        B: AsRef<[u8]> + Send + Sync,
    {
        let ended = || error(ErrorKind::Closed, "the execution has ended", None);
        let taken = self.take(&response).ok_or_else(ended)?;
        let completed =
            transaction::complete(taken.claim, transaction, taken.stored.as_deref(), taken.ttl)
                .await;
        match completed {
            Ok(completed) => {
                let (attempt, completed) = (self.clone(), Some(completed));
                Ok(AttemptCompleted {
                    response,
                    held: Held { attempt, completed, committed: false },
                })
            }
            Err(failed) => {
                let (error, claim) = failed.into_parts();
                if let Some(claim) = claim {
                    self.give_back(claim, false);
                }
                Err(error)
            }
        }
    }
}
