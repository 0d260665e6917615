//! Sockets that clients connect to.

use std::fs;
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use crate::config::Listen;

/// The sockets that systemd passed to this process, with their names. Source: sd_listen_fds(3).
pub(crate) struct Passed {
    sockets: ListenFd,
    /// The name of each socket; `None` after it was taken.
    names: Vec<Option<String>>,
}

impl Passed {
    /// Takes the sockets out of the environment.
    ///
    /// ORDER: call this before any thread is started, since it changes the environment.
    pub(crate) fn take() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let sockets = ListenFd::from_env();
        let names = (0..sockets.len()).map(|_| Some(names.next().unwrap_or_default())).collect();
        Self { sockets, names }
    }

    /// Takes the sockets with this name, or all that are left.
    fn listeners(&mut self, wanted: Option<&str>) -> io::Result<Vec<Listener>> {
        let mut found = Vec::new();
        for (at, name) in self.names.iter_mut().enumerate() {
            if name.as_deref().is_none_or(|name| wanted.is_some_and(|wanted| wanted != name)) {
                continue;
            }
            *name = None;
            found.push(match self.sockets.take_tcp_listener(at) {
                Ok(Some(listener)) => {
                    listener.set_nonblocking(true)?;
                    Listener::Tcp(TcpListener::from_std(listener)?)
                }
                _ => match self.sockets.take_unix_listener(at)? {
                    Some(listener) => {
                        listener.set_nonblocking(true)?;
                        // systemd owns the file of this socket.
                        Listener::Unix(UnixListener::from_std(listener)?, None)
                    }
                    None => continue,
                },
            });
        }
        if found.is_empty() {
            return Err(io::Error::other("systemd passed no such socket"));
        }
        Ok(found)
    }
}

/// Listens on an address.
///
/// # Errors
/// The errors of the system.
pub(crate) async fn bind(listen: &Listen, passed: &mut Passed) -> io::Result<Vec<Listener>> {
    match listen {
        Listen::Tcp(address) => Ok(vec![Listener::Tcp(TcpListener::bind(address).await?)]),
        Listen::Unix(path) => {
            // A socket that a killed process left behind refuses connections, and blocks a bind as well.
            let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
            if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
                fs::remove_file(path)?;
            }
            Ok(vec![Listener::Unix(UnixListener::bind(path)?, Some(path.clone()))])
        }
        Listen::Systemd(name) => passed.listeners(name.as_deref()),
    }
}

/// A socket that listens. Dropping it removes the file of a Unix socket.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Option<PathBuf>),
}

/// A connection from a client. It belongs to no runtime yet: the thread that serves it is not the one that
/// accepts it.
pub(crate) enum Accepted {
    Tcp(net::TcpStream, SocketAddr),
    Unix(unix::net::UnixStream),
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // If the connection is gone already, its first read fails.
                let _ = stream.set_nodelay(true);
                Ok(Accepted::Tcp(stream.into_std()?, peer))
            }
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0.into_std()?)),
        }
    }

    /// The URL at which clients reach this socket.
    pub(crate) fn url(&self, secure: bool) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) if secure => format!("https://{address}"),
                Ok(address) => format!("http://{address}"),
                Err(_) => "http://".to_owned(),
            },
            Self::Unix(listener, _) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                format!("unix:{}", path.unwrap_or("".as_ref()).display())
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, Some(path)) = self {
            // The file may be gone already.
            let _ = fs::remove_file(path);
        }
    }
}
