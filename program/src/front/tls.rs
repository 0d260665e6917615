//! TLS to clients, with certificates that are read again when they change.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};
use tokio_rustls::server::TlsStream;

use super::peer::Names;
use crate::config;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Shakes hands with clients.
pub(crate) struct Tls {
    files: config::Tls,
    state: Mutex<State>,
}

struct State {
    acceptor: TlsAcceptor,
    /// How the files looked when they were read.
    stamp: Stamp,
}

/// Where each file lies and when it was changed.
type Stamp = Vec<Option<(u64, i64, i64, u64)>>;

impl Tls {
    /// `None` when nothing is said of TLS.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what it should be.
    pub(crate) fn new(files: &config::Tls) -> Result<Option<Arc<Self>>, String> {
        let (Some(cert), Some(key)) = (&files.cert, &files.key) else { return Ok(None) };
        let stamp = stamp(files);
        let acceptor = acceptor(cert, key, files.client_ca.as_deref())?;
        let state = Mutex::new(State { acceptor, stamp });
        Ok(Some(Arc::new(Self { files: files.clone(), state })))
    }

    /// Reads the files again. Connections that are open keep what they were made with.
    ///
    /// # Errors
    /// As [`new`](Self::new); the old certificates stay in force.
    pub(crate) fn reload(&self) -> Result<(), String> {
        if let Some(new) = Self::new(&self.files)? {
            std::mem::swap(&mut *self.state.lock(), &mut *new.state.lock());
        }
        Ok(())
    }

    /// Reads the files again whenever they change, for as long as the process lives.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if stamp(&self.files) == self.state.lock().stamp {
                continue;
            }
            match self.reload() {
                Ok(()) => tracing::info!("the certificates were read again"),
                Err(error) => tracing::error!(error, "the certificates stay as they were"),
            }
        }
    }

    /// Shakes hands: the stream, and what its client's certificate says.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Option<Arc<Names>>)> {
        let acceptor = self.state.lock().acceptor.clone();
        let stream = acceptor.accept(stream).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let own = certificates.and_then(|chain| chain.first());
        let names = own.map(|certificate| Arc::new(Names::of(certificate)));
        Ok((stream, names))
    }
}

fn stamp(files: &config::Tls) -> Stamp {
    let paths: [&Option<PathBuf>; 3] = [&files.cert, &files.key, &files.client_ca];
    let of = |path: &Option<PathBuf>| {
        let metadata = std::fs::metadata(path.as_ref()?).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
    };
    paths.into_iter().map(of).collect()
}

fn acceptor(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(path, &error))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| wrong(path, &error))?)
        }
    };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let config = builder.with_single_cert(certificates(cert)?, private);
    let mut config = config.map_err(|error| wrong(cert, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, &error))?;
    let read: Result<Vec<_>, _> = read.collect();
    let read = read.map_err(|error| wrong(path, &error))?;
    if read.is_empty() { Err(wrong(path, &"no certificate in it")) } else { Ok(read) }
}

fn wrong(path: &Path, error: &impl ToString) -> String {
    format!("{}: {}", path.display(), error.to_string())
}
