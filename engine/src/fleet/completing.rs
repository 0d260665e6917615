//! A claim that is completed by a statement of the caller's own.

use std::any::Any;

use super::store::{GENERATION_SHIFT, Row, RowState};
use crate::api::attempt::{Failed, refusal};
use crate::api::claim::Claim;
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, Result};
use crate::semantics::command::Reply;

/// The values that a statement needs to complete a claim.
#[derive(Clone, Debug)]
pub struct Completing {
    /// The row of the claim.
    pub hash: u128,
    /// The version that granted it.
    pub token: u64,
    /// The store that it belongs to.
    pub incarnation: u64,
    /// The response; `None` when there is none, or it is longer than the engine keeps.
    pub body: Option<SharedBytes>,
}

impl Completing {
    /// The values of a claim and its response, if a response is to be kept.
    pub fn of(claim: &Claim, response: Option<&[u8]>) -> Self {
        let handle = claim.handle();
        let limit = handle.backend.settings().max_response;
        let kept = response.filter(|response| response.len() <= limit);
        Self {
            hash: handle.hash.0,
            token: handle.token.epoch << GENERATION_SHIFT | handle.token.sequence,
            incarnation: handle.token.incarnation,
            body: kept.map(SharedBytes::copy_of),
        }
    }

    /// The shared store of a claim, if it has one.
    pub fn store(claim: &Claim) -> Option<&dyn Any> {
        claim.handle().backend.shared_store()
    }

    /// Why a statement found nothing to complete, according to the row as it was read at `now`.
    /// `Ok` means that the claim stands, and that the transaction of the statement cannot see it.
    ///
    /// # Errors
    /// `Fenced`, `AlreadyCompleted`.
    pub fn why_not(&self, row: Option<&Row>, now: u64) -> Result<()> {
        match row.filter(|row| !row.has_expired(now)) {
            Some(row) if matches!(row.state, RowState::Completed | RowState::WithoutResponse) => {
                Err(refusal(&Reply::AlreadyCompleted))
            }
            Some(row) if row.token == self.token && row.state != RowState::Free => Ok(()),
            _ => Err(refusal(&Reply::Fenced)),
        }
    }
}

/// A failure, with the handle where the call can be tried again.
pub fn failed<H>(error: Error, handle: Option<H>) -> Failed<H> {
    match handle {
        Some(handle) => Failed::giving_back(error, handle),
        None => error.into(),
    }
}
