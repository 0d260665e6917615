//! The source of the scope of a key, in the form of the configuration.

use std::fmt;

use http::HeaderName;

/// The source of the scope of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All keys share one scope.
    #[default]
    None,
    /// The value of a header.
    Header(HeaderName),
    /// The user of Basic authentication.
    BasicUser,
    /// A name in the verified certificate of the client.
    Mtls(CertificateName),
    /// A claim of a bearer token.
    Jwt(String),
    /// A parameter of the route's path.
    Path(String),
}

/// The part of a certificate that names its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateName {
    SanUri,
    SanDns,
    Sha256,
}

const FORMS: &str = "none, header:NAME, basic-user, mtls:san-uri, mtls:san-dns, mtls:sha256, jwt:CLAIM, \
    path:PARAMETER";

impl Scope {
    /// Reads the form of the configuration.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text.is_empty() || text == "none" => Ok(Self::None),
            None if text == "basic-user" => Ok(Self::BasicUser),
            Some(("header", name)) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Ok(Self::Header(name)),
                Err(_) => Err(format!("scope {text:?}: {name:?} is not the name of a header")),
            },
            Some(("mtls", "san-uri")) => Ok(Self::Mtls(CertificateName::SanUri)),
            Some(("mtls", "san-dns")) => Ok(Self::Mtls(CertificateName::SanDns)),
            Some(("mtls", "sha256")) => Ok(Self::Mtls(CertificateName::Sha256)),
            Some(("jwt", claim)) if !claim.is_empty() => Ok(Self::Jwt(claim.to_owned())),
            Some(("path", name)) if !name.is_empty() => Ok(Self::Path(name.to_owned())),
            _ => Err(format!("scope {text:?} is none of {FORMS}")),
        }
    }

    pub(crate) fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            _ => None,
        }
    }

    /// Whether the scope comes from `Authorization`.
    pub(crate) fn is_credential(&self) -> bool {
        matches!(self, Self::BasicUser | Self::Jwt(_))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::BasicUser => f.write_str("basic-user"),
            Self::Mtls(CertificateName::SanUri) => f.write_str("mtls:san-uri"),
            Self::Mtls(CertificateName::SanDns) => f.write_str("mtls:san-dns"),
            Self::Mtls(CertificateName::Sha256) => f.write_str("mtls:sha256"),
            Self::Jwt(claim) => write!(f, "jwt:{claim}"),
            Self::Path(name) => write!(f, "path:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_written_as_it_is_read() {
        for text in [
            "none",
            "header:x-tenant",
            "basic-user",
            "mtls:san-uri",
            "mtls:san-dns",
            "mtls:sha256",
            "jwt:sub",
            "path:tenant",
        ] {
            assert_eq!(Scope::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["tenant", "header:", "header:a b", "jwt:", "mtls:cn", "path:"] {
            assert!(Scope::parse(wrong).is_err(), "{wrong}");
        }
    }
}
