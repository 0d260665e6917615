//! The work that every rival does, and how its rows look.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use oncekey_benches::side::{SCOPE, noise};

/// A rival's key: scope, a zero byte, idempotency key.
pub type Row = [u8; SCOPE.len() + 1 + Id::LEN];

/// Bytes before the response in a row's value: state, time, fencing token, fingerprint.
pub const HEADER: usize = 1 + 8 + 16 + 32;

/// An idempotency key: as long as a UUID and in no order, as random ones are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id([u8; Self::LEN]);

impl Id {
    /// The length of every key.
    pub const LEN: usize = 36;

    /// The key with this number in a sequence; two numbers never give the same.
    pub fn new(sequence: u64, number: u64) -> Self {
        let mut id = [b'-'; Self::LEN];
        hex(mix(number ^ mix(sequence)), &mut id[..16]);
        hex(mix(number.wrapping_add(sequence)), &mut id[Self::LEN - 16..]);
        Self(id)
    }

    /// What the engine calls the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the rivals store the record under.
    pub fn row(&self) -> Row {
        let mut row = [0; SCOPE.len() + 1 + Self::LEN];
        row[..SCOPE.len()].copy_from_slice(SCOPE.as_bytes());
        row[SCOPE.len() + 1..].copy_from_slice(&self.0);
        row
    }
}

/// The last step of splitmix64: a bijection that leaves no order.
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn hex(mut value: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

/// Gives keys that are unique in this run and among all runs.
#[derive(Debug)]
pub struct Ids {
    sequence: u64,
    next: AtomicU64,
}

impl Ids {
    /// Starts a sequence that no other run has.
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { sequence: since.as_nanos() as u64, next: AtomicU64::new(0) }
    }

    /// The sequence, and how many keys of it were given.
    pub fn given(&self) -> (u64, u64) {
        (self.sequence, self.next.load(Ordering::Relaxed))
    }

    /// A fresh key.
    pub fn fresh(&self) -> Id {
        Id::new(self.sequence, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

/// What is written for every pair. Rows of all rivals hold the same bytes.
#[derive(Clone, Debug)]
pub struct Work {
    /// The value of a claim.
    pub claim: Arc<[u8]>,
    /// The value of a completed record: the same fields and the response.
    pub record: Arc<[u8]>,
}

impl Work {
    /// For responses of that many bytes, which do not compress.
    pub fn new(response: usize) -> Self {
        let mut value = vec![0; HEADER];
        value[HEADER - 32..].copy_from_slice(&noise(32));
        let claim = value.as_slice().into();
        value[0] = 1;
        value.extend_from_slice(&noise(response));
        Self { claim, record: value.into() }
    }

    /// The bytes that a request is compared by.
    #[cfg(feature = "engines")]
    pub fn fingerprint(&self) -> &[u8] {
        &self.claim[HEADER - 32..]
    }

    /// The response of a completed record.
    pub fn response(&self) -> &[u8] {
        &self.record[HEADER..]
    }

    /// Copies the response of a stored value out, as a replay does.
    ///
    /// # Errors
    /// The record is not completed, or of another request.
    #[cfg(feature = "engines")]
    pub fn replay(&self, value: &[u8], out: &mut Vec<u8>) -> oncekey_benches::Result<()> {
        let (Some(&1), Some(fingerprint), Some(response)) =
            (value.first(), value.get(HEADER - 32..HEADER), value.get(HEADER..))
        else {
            return Err("a record is not completed".into());
        };
        if fingerprint != self.fingerprint() {
            return Err("a record is of another request".into());
        }
        out.clear();
        out.extend_from_slice(response);
        Ok(())
    }
}
