//! Signed-in browsers, links that sign in, and addresses that guess tokens.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::caller::{Caller, Role};
use super::secret::{self, Digest};

/// How long a browser stays signed in.
pub(crate) const SESSION: Duration = Duration::from_secs(8 * 60 * 60);

/// How long a link can be used.
pub(crate) const LINK: Duration = Duration::from_secs(60);

/// The largest number of sessions, of links, and of guessing addresses.
const MOST: usize = 1000;

/// An address that sends this many wrong tokens within [`WINDOW`] is shut out until the window ends.
const GUESSES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// The sessions, links and wrong tokens of this process. They are lost when the process ends.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<Digest, Session>>,
    links: Mutex<HashMap<Digest, Link>>,
    guesses: Mutex<HashMap<IpAddr, (u32, Instant)>>,
}

#[derive(Debug)]
struct Session {
    caller: Caller,
    until: Instant,
}

#[derive(Debug)]
struct Link {
    name: String,
    role: Role,
    until: Instant,
}

impl Sessions {
    /// Opens a session. Returns the value of its cookie and the value for `Oncekey-Csrf`.
    pub(crate) fn open(&self, name: String, role: Role) -> io::Result<(String, String)> {
        let (cookie, csrf) = (secret::random()?, secret::random()?);
        let caller = Caller { name, role, peer: None, csrf: Some(csrf.clone()) };
        let session = Session { caller, until: Instant::now() + SESSION };
        keep(&mut self.open.lock(), Digest::of(cookie.as_bytes()), session, |each| each.until);
        Ok((cookie, csrf))
    }

    pub(crate) fn find(&self, cookie: &[u8]) -> Option<Caller> {
        let open = self.open.lock();
        let session = open.get(&Digest::of(cookie))?;
        (Instant::now() < session.until).then(|| session.caller.clone())
    }

    pub(crate) fn close(&self, cookie: &[u8]) {
        self.open.lock().remove(&Digest::of(cookie));
    }

    /// A token that signs in once, within [`LINK`].
    pub(crate) fn link(&self, caller: &Caller) -> io::Result<String> {
        let token = secret::random()?;
        let link =
            Link { name: caller.name.clone(), role: caller.role, until: Instant::now() + LINK };
        keep(&mut self.links.lock(), Digest::of(token.as_bytes()), link, |each| each.until);
        Ok(token)
    }

    /// The name and role of the operator who made the link. A second use of the token finds nothing.
    pub(crate) fn follow(&self, token: &[u8]) -> Option<(String, Role)> {
        let link = self.links.lock().remove(&Digest::of(token))?;
        (Instant::now() < link.until).then_some((link.name, link.role))
    }

    /// Whether an address sent too many wrong tokens. Even the right token is refused then.
    pub(crate) fn is_shut_out(&self, address: Option<IpAddr>) -> bool {
        let guesses = self.guesses.lock();
        let of = address.and_then(|address| guesses.get(&neighbourhood(address)));
        of.is_some_and(|(times, until)| *times >= GUESSES && Instant::now() < *until)
    }

    pub(crate) fn guessed(&self, address: Option<IpAddr>) {
        let Some(address) = address.map(neighbourhood) else { return };
        let mut guesses = self.guesses.lock();
        let now = Instant::now();
        match guesses.get_mut(&address) {
            Some((times, until)) if now < *until => *times += 1,
            _ => keep(&mut guesses, address, (1, now + WINDOW), |(_, until)| *until),
        }
    }
}

/// The addresses that one guesser may have: in IPv6 a network of 64 bits.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            IpAddr::from(std::net::Ipv6Addr::from_bits(address.to_bits() >> 64 << 64))
        }
    }
}

/// Adds an entry. At the bound it first drops the ended entries, and then, if none had ended, the one that
/// ends first.
fn keep<K: std::hash::Hash + Eq + Copy, V>(
    map: &mut HashMap<K, V>,
    key: K,
    value: V,
    until: impl Fn(&V) -> Instant,
) {
    if map.len() >= MOST {
        let now = Instant::now();
        map.retain(|_, each| now < until(each));
        let first = map.iter().min_by_key(|(_, each)| until(each)).map(|(key, _)| *key);
        if let Some(first) = first.filter(|_| map.len() >= MOST) {
            map.remove(&first);
        }
    }
    map.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_signs_in_once() {
        let sessions = Sessions::default();
        let token = sessions.link(&Caller::operator("uid 7")).unwrap();
        let expected = Some(("uid 7".to_owned(), Role::Operator));
        assert_eq!(sessions.follow(token.as_bytes()), expected);
        assert_eq!(sessions.follow(token.as_bytes()), None);
        assert_eq!(sessions.follow(b""), None);
    }

    #[test]
    fn a_session_ends_when_it_is_closed() {
        let sessions = Sessions::default();
        let (cookie, csrf) = sessions.open("token".to_owned(), Role::Viewer).unwrap();
        let caller = sessions.find(cookie.as_bytes()).unwrap();
        assert_eq!((caller.role, caller.csrf), (Role::Viewer, Some(csrf)));
        sessions.close(cookie.as_bytes());
        assert_eq!(sessions.find(cookie.as_bytes()), None);
    }

    #[test]
    fn ten_guesses_shut_an_address_out_and_no_other() {
        let sessions = Sessions::default();
        let at = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for _ in 0..GUESSES {
            assert!(!sessions.is_shut_out(at("2001:db8::1")));
            sessions.guessed(at("2001:db8::1"));
        }
        assert!(sessions.is_shut_out(at("2001:db8::1")) && sessions.is_shut_out(at("2001:db8::2")));
        assert!(!sessions.is_shut_out(at("2001:db8:1::1")) && !sessions.is_shut_out(None));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let sessions = Sessions::default();
        let (first, _) = sessions.open("first".to_owned(), Role::Viewer).unwrap();
        for _ in 0..MOST {
            sessions.open("more".to_owned(), Role::Viewer).unwrap();
        }
        assert_eq!(sessions.open.lock().len(), MOST);
        assert_eq!(sessions.find(first.as_bytes()), None, "the oldest made room");
    }
}
