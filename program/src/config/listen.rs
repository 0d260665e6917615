//! The addresses to listen on, in the form of the configuration.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// The sockets that systemd passed: all, or those with this name.
    Systemd(Option<String>),
}

impl Listen {
    /// Reads `127.0.0.1:8080`, `:8080` for all interfaces, `localhost:8080`, `unix:/path`, `systemd`,
    /// `systemd:NAME`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(format!("{text:?}: the path of a socket begins with /")),
            };
        }
        if text == "systemd" {
            return Ok(Self::Systemd(None));
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            return match name {
                "" => Err(format!("{text:?}: a socket of systemd has a name")),
                _ => Ok(Self::Systemd(Some(name.to_owned()))),
            };
        }
        let wrong =
            || format!("{text:?} is not an address, write 127.0.0.1:8080, :8080 or unix:/path");
        if let Some(port) = text.strip_prefix(':') {
            let port = port.parse().map_err(|_| wrong())?;
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)));
        }
        let mut resolved = text.to_socket_addrs().map_err(|_| wrong())?;
        resolved.next().map(Self::Tcp).ok_or_else(wrong)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(None) => f.write_str("systemd"),
            Self::Systemd(Some(name)) => write!(f, "systemd:{name}"),
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
        assert_eq!(Listen::parse("systemd:http"), Ok(Listen::Systemd(Some("http".into()))));
        for wrong in ["", "80", "systemd:", "unix:x", ":http", "127.0.0.1:99999"] {
            assert!(Listen::parse(wrong).is_err(), "{wrong}");
        }
    }
}
