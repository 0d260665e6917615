//! Access over TCP: tokens, and the host names that requests may use.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use http::header::{self, HeaderMap};
use http::uri::Authority;

use super::caller::Role;
use super::secret::{self, Digest};

/// The shortest token that is accepted.
const SHORTEST: usize = 16;

/// The authentication of [`Admin::guarded`](crate::Admin::guarded): bearer tokens, and the sessions of
/// browsers that signed in with a token. Without tokens, only a link of the control socket signs in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    tokens: Vec<(Digest, Role)>,
    hosts: Vec<String>,
    secure: bool,
}

impl Access {
    /// Has no tokens and accepts requests for names of this machine alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Accepts the token in `file` as an operator's. A missing file is created, with mode 0600 and a random
    /// token.
    ///
    /// # Errors
    /// When the file cannot be read or created, when users other than its owner and group have any permission
    /// on it, and when the token is shorter than 16 characters.
    pub fn operator_token_file(self, file: impl AsRef<Path>) -> io::Result<Self> {
        self.with(file.as_ref(), Role::Operator)
    }

    /// Accepts the token in `file` for viewers, who see but do not change.
    ///
    /// # Errors
    /// As [`operator_token_file`](Self::operator_token_file).
    pub fn viewer_token_file(self, file: impl AsRef<Path>) -> io::Result<Self> {
        self.with(file.as_ref(), Role::Viewer)
    }

    fn with(mut self, file: &Path, role: Role) -> io::Result<Self> {
        let token = token_of(file)?;
        self.tokens.push((Digest::of(token.as_bytes()), role));
        Ok(self)
    }

    /// Accepts requests for these host names, besides `localhost` and loopback addresses. Any other name is
    /// refused with 421: a foreign page whose name resolves to this address cannot use the API.
    pub fn hosts(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts.extend(names.into_iter().map(|name| name.into().to_ascii_lowercase()));
        self
    }

    /// Whether clients come over TLS. The session cookie is then sent over TLS alone.
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Whether an operator or a viewer can sign in without the control socket.
    pub fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// The role of a token. Every token is compared, also after a match, so that the time tells nothing.
    pub(crate) fn role_of(&self, token: &[u8]) -> Option<Role> {
        let given = Digest::of(token);
        let compare = |found: Option<Role>, (each, role): &(Digest, Role)| match *each == given {
            true => Some(*role),
            false => found,
        };
        self.tokens.iter().fold(None, compare)
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether the Host of a request is one of ours.
    pub(crate) fn allows(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
        let name = authority.host().to_ascii_lowercase();
        if name == "localhost" || self.hosts.contains(&name) {
            return true;
        }
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

fn token_of(file: &Path) -> io::Result<String> {
    let said =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    match made {
        Ok(mut made) => {
            let token = secret::random()?;
            let written = made.write_all(format!("{token}\n").as_bytes());
            written.and_then(|()| made.sync_all()).map_err(said)?;
            Ok(token)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::metadata(file).map_err(said)?.mode() & 0o007 != 0 {
                return Err(said(io::Error::other(
                    "every user may read the token file: run chmod 600 on it",
                )));
            }
            let token = fs::read_to_string(file).map_err(said)?.trim().to_owned();
            if token.len() < SHORTEST {
                let message = format!("the token is shorter than {SHORTEST} characters");
                return Err(said(io::Error::other(message)));
            }
            Ok(token)
        }
        Err(error) => Err(said(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("operator.token");
        let access = Access::new().operator_token_file(&file).unwrap();
        let token = fs::read_to_string(&file).unwrap().trim().to_owned();
        assert_eq!((token.len(), fs::metadata(&file).unwrap().mode() & 0o777), (64, 0o600));
        assert_eq!(access.role_of(token.as_bytes()), Some(Role::Operator));
        assert_eq!(access.role_of(b""), None);
        let again = Access::new().viewer_token_file(&file).unwrap();
        assert_eq!(again.role_of(token.as_bytes()), Some(Role::Viewer));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Access::new().operator_token_file(&file).is_err(), "everybody may read it");
        let short = directory.path().join("short");
        fs::write(&short, "secret\n").unwrap();
        fs::set_permissions(&short, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Access::new().operator_token_file(&short).is_err());
    }

    #[test]
    fn the_host_is_this_machine_or_a_name_that_is_listed() {
        let access = Access::new().hosts(["Ops.example"]);
        let allows = |host: &str| {
            let value = http::HeaderValue::from_str(host).unwrap();
            access.allows(&HeaderMap::from_iter([(header::HOST, value)]))
        };
        for good in ["localhost", "LOCALHOST:9465", "127.0.0.1:9465", "[::1]:80", "ops.example:1"] {
            assert!(allows(good), "{good}");
        }
        for bad in ["evil.example", "localhost.evil", "10.0.0.1", "", "127.0.0.1.evil", "a b"] {
            assert!(!allows(bad), "{bad}");
        }
        assert!(!access.allows(&HeaderMap::new()));
    }
}
