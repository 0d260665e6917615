//! The client at the other end of a connection.

use std::net::IpAddr;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The facts about a client that its connection shows.
#[derive(Clone, Default)]
pub(crate) struct Peer {
    /// `None` on a Unix socket.
    pub(crate) address: Option<IpAddr>,
    /// Whether it connected over TLS.
    pub(crate) secure: bool,
    /// The names in its verified certificate.
    pub(crate) certificate: Option<Arc<Names>>,
}

/// The names of a client in its certificate. A name that occurs more than once counts as missing: no rule
/// says which one is meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) san_uri: Option<String>,
    pub(crate) san_dns: Option<String>,
    /// The hash of the whole certificate, in hexadecimal digits.
    pub(crate) sha256: String,
}

impl Names {
    /// Reads a certificate.
    pub(crate) fn of(der: &[u8]) -> Self {
        let alternative = Certificate::from_der(der).ok().and_then(|certificate| {
            let found = certificate.tbs_certificate.get::<SubjectAltName>();
            found.ok().flatten().map(|(_, SubjectAltName(names))| names)
        });
        let alternative = alternative.unwrap_or_default();
        let uris = alternative.iter().filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
            _ => None,
        });
        let hosts = alternative.iter().filter_map(|name| match name {
            GeneralName::DnsName(host) => Some(host.to_string().to_ascii_lowercase()),
            _ => None,
        });
        let hash = digest(&SHA256, der);
        let sha256 = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { san_uri: only(uris), san_dns: only(hosts), sha256 }
    }
}

fn only(mut names: impl Iterator<Item = String>) -> Option<String> {
    let first = names.next()?;
    names.next().is_none().then_some(first)
}
