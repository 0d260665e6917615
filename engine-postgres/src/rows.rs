//! Parameters of statements, and rows of answers as rows of the store.

use std::error::Error as StdError;

use oncekey::ErrorKind;
use oncekey::fleet::store::{Applied, Failure, GroupAnswer, Row, RowState, Rows, bytes, error};
use tokio_postgres::types::{
    FromSql, IsNull, ToSql, Type, accepts, private::BytesMut, to_sql_checked,
};

/// A hash as the type `uuid`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(pub(crate) u128);

impl ToSql for Hash {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }
    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Hash {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(u128::from_be_bytes(raw.try_into()?)))
    }
    accepts!(UUID);
}

/// A parameter of a statement.
pub(crate) type Param<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// Parameters in order.
pub(crate) type Params<'a> = Vec<Param<'a>>;

/// The beginning of every gated statement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    pub(crate) synchronous_commit: &'static str,
    pub(crate) instance: u64,
    pub(crate) valid_until: u64,
    pub(crate) generation: i64,
    pub(crate) boot: i64,
    pub(crate) number: u64,
    pub(crate) lane: usize,
}

impl Gate {
    pub(crate) fn params<'a>(self) -> Params<'a> {
        vec![
            Box::new(self.synchronous_commit),
            Box::new(signed(self.instance)),
            Box::new(signed(self.valid_until)),
            Box::new(self.generation),
            Box::new(self.boot),
            Box::new(signed(self.number)),
            Box::new(self.lane as i16),
        ]
    }
}

/// Times, versions and instances stay below 2^63.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The answer of a lean statement: the changes that it carried out.
///
/// # Errors
/// Rows that cannot be read.
pub(crate) fn lean_answer(
    rows: &[tokio_postgres::Row],
    generation: i64,
) -> Result<GroupAnswer, Failure> {
    let mut answer = empty(generation);
    for row in rows {
        let columns = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let (Hash(hash), version, now) = columns().map_err(undecodable)?;
        let at = unsigned(now);
        answer.applied.push(Applied { hash, version: unsigned(version), at });
        answer.found.now = at;
    }
    Ok(answer)
}

fn empty(generation: i64) -> GroupAnswer {
    let found = Rows { generation: unsigned(generation), ..Rows::default() };
    GroupAnswer { found, ..GroupAnswer::default() }
}

fn undecodable(source: tokio_postgres::Error) -> Failure {
    let context = "a row cannot be decoded";
    Failure::Refused(error(ErrorKind::Corrupted, context, Some(source.into())))
}

/// Why a gated statement did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    /// It came after its time was over.
    Late,
    /// The server is not the one of the handshake, or has restarted since.
    Elsewhere,
    /// The clock of the server went ahead by more than it may.
    ClockJump,
}

/// The answer of a gated statement.
///
/// # Errors
/// The refusal of the gate, or rows that cannot be read.
pub(crate) fn answer(
    rows: &[tokio_postgres::Row],
    generation: i64,
) -> Result<Result<GroupAnswer, Shut>, Failure> {
    decode(rows, generation).map_err(undecodable)
}

fn decode(
    rows: &[tokio_postgres::Row],
    generation: i64,
) -> Result<Result<GroupAnswer, Shut>, tokio_postgres::Error> {
    let mut answer = empty(generation);
    for row in rows {
        match row.try_get::<_, i16>(2)? {
            1 => return Ok(Err(Shut::Late)),
            2 => return Ok(Err(Shut::Elsewhere)),
            3 => return Ok(Err(Shut::ClockJump)),
            _ => {}
        }
        answer.found.now = unsigned(row.try_get(1)?);
        answer.ended = row.try_get(3)?;
        match row.try_get::<_, i16>(0)? {
            1 => {
                if let Some(Hash(hash)) = row.try_get(4)? {
                    let (version, at) = (unsigned(row.try_get(5)?), answer.found.now);
                    answer.applied.push(Applied { hash, version, at });
                }
            }
            0 => answer.found.rows.push(stored(row)?),
            _ => {}
        }
    }
    Ok(Ok(answer))
}

fn stored(row: &tokio_postgres::Row) -> Result<Row, tokio_postgres::Error> {
    let number = |at: usize| row.try_get::<_, i64>(at).map(unsigned);
    let maybe = |at: usize| row.try_get::<_, Option<i64>>(at).map(|value| value.map(unsigned));
    let body = row.try_get::<_, Option<&[u8]>>(23)?;
    let state = i64::from(row.try_get::<_, i16>(16)?);
    Ok(Row {
        hash: row.try_get::<_, Hash>(4)?.0,
        version: number(5)?,
        token: number(6)?,
        owner: number(7)?,
        writer: number(8)?,
        op: number(9)?,
        started_at: number(10)?,
        ttl: number(11)?,
        deadline: maybe(12)?,
        since: maybe(13)?,
        expires_at: maybe(14)?,
        attempt: row.try_get::<_, i32>(15)? as u32,
        // A state that this build does not know is read as a completed one without its response,
        // which is reported as damage.
        state: RowState::from_number(state).unwrap_or(RowState::Completed),
        identity: bytes(row.try_get(17)?),
        fingerprint: bytes(row.try_get(18)?),
        checkpoint: row.try_get::<_, Option<&[u8]>>(19)?.map(bytes),
        owner_ended: maybe(20)?,
        owner_lapsed: row.try_get::<_, Option<bool>>(21)?.unwrap_or(false),
        body: body.map(bytes),
    })
}
