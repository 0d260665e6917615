//! Where the scope of a key comes from, as it is written.

use http::HeaderName;

/// Where the scope of a key comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All keys share one.
    #[default]
    None,
    /// The value of a header.
    Header(HeaderName),
    /// The user of Basic authentication.
    BasicUser,
}

impl Scope {
    /// Reads the specification of the configuration.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text.is_empty() || text == "none" => Ok(Self::None),
            None if text == "basic-user" => Ok(Self::BasicUser),
            Some(("header", name)) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Ok(Self::Header(name)),
                Err(_) => Err(format!("scope {text:?}: {name:?} is no name of a header")),
            },
            _ => Err(format!("scope {text:?} is none of none, header:NAME, basic-user")),
        }
    }

    pub(crate) fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            Self::None | Self::BasicUser => None,
        }
    }
}
