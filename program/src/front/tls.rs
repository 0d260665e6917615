//! TLS to clients. Certificates are read again when their files change.

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

/// The time between two looks at the files.
const LOOK: Duration = Duration::from_secs(60);

/// Makes TLS handshakes with clients.
pub(crate) struct Tls {
    files: config::Tls,
    state: Mutex<State>,
}

struct State {
    acceptor: TlsAcceptor,
    /// The stamp of the files when they were read.
    stamp: Stamp,
}

/// The inode, the modification time and the length of each file.
type Stamp = Vec<Option<(u64, i64, i64, u64)>>;

impl Tls {
    /// `None` when TLS is not set up.
    ///
    /// # Errors
    /// When a file cannot be read or has the wrong contents.
    pub(crate) fn new(files: &config::Tls) -> Result<Option<Arc<Self>>, String> {
        let (Some(cert), Some(key)) = (&files.cert, &files.key) else { return Ok(None) };
        let stamp = stamp(files);
        let acceptor = acceptor(cert, key, files.client_ca.as_deref())?;
        let state = Mutex::new(State { acceptor, stamp });
        Ok(Some(Arc::new(Self { files: files.clone(), state })))
    }

    /// Reads the files again. Open connections keep their certificates.
    ///
    /// # Errors
    /// As for [`new`](Self::new). The old certificates then stay in force.
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

    /// Makes a handshake. Returns the stream, and the names in the client's certificate.
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
    // Either file may be the wrong one.
    let mut config =
        config.map_err(|error| format!("{} with {}: {error}", cert.display(), key.display()))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::{ClientConfig, pki_types::ServerName};

    /// Writes a self-signed certificate for `name`.
    fn write(files: &config::Tls, name: &str) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(files.cert.as_ref().unwrap(), made.cert.pem()).unwrap();
        std::fs::write(files.key.as_ref().unwrap(), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }

    /// Whether a new connection gets this certificate.
    async fn shows(tls: &Tls, certificate: &CertificateDer<'static>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("a.example").unwrap();
        let (_, connected) = tokio::join!(tls.accept(ours), connector.connect(name, theirs));
        connected.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_change_are_read_again_within_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| Some(dir.path().join(name));
        let files = config::Tls { cert: file("cert"), key: file("key"), client_ca: None };
        let old = write(&files, "a.example");
        let tls = Tls::new(&files).unwrap().unwrap();
        let looking = tokio::spawn(tls.clone().keep_fresh());
        assert!(shows(&tls, &old).await);

        let new = write(&files, "a.example");
        assert!(shows(&tls, &old).await, "not looked at yet");
        tokio::time::sleep(LOOK + Duration::from_millis(1)).await;
        assert!(shows(&tls, &new).await);
        assert!(!shows(&tls, &old).await);

        // A key that cannot be parsed, or of another certificate, is named with the certificate.
        for key in ["-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(), {
            let other = rcgen::generate_simple_self_signed(["b.example".to_owned()]).unwrap();
            other.signing_key.serialize_pem()
        }] {
            let wrong = config::Tls { key: file("other"), ..files.clone() };
            std::fs::write(wrong.key.as_ref().unwrap(), key).unwrap();
            let error = Tls::new(&wrong).err().unwrap();
            assert!(error.contains("cert with ") && error.contains("other: "), "{error}");
        }

        // An invalid file leaves the last valid one in force, and the next valid one is taken.
        std::fs::write(files.cert.as_ref().unwrap(), "nonsense").unwrap();
        tokio::time::sleep(LOOK + Duration::from_millis(1)).await;
        assert!(shows(&tls, &new).await);
        let newest = write(&files, "a.example");
        tokio::time::sleep(LOOK + Duration::from_millis(1)).await;
        assert!(shows(&tls, &newest).await);
        looking.abort();
    }
}
