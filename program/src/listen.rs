//! Where clients connect.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Listen {
    /// Reads `127.0.0.1:8080`, `:8080` for all interfaces, `localhost:8080`, `unix:/path`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(format!("{text:?}: the path of a socket begins with /")),
            };
        }
        let wrong = || format!("{text:?} is no address, write 127.0.0.1:8080, :8080 or unix:/path");
        if let Some(port) = text.strip_prefix(':') {
            let port = port.parse().map_err(|_| wrong())?;
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)));
        }
        let mut resolved = text.to_socket_addrs().map_err(|_| wrong())?;
        resolved.next().map(Self::Tcp).ok_or_else(wrong)
    }

    pub(crate) async fn bind(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
            Self::Unix(path) => {
                // A socket that a process left behind refuses connections, and binding as well.
                let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
                if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
                    fs::remove_file(path)?;
                }
                Ok(Listener::Unix(UnixListener::bind(path)?, path.clone()))
            }
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that listens. The file of a Unix socket goes with it.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A connection that a client made.
pub(crate) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // A connection that is gone already fails when it is read.
                let _ = stream.set_nodelay(true);
                Ok(Accepted::Tcp(stream, peer))
            }
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }

    /// As a client names it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}"),
                Err(_) => "http://".to_owned(),
            },
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // It may be gone already.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_an_address() {
        let tcp = |text: &str| Listen::Tcp(text.parse().unwrap());
        assert_eq!(Listen::parse("127.0.0.1:80"), Ok(tcp("127.0.0.1:80")));
        assert_eq!(Listen::parse(":80"), Ok(tcp("0.0.0.0:80")));
        assert_eq!(Listen::parse("[::1]:80"), Ok(tcp("[::1]:80")));
        assert_eq!(Listen::parse("unix:/run/x"), Ok(Listen::Unix("/run/x".into())));
        for wrong in ["", "80", "unix:x", ":http", "127.0.0.1:99999"] {
            assert!(Listen::parse(wrong).is_err(), "{wrong}");
        }
    }
}
