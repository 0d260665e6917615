//! The place of an upstream.

use std::fmt;
use std::path::PathBuf;

use http::uri::{PathAndQuery, Uri};

/// An upstream, in the form of `--upstream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: Address,
    /// The prefix of the path of every request: empty or `/base`, without a slash at its end.
    pub(crate) base: String,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp { host: String, port: u16, speaks: Speaks },
    Unix(PathBuf),
}

/// The protocol on the connections of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 from the first byte.
    H2c,
}

impl Target {
    /// Reads `http://host[:port][/base]`, `https://…`, `h2c://…` or `unix:/path`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let of = |address, base: &str| Self {
            address,
            base: base.trim_end_matches('/').to_owned(),
            text: text.to_owned(),
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(of(Address::Unix(path.into()), "")),
                false => Err(format!("{text:?}: the path of a socket begins with /")),
            };
        }
        let uri: Uri = text.parse().map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        let speaks = match uri.scheme_str() {
            Some("http") => Speaks::Http,
            Some("https") => Speaks::Https,
            Some("h2c") => Speaks::H2c,
            _ => return Err(format!("{text:?}: write http://HOST:PORT or unix:/PATH")),
        };
        // The parser drops a fragment, so look for # in the text.
        if text.contains(['?', '#']) || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(format!("{text:?}: an upstream has no query, no fragment and no user"));
        }
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(format!("{text:?} has no host"));
        }
        let port = match port(&uri, text)? {
            Some(port) => port,
            None if speaks == Speaks::Https => 443,
            None => 80,
        };
        Ok(of(Address::Tcp { host, port, speaks }, uri.path()))
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.address, Address::Tcp { speaks: Speaks::Https, .. })
    }

    pub(crate) fn is_h2c(&self) -> bool {
        matches!(self.address, Address::Tcp { speaks: Speaks::H2c, .. })
    }

    /// Whether the upstream is on this machine, judged by its name.
    pub(crate) fn is_local(&self) -> bool {
        match &self.address {
            Address::Tcp { host, .. } => {
                host == "localhost"
                    || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
            }
            Address::Unix(_) => true,
        }
    }

    /// The host and port of the URL, as `Host` names them.
    pub(crate) fn authority(&self) -> String {
        match &self.address {
            Address::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp { host, port, .. } => format!("{host}:{port}"),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The target of a request to the upstream: in origin form, below the base.
    pub(crate) fn uri(&self, asked: Option<&PathAndQuery>) -> Uri {
        let joined = match asked.map_or("/", PathAndQuery::as_str) {
            "*" => "*".to_owned(),
            // A query without a path belongs to the root.
            query if query.starts_with('?') => format!("{}/{query}", self.base),
            path => format!("{}{path}", self.base),
        };
        joined.parse().unwrap_or_else(|_| Uri::from_static("/"))
    }
}

/// The port of a URL, if it has one.
fn port(uri: &Uri, text: &str) -> Result<Option<u16>, String> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let behind = authority.strip_prefix(uri.host().unwrap_or_default()).unwrap_or_default();
    match behind.strip_prefix(':') {
        None | Some("") => Ok(None),
        Some(digits) => match digits.parse() {
            Ok(port @ 1..) => Ok(Some(port)),
            _ => Err(format!("{text:?}: {digits:?} is not a port, write a port from 1 to 65535")),
        },
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_an_upstream() {
        let tcp = |text: &str| match Target::parse(text).unwrap() {
            Target { address: Address::Tcp { host, port, speaks: Speaks::Http }, base, .. } => {
                (host, port, base)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(tcp("http://127.0.0.1:3000"), ("127.0.0.1".into(), 3000, String::new()));
        assert_eq!(tcp("http://app/"), ("app".into(), 80, String::new()));
        assert_eq!(tcp("http://[::1]:3000/a/b/"), ("::1".into(), 3000, "/a/b".into()));
        assert_eq!(tcp("http://h:"), ("h".into(), 80, String::new()));
        let unix = Target::parse("unix:/run/app.sock").unwrap();
        assert_eq!(unix.address, Address::Unix("/run/app.sock".into()));
        let tls = Target::parse("https://app").unwrap().address;
        assert!(Target::parse("h2c://app:1").unwrap().is_h2c());
        assert_eq!(tls, Address::Tcp { host: "app".into(), port: 443, speaks: Speaks::Https });
        for wrong in [
            "127.0.0.1:3000",
            "ftp://h",
            "unix:app",
            "http://u@h",
            "http://h?q",
            "",
            "http://h#f",
            "http://h:0",
            "http://h:65536",
            "http://[::1]:x",
        ] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_goes_below_the_base() {
        let uri = |base: &str, asked: &str| {
            let asked: Uri = asked.parse().unwrap();
            Target::parse(base).unwrap().uri(asked.path_and_query()).to_string()
        };
        assert_eq!(uri("http://h", "/a?b=%20"), "/a?b=%20");
        assert_eq!(uri("http://h/base", "/a?b"), "/base/a?b");
        assert_eq!(uri("http://h", "http://other/a"), "/a");
        assert_eq!(uri("http://h/base", "*"), "*");
    }
}
