//! TLS, by rustls with ring.

use std::sync::Arc;

use oncekey::fleet::store::error;
use oncekey::{ErrorKind, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How connections are secured.
pub(crate) type Tls = MakeRustlsConnect;

/// The TLS of connections. A certificate must be signed by one of the roots, and name the host.
/// `None` for a server of this machine, and where the URL says so.
pub(crate) fn make(mode: SslMode, root_certificates: Option<&[u8]>) -> Result<Option<Tls>> {
    if mode == SslMode::Disable {
        return Ok(None);
    }
    let roots = match root_certificates {
        Some(pem) => roots(pem)?,
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| invalid(source.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(MakeRustlsConnect::new(config)))
}

/// The certificates of the option `root_certificates`.
pub(crate) fn roots(pem: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|source| invalid(source.into()))?;
        roots.add(certificate).map_err(|source| invalid(source.into()))?;
    }
    if roots.is_empty() {
        let why = "root_certificates has no certificate in PEM, at least 1 is needed";
        return Err(error(ErrorKind::InvalidInput, why, None));
    }
    Ok(roots)
}

fn invalid(source: Box<dyn std::error::Error + Send + Sync>) -> oncekey::Error {
    error(ErrorKind::InvalidInput, "root_certificates cannot be used", Some(source))
}
