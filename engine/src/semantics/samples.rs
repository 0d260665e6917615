//! Records, keys and noise that tests of several folders share.

use std::time::Duration;

use crate::base::bytes::SharedBytes;
use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::{Attempt, Completed, Record, State};
use crate::semantics::secret::Secret;
use crate::semantics::time::Time;
use crate::semantics::token::Token;

/// The secret of the store that the samples belong to.
pub(crate) const SECRET: Secret = Secret([7; Secret::LEN]);

/// Repeatable noise: splitmix64.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn hash(&mut self) -> KeyHash {
        KeyHash(u128::from(self.next()) << 64 | u128::from(self.next()))
    }
}

pub(crate) fn key(number: u64) -> Key {
    Key::new("scope", format!("key-{number}")).unwrap()
}

pub(crate) fn hash(key: &Key) -> KeyHash {
    KeyHash::of(key, &SECRET)
}

fn record(key: &Key, state: State) -> Record {
    let fingerprint = Fingerprint::builder().part("body", key.key()).finish();
    let fingerprint = KeyedFingerprint::new(fingerprint, &SECRET).to_stored();
    Record { key: key.clone(), fingerprint, state }
}

fn token(sequence: u64) -> Token {
    Token { incarnation: 1, epoch: 1, sequence }
}

fn attempt(sequence: u64) -> Attempt {
    Attempt {
        token: token(sequence),
        number: 1,
        started_at: Time(5),
        deadline: None,
        ttl: Duration::from_millis(500),
        checkpoint: None,
    }
}

pub(crate) fn completed(key: &Key, sequence: u64, expires_at: u64, response: &[u8]) -> Record {
    record(
        key,
        State::Completed(Completed {
            token: token(sequence),
            completed_at: Time(6),
            expires_at: Time(expires_at),
            response: Some(SharedBytes::copy_of(response)),
        }),
    )
}

pub(crate) fn in_flight(key: &Key, sequence: u64) -> Record {
    record(key, State::InFlight(attempt(sequence)))
}

/// Expires 500 ms after `since`.
pub(crate) fn orphan(key: &Key, sequence: u64, since: u64) -> Record {
    record(key, State::Orphan { attempt: attempt(sequence), since: Time(since) })
}
