//! Claims behind the handles of C.

use std::time::Duration;

use oncekey::Completion;

use crate::boundary::failure::Failure;
use crate::boundary::handle_table::Table;

pub(crate) static CLAIMS: Table<oncekey::Claim> = Table::new(2);

/// Submits a checkpoint. The claim is taken out meanwhile, since the submission goes through the engine.
pub(crate) fn checkpoint(claim: u64, data: &[u8]) -> Result<oncekey::Pending<()>, Failure> {
    let (claim, taken) = CLAIMS.take(claim)?;
    let pending = claim.checkpoint(data);
    taken.give_back(claim);
    Ok(pending)
}

pub(crate) fn is_kept(completion: Completion) -> u32 {
    u32::from(completion.response_kept())
}

pub(crate) fn ttl(ms: u64) -> Option<Duration> {
    Some(ms).filter(|ms| *ms != 0).map(Duration::from_millis)
}
