//! The questions to a server before any group is sent to it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use oncekey::ErrorKind;
use oncekey::fleet::store::{Failure, LANES, error};

use crate::connection::{Connection, unavailable};
use crate::options::{STATEMENT_TIMEOUT, Settings};
use crate::rows::{Params, signed, unsigned};
use crate::statements::{LEAVES, Statements};

/// The format of this build.
const FORMAT: i32 = 1;

/// The oldest server that has all that the statements use.
const OLDEST_SERVER: i32 = 140_000;

/// A statement that may run longer could outlive the tombstone of a freed row.
const LONGEST_STATEMENT_MS: i64 = 20_000;

/// The store as a connection met it.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    pub(crate) generation: i64,
    pub(crate) boot: i64,
    pub(crate) incarnation: u64,
    pub(crate) secret: [u8; 64],
}

/// The durable state that the server told this process; every handshake must find it again.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The instance; 0 before the first is registered.
    pub(crate) instance: AtomicU64,
    /// The number of the instance's last group on each lane that changed something and was
    /// acknowledged as durable.
    pub(crate) acknowledged: [AtomicU64; LANES],
    /// The server lacks changes that it had acknowledged.
    pub(crate) lost: AtomicBool,
}

/// Checks the settings of the server.
///
/// # Errors
/// `UnsafeStore` when the server could lose acknowledged changes; `Unavailable` on a standby.
pub(crate) async fn settings(
    connection: &mut Connection,
    statements: &Statements,
    replication_required: bool,
) -> Result<(), Failure> {
    let rows =
        connection.run(&statements.settings, &vec![]).await.map_err(|(failure, _)| failure)?;
    let row = rows.first().ok_or_else(|| Failure::NotCarriedOut(unavailable("no settings")))?;
    let get = |at: usize| row.try_get::<_, bool>(at).unwrap_or(false);
    let version: i32 = row.try_get(0).unwrap_or(0);
    let timeout: i64 = row.try_get(5).unwrap_or(0);
    let unsafe_store =
        |context: String| Err(Failure::Refused(error(ErrorKind::UnsafeStore, context, None)));
    if version < OLDEST_SERVER {
        return unsafe_store(format!(
            "the server is version {version}, at least {OLDEST_SERVER} is needed"
        ));
    }
    if get(1) {
        return Err(Failure::NotCarriedOut(unavailable("the server is a standby or read-only")));
    }
    if !get(2) {
        return unsafe_store("fsync is off: a crash of the server would forget answers".to_owned());
    }
    if replication_required && !get(4) {
        return unsafe_store(
            "synchronous_standby_names is empty, and replication is required".to_owned(),
        );
    }
    if timeout == 0 || timeout > LONGEST_STATEMENT_MS {
        return unsafe_store(format!(
            "statement_timeout is {timeout} ms, 1 to {LONGEST_STATEMENT_MS} is needed; where a pooler refuses \
             startup options: ALTER ROLE … SET statement_timeout = '{}s'",
            STATEMENT_TIMEOUT.as_secs()
        ));
    }
    Ok(())
}

/// Reads the store, raises the generation of a server that crashed or was promoted since the last
/// handshake, and checks that the server has the last group that this process knows as
/// acknowledged.
///
/// # Errors
/// `StoreMissing`, `StoreNewerFormat`, `StoreForeign`, `HistoryLost`.
pub(crate) async fn store(
    connection: &mut Connection,
    statements: &Statements,
    (settings, known): (&Settings, &Known),
    expected: Option<&Met>,
    mark: impl Fn() -> i64,
) -> Result<Met, Failure> {
    if expected.is_none() && settings.accept_clock_jump {
        let accepted = connection.run(&statements.accept_clock, &vec![]).await;
        accepted.map_err(|(failure, _)| failure)?;
    }
    for _ in 0..8 {
        let met = match read(connection, statements).await? {
            (met, Some(boot)) => Met { boot, ..met },
            (_, None) => {
                let raised = connection.run(&statements.raise, &vec![Box::new(mark())]).await;
                raised.map_err(|(failure, _)| failure)?;
                continue;
            }
        };
        if let Some(expected) = expected {
            if (expected.incarnation, &expected.secret) != (met.incarnation, &met.secret) {
                let context = "another store than the one that was opened";
                return Err(Failure::Refused(error(ErrorKind::StoreForeign, context, None)));
            }
            if (expected.generation, expected.boot) != (met.generation, met.boot) {
                let accept = settings.accept_lost_history;
                compare(connection, statements, known, &met, accept).await?;
            }
        }
        return Ok(met);
    }
    Err(Failure::NotCarriedOut(unavailable("the generation keeps being raised")))
}

async fn read(
    connection: &mut Connection,
    statements: &Statements,
) -> Result<(Met, Option<i64>), Failure> {
    let rows = connection.run(&statements.store, &vec![]).await.map_err(|(failure, _)| failure)?;
    let refused = |kind, context: &str| Failure::Refused(error(kind, context, None));
    let row = rows
        .first()
        .ok_or_else(|| refused(ErrorKind::StoreMissing, "the table `store` is empty"))?;
    let min_format: i32 = row.try_get(1).unwrap_or(i32::MAX);
    if min_format > FORMAT {
        return Err(refused(ErrorKind::StoreNewerFormat, ""));
    }
    if row.try_get::<_, i16>(6).ok() != Some(LEAVES) {
        return Err(refused(ErrorKind::StoreForeign, "the store has another number of leaves"));
    }
    let secret =
        row.try_get::<_, &[u8]>(4).ok().and_then(|secret| <[u8; 64]>::try_from(secret).ok());
    let number = |at: usize| row.try_get::<_, i64>(at).unwrap_or(0);
    let met = Met {
        generation: number(3),
        boot: 0,
        incarnation: number(2) as u64,
        secret: secret
            .ok_or_else(|| refused(ErrorKind::StoreForeign, "the secret has another length"))?,
    };
    Ok((met, row.try_get(9).unwrap_or(None)))
}

/// Checks, after a crash or a promotion, whether the last acknowledged group of each lane is there.
/// The log of a server is sequential: if that group is there, every earlier one is.
async fn compare(
    connection: &mut Connection,
    statements: &Statements,
    known: &Known,
    met: &Met,
    accept: bool,
) -> Result<(), Failure> {
    let instance = known.instance.load(Ordering::SeqCst);
    if instance == 0 {
        return Ok(());
    }
    // ORDER: loaded before the marks are read. Another connection to the same server may have a group
    // acknowledged in between, which the snapshot of the statement does not show.
    let acknowledged = known.acknowledged.each_ref().map(|number| number.load(Ordering::SeqCst));
    let params: Params<'_> =
        vec![Box::new(signed(instance)), Box::new(met.generation), Box::new(met.boot)];
    let rows = connection.run(&statements.renew, &params).await.map_err(|(failure, _)| failure)?;
    let marks: Option<Vec<i64>> = rows.first().and_then(|row| row.try_get(4).ok()).flatten();
    let marks = marks.unwrap_or_default();
    for (lane, acknowledged) in acknowledged.into_iter().enumerate() {
        let number = marks.get(lane).copied().map_or(0, unsigned);
        if number < acknowledged {
            match accept {
                true => known.acknowledged[lane].store(number, Ordering::SeqCst),
                false => known.lost.store(true, Ordering::SeqCst),
            }
        }
    }
    Ok(())
}
