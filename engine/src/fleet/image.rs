//! Records as rows, and changes as row images.

use std::time::Duration;

use super::store::{GENERATION_SHIFT, MAX_MILLIS, Row, RowImage, RowState, TOMBSTONE_MS};
use crate::base::error::{Error, Result};
use crate::semantics::command::{Change, Command};
use crate::semantics::fingerprint::StoredFingerprint;
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::{Attempt, Checkpoint, Completed, Record, State};
use crate::semantics::time::{Time, millis};
use crate::semantics::token::Token;

/// The token of a claim that a version granted.
pub(crate) fn token(incarnation: u64, version: u64) -> Token {
    let sequence = version & ((1 << GENERATION_SHIFT) - 1);
    Token { incarnation, epoch: version >> GENERATION_SHIFT, sequence }
}

/// The record of a row, as it counts for readers: a claim whose owner ended counts as an orphan
/// since that end. `now` is the time at which the row was read.
///
/// # Errors
/// `Corrupted` when the row cannot be decoded, or lacks the response before its expiry.
pub(crate) fn record(row: &Row, incarnation: u64, now: u64) -> Result<Option<Record>> {
    let missing = || Error::corrupted("a row lacks a field that its state needs");
    let state = match row.state {
        RowState::Free => return Ok(None),
        RowState::InFlight => State::InFlight(attempt(row, incarnation)),
        RowState::Orphan => State::Orphan {
            attempt: attempt(row, incarnation),
            since: Time(row.since.ok_or_else(missing)?),
        },
        RowState::Completed | RowState::WithoutResponse => {
            let expires_at = row.expires_at.ok_or_else(missing)?;
            if row.state == RowState::Completed && row.body.is_none() {
                // Upkeep removes the response of an expired row before the row.
                return match now >= expires_at {
                    true => Ok(None),
                    false => Err(Error::corrupted("the response of a live record is missing")),
                };
            }
            State::Completed(Completed {
                token: token(incarnation, row.token),
                completed_at: Time(row.since.ok_or_else(missing)?),
                expires_at: Time(expires_at),
                response: row.body.clone(),
            })
        }
    };
    Ok(Some(Record {
        key: Key::from_identity(row.identity.clone())?,
        fingerprint: StoredFingerprint::decode(row.fingerprint.clone())?,
        state,
    }))
}

fn attempt(row: &Row, incarnation: u64) -> Attempt {
    let deadline = match row.state {
        RowState::InFlight => row.overdue_at(),
        _ => row.deadline,
    };
    Attempt {
        token: token(incarnation, row.token),
        number: row.attempt,
        started_at: Time(row.started_at),
        deadline: deadline.map(Time),
        ttl: Duration::from_millis(row.ttl),
        checkpoint: row.checkpoint.clone().map(Checkpoint::Here),
    }
}

/// The record that a change was decided on.
pub(crate) struct Decided<'a> {
    /// The record as read; `None` for absent.
    pub(crate) record: Option<&'a Record>,
    /// The version of the row; 0 for no row.
    pub(crate) version: u64,
    pub(crate) at: Time,
}

/// The image of a change. All times are spans from the decision, which the store adds to its own
/// time.
pub(crate) fn image(
    hash: KeyHash,
    (writer, op): (u64, u64),
    command: &Command,
    change: &Change,
    decided: &Decided<'_>,
) -> RowImage {
    let before = decided.record.and_then(Record::attempt);
    let ttl = match change {
        Change::Claim { ttl, .. } => millis(*ttl),
        _ => before.map_or(0, |attempt| millis(attempt.ttl)),
    }
    .min(MAX_MILLIS);
    let number = before.map_or(1, |attempt| attempt.number);
    let identity = match (change, decided.record) {
        (Change::Claim { key, .. }, _) => key.identity_bytes(),
        (_, Some(record)) => record.key.identity_bytes(),
        (_, None) => crate::base::bytes::SharedBytes::copy_of(&[]),
    };
    let mut image = RowImage {
        hash: hash.0,
        expected: decided.version,
        writer,
        op,
        state: RowState::InFlight,
        attempt: number,
        grants: false,
        resolves: decided.record.is_some_and(|record| record.orphaned_since(decided.at).is_some()),
        ttl,
        deadline_in: None,
        since: None,
        expires_in: None,
        identity,
        fingerprint: None,
        checkpoint: None,
        body: None,
    };
    change_image(&mut image, command, change, decided);
    image
}

/// Turns the image of an unchanged record into the image of a change.
fn change_image(image: &mut RowImage, command: &Command, change: &Change, decided: &Decided<'_>) {
    let span = |until: Time| millis(until.since(decided.at)).min(MAX_MILLIS);
    let before = decided.record.and_then(Record::attempt);
    match change {
        Change::Claim { fingerprint, deadline, .. } => {
            image.attempt = 1;
            image.grants = true;
            // An orphan that expired may still be listed.
            image.resolves = decided.record.is_some_and(|record| record.attempt().is_some());
            image.deadline_in = deadline.map(span);
            image.fingerprint = Some(fingerprint.shared_bytes());
        }
        Change::TakeOver { deadline } => {
            image.attempt = image.attempt.saturating_add(1);
            image.grants = true;
            image.deadline_in = deadline.map(span);
        }
        Change::Checkpoint { data } => image.checkpoint = Some(data.clone()),
        Change::Complete { response, expires_at } => {
            image.state = match response {
                Some(_) => RowState::Completed,
                None => RowState::WithoutResponse,
            };
            image.expires_in = Some(span(*expires_at));
            image.body = response.clone();
        }
        Change::Orphan { since } => {
            image.state = RowState::Orphan;
            image.expires_in = Some(image.ttl);
            // The deadline dates the orphan if it passes before the store decides.
            image.since = match command {
                Command::OwnerGone { .. } => before.and_then(|attempt| attempt.deadline),
                _ => Some(*since).filter(|since| *since < decided.at),
            }
            .map(|since| since.0);
        }
        Change::Remove => {
            image.state = RowState::Free;
            image.expires_in = Some(TOMBSTONE_MS);
        }
    }
}
