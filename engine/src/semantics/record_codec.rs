//! The stored form of a record.
//!
//! ```text
//! checksum u64 | length u32 of all that follows | sequence u64 | kind u8
//! | identity (length u32, bytes) | fingerprint (length u32, bytes) | state
//!
//! kind 1, in flight:  attempt
//! kind 2, orphan:     attempt | since u64
//! kind 3, completed:  token | completed at u64 | expires at u64
//! kind 4, completed with its response: as 3 | response (length u32, bytes)
//!
//! token:    incarnation u64 | epoch u64 | sequence u64
//! attempt:  token | number u32 | started at u64 | flags u8 (1: deadline, 2: checkpoint)
//!           | ttl (seconds u64, nanoseconds u32) | [deadline u64]
//!           | [checkpoint (length u32, checksum u64), whose bytes are elsewhere]
//! ```
//! The checksum covers everything after it. Its seed includes the place of the record, so that a
//! record is not valid in another record's place.

use std::ops::DerefMut;
use std::sync::Arc;
use std::time::Duration;

use crate::base::bytes::SharedBytes;
use crate::base::codec::{Decoder, Encode, checksum};
use crate::base::error::{Error, Result};
use crate::semantics::fingerprint::StoredFingerprint;
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::Versioned;
use crate::semantics::record::{Attempt, Checkpoint, Completed, Record, State, StoredCheckpoint};
use crate::semantics::time::Time;
use crate::semantics::token::Token;

const IN_FLIGHT: u8 = 1;
const ORPHAN: u8 = 2;
const COMPLETED: u8 = 3;
const COMPLETED_WITH_RESPONSE: u8 = 4;

const HAS_DEADLINE: u8 = 1;
const HAS_CHECKPOINT: u8 = 2;

/// Keeps the checksum of a checkpoint apart from that of its key's record.
const CHECKPOINT_SEED: u64 = 0x6368_6563_6b70_6f69;

/// Bytes before the sequence.
const HEAD: usize = 12;

/// The seed of an open record's checksum.
pub(crate) fn open_seed(seed: u64, hash: KeyHash) -> u64 {
    seed ^ hash.0 as u64 ^ (hash.0 >> 64) as u64
}

impl StoredCheckpoint {
    /// `seed` is that of the open record.
    pub(crate) fn of(seed: u64, data: &[u8]) -> Self {
        // `Options::max_checkpoint` keeps the length far below 4 GiB.
        Self { len: data.len() as u32, checksum: checksum(seed ^ CHECKPOINT_SEED, data) }
    }
}

impl Checkpoint {
    /// Length and checksum of its bytes in the store file. `seed` is that of the open record.
    pub(crate) fn stored(&self, seed: u64) -> StoredCheckpoint {
        match self {
            Self::Here(data) => StoredCheckpoint::of(seed, data),
            Self::Stored(stored) => *stored,
        }
    }
}

/// Appends the record to `out` and returns its checksum. The bytes of a checkpoint are stored
/// apart.
pub(crate) fn encode(
    out: &mut (impl Encode + DerefMut<Target = [u8]>),
    seed: u64,
    sequence: u64,
    record: &Record,
) -> u64 {
    let start = out.len();
    out.put(&[0; HEAD]);
    out.put_u64(sequence);
    out.put_u8(match &record.state {
        State::InFlight(_) => IN_FLIGHT,
        State::Orphan { .. } => ORPHAN,
        State::Completed(Completed { response: None, .. }) => COMPLETED,
        State::Completed(_) => COMPLETED_WITH_RESPONSE,
    });
    out.put_bytes(record.key.identity());
    out.put_bytes(record.fingerprint.bytes());
    match &record.state {
        State::InFlight(attempt) => encode_attempt(out, seed, attempt),
        State::Orphan { attempt, since } => {
            encode_attempt(out, seed, attempt);
            out.put_u64(since.0);
        }
        State::Completed(completed) => {
            encode_token(out, completed.token);
            out.put_u64(completed.completed_at.0);
            out.put_u64(completed.expires_at.0);
            if let Some(response) = &completed.response {
                out.put_bytes(response);
            }
        }
    }
    let length = (out.len() - start - HEAD) as u32;
    out[start + 8..start + HEAD].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(seed, &out[start + 8..]);
    out[start..start + 8].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// A record that was read.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) record: Record,
    pub(crate) checksum: u64,
    /// The number of its stored bytes.
    pub(crate) len: usize,
}

impl From<Stored> for Versioned {
    fn from(stored: Stored) -> Self {
        Self { sequence: stored.sequence, record: Some(Arc::new(stored.record)) }
    }
}

/// Checks and reads the record at the start of `bytes`. Its parts share `bytes`.
pub(crate) fn decode(bytes: &SharedBytes, seed: u64) -> Result<Stored> {
    let mut head = Decoder::new(bytes);
    let stored = head.u64()?;
    let body = head.bytes()?;
    let len = HEAD + body.len();
    if checksum(seed, &bytes[8..len]) != stored {
        return Err(Error::corrupted("a record fails its checksum"));
    }
    let mut decoder = Decoder::new(body);
    let sequence = decoder.u64()?;
    let kind = decoder.u8()?;
    let key = Key::from_identity(bytes.part(decoder.bytes()?))?;
    let fingerprint = StoredFingerprint::decode(bytes.part(decoder.bytes()?))?;
    let state = match kind {
        IN_FLIGHT => State::InFlight(decode_attempt(&mut decoder)?),
        ORPHAN => {
            State::Orphan { attempt: decode_attempt(&mut decoder)?, since: Time(decoder.u64()?) }
        }
        COMPLETED | COMPLETED_WITH_RESPONSE => State::Completed(Completed {
            token: decode_token(&mut decoder)?,
            completed_at: Time(decoder.u64()?),
            expires_at: Time(decoder.u64()?),
            response: match kind {
                COMPLETED => None,
                _ => Some(bytes.part(decoder.bytes()?)),
            },
        }),
        other => {
            return Err(Error::corrupted(format!("a record is of the unknown kind {other}")));
        }
    };
    decoder.finish()?;
    Ok(Stored { sequence, record: Record { key, fingerprint, state }, checksum: stored, len })
}

/// The key of the record at the start of `bytes`. The checksum is not checked.
pub(crate) fn peek_key(bytes: &[u8]) -> Option<Key> {
    let mut decoder = Decoder::new(bytes.get(HEAD..)?);
    decoder.u64().ok()?;
    decoder.u8().ok()?;
    Key::from_identity(SharedBytes::copy_of(decoder.bytes().ok()?)).ok()
}

fn encode_token(out: &mut impl Encode, token: Token) {
    out.put_u64(token.incarnation);
    out.put_u64(token.epoch);
    out.put_u64(token.sequence);
}

fn decode_token(decoder: &mut Decoder<'_>) -> Result<Token> {
    Ok(Token { incarnation: decoder.u64()?, epoch: decoder.u64()?, sequence: decoder.u64()? })
}

fn encode_attempt(out: &mut impl Encode, seed: u64, attempt: &Attempt) {
    encode_token(out, attempt.token);
    out.put_u32(attempt.number);
    out.put_u64(attempt.started_at.0);
    let deadline = if attempt.deadline.is_some() { HAS_DEADLINE } else { 0 };
    let checkpoint = if attempt.checkpoint.is_some() { HAS_CHECKPOINT } else { 0 };
    out.put_u8(deadline | checkpoint);
    out.put_u64(attempt.ttl.as_secs());
    out.put_u32(attempt.ttl.subsec_nanos());
    if let Some(deadline) = attempt.deadline {
        out.put_u64(deadline.0);
    }
    if let Some(checkpoint) = &attempt.checkpoint {
        let StoredCheckpoint { len, checksum } = checkpoint.stored(seed);
        out.put_u32(len);
        out.put_u64(checksum);
    }
}

fn decode_attempt(decoder: &mut Decoder<'_>) -> Result<Attempt> {
    let token = decode_token(decoder)?;
    let (number, started_at, flags) = (decoder.u32()?, Time(decoder.u64()?), decoder.u8()?);
    let (seconds, nanoseconds) = (decoder.u64()?, decoder.u32()?);
    if flags & !(HAS_DEADLINE | HAS_CHECKPOINT) != 0 || nanoseconds >= 1_000_000_000 {
        return Err(Error::corrupted("an attempt has a field outside its range"));
    }
    let deadline = (flags & HAS_DEADLINE != 0).then(|| decoder.u64()).transpose()?.map(Time);
    let mut stored = || Ok(StoredCheckpoint { len: decoder.u32()?, checksum: decoder.u64()? });
    let checkpoint: Option<Result<_>> = (flags & HAS_CHECKPOINT != 0).then(&mut stored);
    Ok(Attempt {
        token,
        number,
        started_at,
        deadline,
        ttl: Duration::new(seconds, nanoseconds),
        checkpoint: checkpoint.transpose()?.map(Checkpoint::Stored),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::samples::{Noise, completed, in_flight, key, orphan};

    fn samples() -> Vec<Record> {
        let mut with_all = in_flight(&key(5), 9);
        if let State::InFlight(attempt) = &mut with_all.state {
            attempt.deadline = Some(Time(77));
            attempt.checkpoint = Some(Checkpoint::Stored(StoredCheckpoint::of(42, b"point")));
            attempt.ttl = Duration::new(u64::MAX, 999_999_999);
        }
        let attempt = with_all.attempt().unwrap().clone();
        let mut without_response = completed(&key(2), 7, 100, b"");
        if let State::Completed(completed) = &mut without_response.state {
            completed.response = None;
        }
        vec![
            completed(&key(1), 7, 100, b"response"),
            completed(&key(1), 7, 100, b""),
            without_response,
            in_flight(&key(3), 8),
            orphan(&key(4), 8, 50),
            Record { state: State::Orphan { attempt, since: Time(50) }, ..with_all.clone() },
            with_all,
        ]
    }

    #[test]
    fn every_state_comes_back() {
        for record in samples() {
            let mut bytes = vec![1, 2, 3];
            let sealed = encode(&mut bytes, 42, 6, &record);
            let len = bytes.len() - 3;
            bytes.extend_from_slice(b"next");
            let bytes = SharedBytes::copy_of(&bytes[3..]);
            let stored = decode(&bytes, 42).unwrap();
            assert_eq!(
                (stored.sequence, &stored.record, stored.checksum, stored.len),
                (6, &record, sealed, len)
            );
            assert!(decode(&bytes, 43).is_err());
        }
    }

    #[test]
    fn a_checkpoint_is_encoded_as_its_length_and_checksum() {
        let mut record = in_flight(&key(5), 9);
        if let State::InFlight(attempt) = &mut record.state {
            attempt.checkpoint = Some(Checkpoint::Here(SharedBytes::copy_of(&[7; 60_000])));
        }
        let mut bytes = Vec::new();
        encode(&mut bytes, 42, 6, &record);
        assert!(bytes.len() < 200);
        let stored = decode(&SharedBytes::copy_of(&bytes), 42).unwrap().record;
        let expected = record.without_checkpoint_bytes(|checkpoint| checkpoint.stored(42));
        assert_eq!(Some(&stored), expected.as_ref());
        assert_eq!(stored.without_checkpoint_bytes(|checkpoint| checkpoint.stored(42)), None);
        let attempt = stored.attempt().unwrap();
        assert_eq!(attempt.checkpoint.as_ref().map(Checkpoint::len), Some(60_000));
        assert_ne!(StoredCheckpoint::of(42, b"a"), StoredCheckpoint::of(43, b"a"));
    }

    #[test]
    fn truncated_altered_and_random_bytes_are_errors() {
        let mut noise = Noise::new(1);
        for record in samples() {
            let mut bytes = Vec::new();
            encode(&mut bytes, 42, 6, &record);
            for len in 0..bytes.len() {
                assert!(decode(&SharedBytes::copy_of(&bytes[..len]), 42).is_err());
            }
            for index in 0..bytes.len() {
                let mut altered = bytes.clone();
                altered[index] ^= 1 << (noise.next() % 8);
                assert!(decode(&SharedBytes::copy_of(&altered), 42).is_err());
                // Garbage with a correct checksum must not cause a panic.
                altered[index] = noise.next() as u8;
                if altered[8..12] == bytes[8..12] {
                    let right = checksum(42, &altered[8..]);
                    altered[..8].copy_from_slice(&right.to_le_bytes());
                }
                let _ = decode(&SharedBytes::copy_of(&altered), 42);
            }
        }
    }

    #[test]
    fn an_open_record_is_sealed_for_its_own_key() {
        assert_eq!(open_seed(0b0111, KeyHash(0b1100 << 64 | 0b1010)), 0b0111 ^ 0b1100 ^ 0b1010);
    }
}
