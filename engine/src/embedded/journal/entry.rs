//! One change in a group.
//!
//! ```text
//! claim      1 u8 | key hash u128 | ttl ms u64 | deadline u64, MAX: none | identity u32+bytes | fingerprint u32+bytes
//! take over  2 u8 | key hash u128 | deadline u64, MAX: none
//! complete   3 u8 | key hash u128 | expires at u64 | kept u8 | response u32+bytes, if kept is 1
//! checkpoint 4 u8 | key hash u128 | data u32+bytes
//! orphan     5 u8 | key hash u128 | since u64
//! remove     6 u8 | key hash u128
//! epoch      7 u8 | end of the epoch before u64 | incarnation u64
//! ```
//!
//! Times are engine time in milliseconds. The sequence of an entry is the group's first sequence
//! plus its place in the group.

use std::time::Duration;

use crate::base::bytes::SharedBytes;
use crate::base::codec::{Decoder, Encode};
use crate::base::error::{Error, Result};
use crate::semantics::command::Change;
use crate::semantics::fingerprint::StoredFingerprint;
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::time::{Time, millis};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    Change(KeyHash, Change),
    /// A new epoch begins. Every claim of an earlier epoch is an orphan, which dates from the end
    /// of the epoch before. The entry contains that end, because the store file may have a later
    /// time when the entry is replayed.
    Epoch {
        ended: Time,
        /// The incarnation of the tokens that are issued from here on.
        incarnation: u64,
    },
}

const NO_DEADLINE: u64 = u64::MAX;

pub(crate) fn encode_change(out: &mut impl Encode, hash: KeyHash, change: &Change) {
    out.put_u8(match change {
        Change::Claim { .. } => 1,
        Change::TakeOver { .. } => 2,
        Change::Complete { .. } => 3,
        Change::Checkpoint { .. } => 4,
        Change::Orphan { .. } => 5,
        Change::Remove => 6,
    });
    out.put_u128(hash.0);
    match change {
        Change::Claim { key, fingerprint, ttl, deadline } => {
            out.put_u64(millis(*ttl));
            out.put_u64(deadline.map_or(NO_DEADLINE, |deadline| deadline.0));
            out.put_bytes(key.identity());
            out.put_bytes(fingerprint.bytes());
        }
        Change::TakeOver { deadline } => {
            out.put_u64(deadline.map_or(NO_DEADLINE, |deadline| deadline.0));
        }
        Change::Complete { response, expires_at } => {
            out.put_u64(expires_at.0);
            out.put_u8(u8::from(response.is_some()));
            if let Some(response) = response {
                out.put_bytes(response);
            }
        }
        Change::Checkpoint { data } => out.put_bytes(data),
        Change::Orphan { since } => out.put_u64(since.0),
        Change::Remove => {}
    }
}

pub(crate) fn encode_epoch(out: &mut impl Encode, ended: Time, incarnation: u64) {
    out.put_u8(7);
    out.put_u64(ended.0);
    out.put_u64(incarnation);
}

pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Entry> {
    let kind = decoder.u8()?;
    if kind == 7 {
        return Ok(Entry::Epoch { ended: Time(decoder.u64()?), incarnation: decoder.u64()? });
    }
    let hash = KeyHash(decoder.u128()?);
    let change = match kind {
        1 => {
            let ttl = Duration::from_millis(decoder.u64()?);
            let deadline = deadline(decoder)?;
            let key = Key::from_identity(SharedBytes::copy_of(decoder.bytes()?))?;
            let fingerprint = StoredFingerprint::decode(SharedBytes::copy_of(decoder.bytes()?))?;
            Change::Claim { key, fingerprint, ttl, deadline }
        }
        2 => Change::TakeOver { deadline: deadline(decoder)? },
        3 => {
            let expires_at = Time(decoder.u64()?);
            let response = match decoder.u8()? {
                0 => None,
                1 => Some(SharedBytes::copy_of(decoder.bytes()?)),
                _ => return Err(Error::corrupted("a journal entry has an unknown response form")),
            };
            Change::Complete { response, expires_at }
        }
        4 => Change::Checkpoint { data: SharedBytes::copy_of(decoder.bytes()?) },
        5 => Change::Orphan { since: Time(decoder.u64()?) },
        6 => Change::Remove,
        other => return Err(Error::corrupted(format!("unknown journal entry kind {other}"))),
    };
    Ok(Entry::Change(hash, change))
}

fn deadline(decoder: &mut Decoder<'_>) -> Result<Option<Time>> {
    Ok(Some(decoder.u64()?).filter(|deadline| *deadline != NO_DEADLINE).map(Time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::command::Command;
    use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
    use crate::semantics::samples::{SECRET, completed, hash};
    use crate::semantics::secret::Secret;
    use crate::semantics::token::Token;

    fn entries() -> Vec<Entry> {
        let fingerprint = KeyedFingerprint::new(
            Fingerprint::builder().part("body", "x").finish(),
            &Secret([1; Secret::LEN]),
        );
        [
            Change::Claim {
                key: Key::new("s", "k").unwrap(),
                fingerprint: fingerprint.to_stored(),
                ttl: Duration::from_secs(1),
                deadline: Some(Time(9)),
            },
            Change::TakeOver { deadline: None },
            Change::Complete {
                response: Some(SharedBytes::copy_of(b"response")),
                expires_at: Time(7),
            },
            Change::Complete { response: None, expires_at: Time(7) },
            Change::Checkpoint { data: SharedBytes::copy_of(b"step 2") },
            Change::Orphan { since: Time(3) },
            Change::Remove,
        ]
        .into_iter()
        .map(|change| Entry::Change(KeyHash(42), change))
        .chain([Entry::Epoch { ended: Time(8), incarnation: 5 }])
        .collect()
    }

    fn encode(entry: &Entry) -> Vec<u8> {
        let mut bytes = Vec::new();
        match entry {
            Entry::Change(hash, change) => encode_change(&mut bytes, *hash, change),
            Entry::Epoch { ended, incarnation } => {
                encode_epoch(&mut bytes, *ended, *incarnation);
            }
        }
        bytes
    }

    #[test]
    fn commands_changes_and_records_are_printed_without_their_bytes() {
        let (key, data) = (Key::new("QQQQ", "QQQQ").unwrap(), SharedBytes::copy_of(b"QQQQ"));
        let presented = Fingerprint::builder().part("body", "QQQQ").finish();
        let fingerprint = KeyedFingerprint::new(presented, &SECRET);
        let stored = fingerprint.to_stored();
        let (ttl, token) =
            (Duration::from_secs(1), Token { incarnation: 1, epoch: 1, sequence: 1 });
        let mut record = completed(&key, 1, 2, b"QQQQ");
        record.fingerprint = stored.clone();
        let claim = Change::Claim { key: key.clone(), fingerprint: stored, ttl, deadline: None };
        let changes = [
            claim,
            Change::Complete { response: Some(data.clone()), expires_at: Time(0) },
            Change::Checkpoint { data: data.clone() },
        ];
        let commands = [
            Command::Begin { fingerprint, ttl, max_execution: None },
            Command::Complete { token, response: Some(data.clone()), ttl: None },
            Command::Checkpoint { token, data },
        ];
        let printed = format!("{record:#?} {commands:?}");
        let entries = changes.map(|change| format!("{:?}", Entry::Change(hash(&key), change)));
        for printed in entries.into_iter().chain([printed]) {
            let listed = printed.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(!listed.contains("QQQQ") && !listed.contains("81, 81, 81"), "{printed}");
        }
    }

    #[test]
    fn every_entry_comes_back_and_every_truncation_is_corrupted() {
        for entry in entries() {
            let bytes = encode(&entry);
            let mut decoder = Decoder::new(&bytes);
            assert_eq!(decode(&mut decoder).unwrap(), entry);
            decoder.finish().unwrap();
            for len in 0..bytes.len() {
                assert!(
                    decode(&mut Decoder::new(&bytes[..len])).is_err(),
                    "{entry:?} cut at {len}"
                );
            }
        }
        assert!(decode(&mut Decoder::new(&[8; 64])).is_err());
    }
}
