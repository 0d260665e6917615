//! Why calls fail.

use std::borrow::Cow;
use std::error::Error as _;
use std::fmt::Write;

use crate::abi::status::{self, *};

/// Why a call fails. The message is built only when the caller takes it.
#[derive(Debug)]
pub(crate) enum Failure {
    Engine(oncekey::Error),
    Own(i32, Cow<'static, str>),
}

impl Failure {
    pub(crate) fn new(status: i32, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Own(status, message.into())
    }

    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ONCEKEY_INVALID_INPUT, message)
    }

    pub(crate) fn null(what: &str) -> Self {
        Self::invalid(format!("{what} is NULL"))
    }

    pub(crate) fn io(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ONCEKEY_IO, message)
    }

    pub(crate) fn too_many() -> Self {
        Self::new(ONCEKEY_OVERLOADED, "there are no more handles")
    }

    pub(crate) fn status(&self) -> i32 {
        match self {
            Self::Engine(error) => status::of(error.kind()),
            Self::Own(status, _) => *status,
        }
    }

    /// The message followed by its causes, each after a colon.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Own(_, message) => message.to_string(),
            Self::Engine(error) => {
                let mut message = error.to_string();
                let mut cause = error.source();
                while let Some(error) = cause {
                    // Writing into a String cannot fail.
                    let _ = write!(message, ": {error}");
                    cause = error.source();
                }
                message
            }
        }
    }
}

impl From<oncekey::Error> for Failure {
    fn from(error: oncekey::Error) -> Self {
        Self::Engine(error)
    }
}
