//! Builds answers from the results of `begin` and `get`, and descriptions of claims and orphans.

use oncekey::{Begin, InFlight, Lookup, Mismatch, Recorded};

use crate::abi::answer::*;
use crate::abi::time::{in_ms, unix_ms};
use crate::abi::types::{Buffer, Claim, Orphan, Slice, Token};
use crate::boundary::failure::Failure;
use crate::objects::buffer::Bytes;
use crate::objects::claim::CLAIMS;
use crate::objects::orphan::ORPHANS;

impl Answer {
    pub(crate) fn from_begin(begin: Begin) -> Result<Self, Failure> {
        match begin {
            Begin::Claimed(claim) => Self::claimed(claim),
            Begin::Replay(recorded) => Self::replay(recorded),
            Begin::Locked(in_flight) => Ok(Self::locked(&in_flight)),
            Begin::Mismatch(mismatch) => Self::mismatch(&mismatch),
            Begin::Orphaned(orphan) => Self::orphaned(orphan),
        }
    }

    pub(crate) fn from_lookup(lookup: Lookup) -> Result<Self, Failure> {
        match lookup {
            Lookup::InFlight(in_flight) => Ok(Self::locked(&in_flight)),
            Lookup::Orphaned(orphan) => Self::orphaned(orphan),
            Lookup::Completed(recorded) => Self::replay(recorded),
            _ => Ok(Self { outcome: ONCEKEY_ABSENT, ..Self::NONE }),
        }
    }

    /// A claim that gets no handle, because there are no more or because its checkpoint is damaged, is
    /// aborted: its caller never had it.
    pub(crate) fn claimed(claim: oncekey::Claim) -> Result<Self, Failure> {
        let abort = |claim: oncekey::Claim| drop(claim.abort());
        let (attempt, token) = (claim.attempt(), Token::new(claim.token()));
        let (data, has_data) = match checkpoint_before(&claim) {
            Ok(data) => data,
            Err(failure) => {
                abort(claim);
                return Err(failure);
            }
        };
        let id = CLAIMS.insert(claim).map_err(|claim| {
            abort(claim);
            Failure::too_many()
        })?;
        let claim = Claim { id };
        let outcome = ONCEKEY_CLAIMED;
        Ok(Self { outcome, attempt, claim, token, data, has_data, ..Self::NONE })
    }

    fn orphaned(orphan: oncekey::Orphan) -> Result<Self, Failure> {
        Ok(Self {
            outcome: ONCEKEY_ORPHANED,
            attempt: orphan.attempt(),
            token: Token::new(orphan.token()),
            since_ms: unix_ms(orphan.since()),
            orphan: Orphan { id: ORPHANS.insert(orphan).map_err(|_| Failure::too_many())? },
            ..Self::NONE
        })
    }

    fn replay(recorded: Recorded) -> Result<Self, Failure> {
        let mut answer = Self {
            outcome: ONCEKEY_REPLAY,
            token: Token::new(recorded.token()),
            since_ms: unix_ms(recorded.completed_at()),
            expires_ms: unix_ms(recorded.expires_at()),
            ..Self::NONE
        };
        if let Some(response) = recorded.into_response() {
            answer.has_data = 1;
            answer.data = Buffer::new(Bytes::Shared(response))?;
        }
        Ok(answer)
    }

    fn locked(in_flight: &InFlight) -> Self {
        Self {
            outcome: ONCEKEY_LOCKED,
            attempt: in_flight.attempt(),
            running_ms: in_ms(in_flight.running_for()),
            retry_after_ms: in_ms(in_flight.retry_after()),
            ..Self::NONE
        }
    }

    fn mismatch(mismatch: &Mismatch) -> Result<Self, Failure> {
        let labels: Vec<u8> =
            mismatch.parts().iter().flat_map(|part| part.bytes().chain([0])).collect();
        let data = Buffer::new(Bytes::Owned(labels.into()))?;
        Ok(Self { outcome: ONCEKEY_MISMATCH, has_data: 1, data, ..Self::NONE })
    }
}

/// The last checkpoint of the earlier attempts. A first attempt has none, so nothing is read.
fn checkpoint_before(claim: &oncekey::Claim) -> Result<(Buffer, u32), Failure> {
    if claim.attempt() == 1 {
        return Ok((Buffer::EMPTY, 0));
    }
    match claim.last_checkpoint()? {
        Some(saved) => Ok((Buffer::new(Bytes::Shared(saved))?, 1)),
        None => Ok((Buffer::EMPTY, 0)),
    }
}

impl Info {
    pub(crate) fn new(
        key: &oncekey::Key,
        checkpoint: Option<&[u8]>,
        token: oncekey::Token,
        attempt: u32,
    ) -> Result<Self, Failure> {
        let saved = checkpoint.unwrap_or_default();
        let bytes = [key.scope(), key.key(), saved].concat();
        let data = Buffer::new(Bytes::Owned(bytes.into()))?;
        let mut at = data.ptr;
        let mut next = |len: usize| {
            let slice = Slice { ptr: if len == 0 { std::ptr::null() } else { at }, len };
            at = at.wrapping_add(len);
            slice
        };
        Ok(Self {
            attempt,
            has_checkpoint: u32::from(checkpoint.is_some()),
            token: Token::new(token),
            since_ms: 0,
            age_ms: 0,
            scope: next(key.scope().len()),
            key: next(key.key().len()),
            checkpoint: next(saved.len()),
            data,
        })
    }
}
