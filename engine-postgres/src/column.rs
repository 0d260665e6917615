//! The columns of row images: their names and types in a statement, and their values as parameters.

use oncekey::fleet::store::RowImage;
use tokio_postgres::types::{ToSql, Type};

use crate::rows::{Hash, Param, Params, signed};

/// A column of the relation that a group statement makes of its parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    Hash,
    Expected,
    Writer,
    Op,
    State,
    Attempt,
    Grants,
    Resolves,
    Ttl,
    DeadlineIn,
    Since,
    ExpiresIn,
    Identity,
    Fingerprint,
    Checkpoint,
    Body,
}

use Column as C;

/// An image of any change.
pub(crate) const ANY: &[Column] = &[
    C::Hash,
    C::Expected,
    C::Writer,
    C::Op,
    C::State,
    C::Attempt,
    C::Grants,
    C::Resolves,
    C::Ttl,
    C::DeadlineIn,
    C::Since,
    C::ExpiresIn,
    C::Identity,
    C::Fingerprint,
    C::Checkpoint,
    C::Body,
];

/// The columns in which new claims differ.
pub(crate) const CLAIM: &[Column] =
    &[C::Hash, C::Op, C::Ttl, C::DeadlineIn, C::Identity, C::Fingerprint];

/// The columns in which ends of claims differ that the instance holds.
pub(crate) const END: &[Column] = &[C::Hash, C::Expected, C::Op, C::State, C::ExpiresIn, C::Body];

impl Column {
    /// Its name and type in the texts of the statements.
    pub(crate) fn sql(self) -> (&'static str, Type) {
        match self {
            C::Hash => ("hash", Type::UUID),
            C::Expected => ("expected", Type::INT8),
            C::Writer => ("writer", Type::INT8),
            C::Op => ("op", Type::INT8),
            C::State => ("state", Type::INT2),
            C::Attempt => ("attempt", Type::INT4),
            C::Grants => ("grants", Type::BOOL),
            C::Resolves => ("resolves", Type::BOOL),
            C::Ttl => ("ttl_ms", Type::INT8),
            C::DeadlineIn => ("deadline_in", Type::INT8),
            C::Since => ("since", Type::INT8),
            C::ExpiresIn => ("expires_in", Type::INT8),
            C::Identity => ("identity", Type::BYTEA),
            C::Fingerprint => ("fingerprint", Type::BYTEA),
            C::Checkpoint => ("checkpoint", Type::BYTEA),
            C::Body => ("body", Type::BYTEA),
        }
    }

    /// Its values as one parameter.
    fn param<'a>(self, images: Images<'_, 'a>) -> Param<'a> {
        match self {
            C::Hash => images.param(|image| Hash(image.hash)),
            C::Expected => images.param(|image| signed(image.expected)),
            C::Writer => images.param(|image| signed(image.writer)),
            C::Op => images.param(|image| signed(image.op)),
            C::State => images.param(|image| image.state as i16),
            C::Attempt => images.param(|image| image.attempt as i32),
            C::Grants => images.param(|image| image.grants),
            C::Resolves => images.param(|image| image.resolves),
            C::Ttl => images.param(|image| signed(image.ttl)),
            C::DeadlineIn => images.param(|image| image.deadline_in.map(signed)),
            C::Since => images.param(|image| image.since.map(signed)),
            C::ExpiresIn => images.param(|image| image.expires_in.map(signed)),
            C::Identity => images.param(|image| &image.identity[..]),
            C::Fingerprint => images.param(|image| image.fingerprint.as_deref()),
            C::Checkpoint => images.param(|image| image.checkpoint.as_deref()),
            C::Body => images.param(|image| image.body.as_deref()),
        }
    }
}

/// The images of a statement.
#[derive(Clone, Copy)]
pub(crate) struct Images<'i, 'a> {
    pub(crate) images: &'i [&'a RowImage],
    /// Whether each parameter is an array, also of one image.
    pub(crate) many: bool,
}

impl<'a> Images<'_, 'a> {
    /// A parameter for each of the columns.
    pub(crate) fn params(self, columns: &[Column]) -> Params<'a> {
        columns.iter().map(|column| column.param(self)).collect()
    }

    fn param<T: ToSql + Sync + Send + 'a>(self, of: impl Fn(&'a RowImage) -> T) -> Param<'a> {
        match self.images {
            [image] if !self.many => Box::new(of(image)),
            images => Box::new(images.iter().map(|image| of(image)).collect::<Vec<T>>()),
        }
    }
}
