//! Row images as parameters, and rows of answers as rows of the store.

use std::error::Error as StdError;

use oncekey::ErrorKind;
use oncekey::fleet::store::{
    Failure, Group, GroupAnswer, Row, RowImage, RowState, Rows, bytes, error,
};
use tokio_postgres::types::{
    FromSql, IsNull, ToSql, Type, accepts, private::BytesMut, to_sql_checked,
};

use crate::statements::{Shapes, Sql};

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

/// Parameters in order.
pub(crate) type Params<'a> = Vec<Box<dyn ToSql + Sync + Send + 'a>>;

/// The beginning of every gated statement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    pub(crate) synchronous_commit: &'static str,
    pub(crate) instance: u64,
    pub(crate) valid_until: u64,
    pub(crate) generation: i64,
    pub(crate) boot: i64,
    pub(crate) number: u64,
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
        ]
    }
}

/// The statement for a group, and its parameters behind those of the gate.
pub(crate) fn group<'s, 'a>(shapes: &'s Shapes, group: &'a Group) -> (&'s Sql, Params<'a>) {
    let images = &group.images;
    if let [image] = &images[..] {
        let sql = if image.expected == 0 { &shapes.claim } else { &shapes.change };
        return (sql, one(image));
    }
    let claims = images.iter().filter(|image| image.expected == 0).count();
    let sql = match claims {
        0 => &shapes.changes,
        _ if claims == images.len() => &shapes.claims,
        _ => &shapes.group,
    };
    (sql, many(images))
}

fn one(image: &RowImage) -> Params<'_> {
    vec![
        Box::new(Hash(image.hash)),
        Box::new(signed(image.expected)),
        Box::new(signed(image.writer)),
        Box::new(signed(image.op)),
        Box::new(image.state as i16),
        Box::new(image.attempt as i32),
        Box::new(image.grants),
        Box::new(image.resolves),
        Box::new(signed(image.ttl)),
        Box::new(image.deadline_in.map(signed)),
        Box::new(image.since.map(signed)),
        Box::new(image.expires_in.map(signed)),
        Box::new(&image.identity[..]),
        Box::new(image.fingerprint.as_deref()),
        Box::new(image.checkpoint.as_deref()),
        Box::new(image.body.as_deref()),
    ]
}

fn many(images: &[RowImage]) -> Params<'_> {
    fn column<'a, T: ToSql + Sync + Send + 'a>(
        images: &'a [RowImage],
        of: impl Fn(&'a RowImage) -> T,
    ) -> Box<dyn ToSql + Sync + Send + 'a> {
        Box::new(images.iter().map(of).collect::<Vec<T>>())
    }
    vec![
        column(images, |image| Hash(image.hash)),
        column(images, |image| signed(image.expected)),
        column(images, |image| signed(image.writer)),
        column(images, |image| signed(image.op)),
        column(images, |image| image.state as i16),
        column(images, |image| image.attempt as i32),
        column(images, |image| image.grants),
        column(images, |image| image.resolves),
        column(images, |image| signed(image.ttl)),
        column(images, |image| image.deadline_in.map(signed)),
        column(images, |image| image.since.map(signed)),
        column(images, |image| image.expires_in.map(signed)),
        column(images, |image| &image.identity[..]),
        column(images, |image| image.fingerprint.as_deref()),
        column(images, |image| image.checkpoint.as_deref()),
        column(images, |image| image.body.as_deref()),
    ]
}

/// Times, versions and instances stay below 2^63.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
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
    decode(rows, generation).map_err(|source| {
        let context = "a row cannot be decoded";
        Failure::Refused(error(ErrorKind::Corrupted, context, Some(source.into())))
    })
}

fn decode(
    rows: &[tokio_postgres::Row],
    generation: i64,
) -> Result<Result<GroupAnswer, Shut>, tokio_postgres::Error> {
    let mut answer = GroupAnswer {
        found: Rows { generation: unsigned(generation), ..Rows::default() },
        ..GroupAnswer::default()
    };
    for row in rows {
        match row.try_get::<_, i16>(2)? {
            1 => return Ok(Err(Shut::Late)),
            2 => return Ok(Err(Shut::Elsewhere)),
            3 => return Ok(Err(Shut::ClockJump)),
            _ => {}
        }
        answer.now = unsigned(row.try_get(1)?);
        answer.ended = row.try_get(3)?;
        match row.try_get::<_, i16>(0)? {
            1 => {
                if let Some(Hash(hash)) = row.try_get(4)? {
                    answer.applied.push((hash, unsigned(row.try_get(5)?)));
                }
            }
            0 => answer.found.rows.push(stored(row)?),
            _ => {}
        }
    }
    answer.found.now = answer.now;
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
