//! Upkeep: gives space back and lists orphans. Wrong or missing upkeep costs only space and
//! listings.

use std::time::Duration;

use oncekey::fleet::store::{Failure, Renewal, Upkeep};

use crate::lane::{Lane, with_retries};
use crate::rows::{Params, signed, unsigned};
use crate::statements::LEAVES;

/// Entries that one statement expires.
const SLICE: i64 = 1_000;

/// Pages of `key` that one statement scans.
const PAGES: i64 = 1_000;

/// Does one round, if no other instance did one within `interval`.
pub(crate) async fn round(lane: &mut Lane, by: u64, interval: Duration) -> Result<Upkeep, Failure> {
    let interval = signed(interval.as_millis() as u64);
    let rows = lane.run(|statements| &statements.upkeep_elect, &vec![Box::new(interval)]).await?;
    let Some(row) = rows.first() else { return size(lane, Upkeep::default()).await };
    let number = |at: usize| row.try_get::<_, i64>(at).unwrap_or(1).max(1);
    let bucket = number(0) / number(1);
    let mut upkeep = Upkeep { elected: true, ..Upkeep::default() };
    let behind = end_lapsed(lane, by, &mut upkeep).await?;
    scan(lane, behind, &mut upkeep).await?;
    // The two buckets before this one are over: no new entry goes there.
    for leaf in [bucket - 2, bucket - 1].map(|over| over.rem_euclid(i64::from(LEAVES)) as i16) {
        if expire(lane, leaf, false, &mut upkeep).await? {
            let truncate = lane.truncate(leaf).await;
            // A reader holds the leaf: the next round tries again.
            truncate.or_else(|failure| match failure {
                Failure::NotCarriedOut(_) => Ok(()),
                other => Err(other),
            })?;
        }
    }
    expire(lane, LEAVES, true, &mut upkeep).await?;
    lane.run(|statements| &statements.upkeep_forget, &vec![]).await?;
    size(lane, upkeep).await
}

/// Renews, and ends the instances whose lease is over, before any caller asks for their keys.
pub(crate) async fn renew(lane: &mut Lane, instance: u64) -> Result<Renewal, Failure> {
    let renewal = lane.renew(instance).await?;
    if matches!(renewal, Renewal::Renewed { .. }) {
        // The next renewal tries a failed end again.
        let _ended = end_lapsed(lane, instance, &mut Upkeep::default()).await;
    }
    Ok(renewal)
}

/// Ends the instances whose lease is over, as far as `by` may. Returns whether `orphan` may lack
/// claims of ended ones.
async fn end_lapsed(lane: &mut Lane, by: u64, upkeep: &mut Upkeep) -> Result<bool, Failure> {
    let rows = lane.run(|statements| &statements.lapsed, &vec![]).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let lapsed: Vec<i64> = row.try_get(0).unwrap_or_default();
    let behind = row.try_get(1).unwrap_or(false);
    if !lapsed.is_empty() {
        let lapsed: Vec<u64> = lapsed.into_iter().map(unsigned).collect();
        upkeep.ended = lane.end(by, &lapsed).await?.len() as u64;
    }
    Ok(behind || upkeep.ended > 0)
}

/// Brings `orphan` up to date. Without an instance that ended since the last whole scan there is nothing to do.
/// Upkeep of another process may hold it up.
pub(crate) async fn list(lane: &mut Lane, by: u64, overdue: bool) -> Result<(), Failure> {
    with_retries(async || list_once(lane, by, overdue).await).await
}

async fn list_once(lane: &mut Lane, by: u64, overdue: bool) -> Result<(), Failure> {
    let mut upkeep = Upkeep::default();
    match end_lapsed(lane, by, &mut upkeep).await? || overdue {
        true => scan(lane, true, &mut upkeep).await,
        false => Ok(()),
    }
}

/// Counts orphans and bytes, so that every process can keep the bounds of the store.
async fn size(lane: &mut Lane, mut upkeep: Upkeep) -> Result<Upkeep, Failure> {
    let rows = lane.run(|statements| &statements.upkeep_size, &vec![]).await?;
    if let Some(row) = rows.first() {
        upkeep.orphans = unsigned(row.try_get(0).unwrap_or(0));
        upkeep.bytes = unsigned(row.try_get(1).unwrap_or(0));
    }
    Ok(upkeep)
}

/// Continues the rolling scan by one slice, or with `whole` to its end.
async fn scan(lane: &mut Lane, whole: bool, upkeep: &mut Upkeep) -> Result<(), Failure> {
    // A scan that is under way may have passed the rows of an instance that ended since.
    let mut ends = if whole { 2 } else { 0 };
    loop {
        let rows = lane.run(|statements| &statements.upkeep_scan, &vec![Box::new(PAGES)]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        upkeep.removed += unsigned(row.try_get(0).unwrap_or(0));
        if row.try_get::<_, i64>(1).unwrap_or(0) == 0 && ends > 0 {
            ends -= 1;
        }
        if ends == 0 {
            return Ok(());
        }
    }
}

/// Removes the keys that a leaf lists. Returns whether the leaf holds entries and all of them are
/// spent.
async fn expire(
    lane: &mut Lane,
    leaf: i16,
    spare: bool,
    upkeep: &mut Upkeep,
) -> Result<bool, Failure> {
    let (mut after, mut any, mut spent) = (0_i64, false, true);
    loop {
        let params: Params<'_> =
            vec![Box::new(leaf), Box::new(after), Box::new(SLICE), Box::new(spare)];
        let rows = lane.run(|statements| &statements.upkeep_expire, &params).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        let number = |at: usize| row.try_get::<_, Option<i64>>(at).unwrap_or(None).unwrap_or(0);
        upkeep.removed += unsigned(number(2));
        any |= number(0) > 0;
        spent &= number(3) == 0;
        after = number(1);
        if number(0) < SLICE {
            return Ok(any && spent);
        }
    }
}
