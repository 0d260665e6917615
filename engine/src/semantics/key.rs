//! The name of an operation.

use std::fmt;

use crate::base::bytes::{Hidden, SharedBytes};
use crate::base::error::{Error, Result};
use crate::semantics::secret::Secret;

/// The longest idempotency key and the longest scope, in bytes.
pub const MAX_KEY_LEN: usize = 255;

/// A scope and an idempotency key: together they identify one record.
///
/// Both are compared byte for byte. Cloning is cheap.
///
/// ```
/// use oncekey::Key;
/// let key = Key::new("tenant-7", "3f1c2e9a")?;
/// assert_eq!(key.scope(), b"tenant-7");
/// assert_ne!(key, Key::new("tenant-8", "3f1c2e9a")?);
/// # Ok::<(), oncekey::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The hashed and stored form: the length of the scope in one byte, the scope, the key.
    identity: SharedBytes,
}

impl Key {
    /// A key that belongs to `scope` (0..=255 bytes: a tenant, an API key, a principal; empty when
    /// there is only one), named `key` (1..=255 bytes).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when either is outside its limits.
    pub fn new(scope: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self> {
        let (scope, key) = (scope.as_ref(), key.as_ref());
        let Ok(scope_len) = u8::try_from(scope.len()) else {
            return Err(Error::invalid(format!(
                "the scope has {} bytes, at most {MAX_KEY_LEN} are allowed",
                scope.len()
            )));
        };
        if key.is_empty() || key.len() > MAX_KEY_LEN {
            return Err(Error::invalid(format!(
                "the idempotency key has {} bytes, 1 to {MAX_KEY_LEN} are allowed",
                key.len()
            )));
        }
        // Assembled on the stack: one allocation for each key, not two.
        let mut identity = [0; 1 + 2 * MAX_KEY_LEN];
        identity[0] = scope_len;
        let (key_start, end) = (1 + scope.len(), 1 + scope.len() + key.len());
        identity[1..key_start].copy_from_slice(scope);
        identity[key_start..end].copy_from_slice(key);
        Ok(Self { identity: SharedBytes::copy_of(&identity[..end]) })
    }

    /// The party that the key belongs to.
    pub fn scope(&self) -> &[u8] {
        &self.identity[1..1 + self.scope_len()]
    }

    /// The idempotency key without its scope.
    pub fn key(&self) -> &[u8] {
        &self.identity[1 + self.scope_len()..]
    }

    fn scope_len(&self) -> usize {
        usize::from(self.identity[0])
    }

    /// The stored form, from which [`from_identity`](Self::from_identity) makes the key again.
    pub(crate) fn identity(&self) -> &[u8] {
        &self.identity
    }

    pub(crate) fn identity_bytes(&self) -> SharedBytes {
        self.identity.clone()
    }

    pub(crate) fn from_identity(identity: SharedBytes) -> Result<Self> {
        let (scope_len, rest) =
            identity.split_first().ok_or_else(|| Error::corrupted("a stored key has no bytes"))?;
        let key_len = rest.len().checked_sub(usize::from(*scope_len));
        match key_len {
            Some(1..=MAX_KEY_LEN) => Ok(Self { identity }),
            _ => Err(Error::corrupted("a stored key has a length outside its limits")),
        }
    }
}

/// A map of `scope` and `key`, each a string when it is UTF-8, else bytes.
#[cfg(feature = "serde")]
impl serde::Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (scope, key) = (self.scope().to_vec(), self.key().to_vec());
        Written { scope, key }.serialize(serializer)
    }
}

/// A missing scope is empty.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { scope, key } = Written::deserialize(deserializer)?;
        Self::new(scope, key).map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "Key", deny_unknown_fields)]
struct Written {
    #[serde(default, with = "crate::base::serialize::octets")]
    scope: Vec<u8>,
    #[serde(with = "crate::base::serialize::octets")]
    key: Vec<u8>,
}

/// Prints the lengths.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(scope {:?}, key {:?})", Hidden(self.scope()), Hidden(self.key()))
    }
}

/// The 128-bit keyed hash of a key's identity: its place in every table.
///
/// Keyed with the store's secret, so that no client can choose keys that collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyHash(pub(crate) u128);

impl KeyHash {
    pub(crate) fn of(key: &Key, secret: &Secret) -> Self {
        Self(u128::from_le_bytes(secret.identity_tag(key.identity())))
    }
}

impl std::hash::Hash for KeyHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Uniform already: one word is enough for a table.
        state.write_u64(self.0 as u64);
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Hashes a [`KeyHash`] to itself, since it is uniform already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PassThrough(u64);

impl std::hash::Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only KeyHash, which writes one u64, is hashed with PassThrough");
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

pub(crate) type BuildHasher = std::hash::BuildHasherDefault<PassThrough>;

/// A map by [`KeyHash`].
pub(crate) type HashMap<V> = std::collections::HashMap<KeyHash, V, BuildHasher>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn limits_are_255_bytes_each() {
        let longest = [b'k'; 255];
        let key = Key::new(longest, longest).unwrap();
        assert_eq!((key.scope(), key.key()), (&longest[..], &longest[..]));
        assert_eq!(Key::new("", "k").unwrap().scope(), b"");
        for (scope, key) in [(0, 0), (0, 256), (256, 1)] {
            let error = Key::new(vec![b's'; scope], vec![b'k'; key]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }

    /// `Debug` output reaches logs.
    #[test]
    fn of_keys_the_lengths_are_printed_and_of_the_secret_nothing() {
        assert_eq!(
            format!("{:?}", Key::new("s", b"k\xff").unwrap()),
            "Key(scope 1 bytes, key 2 bytes)"
        );
        assert_eq!(format!("{:?}", KeyHash(0xa0)), "000000000000000000000000000000a0");
        assert_eq!(format!("{:?}", Secret([7; Secret::LEN])), "Secret(..)");
    }

    #[test]
    fn scope_and_key_do_not_run_together() {
        assert_ne!(Key::new("ab", "c").unwrap(), Key::new("a", "bc").unwrap());
    }

    #[test]
    fn a_stored_identity_comes_back_or_is_corrupted() {
        let key = Key::new("s", "k").unwrap();
        assert_eq!(Key::from_identity(key.identity.clone()).unwrap(), key);
        for bad in [&[][..], &[0], &[1, b's'], &[9, b's', b'k']] {
            assert_eq!(
                Key::from_identity(SharedBytes::copy_of(bad)).unwrap_err().kind(),
                ErrorKind::Corrupted
            );
        }
        assert!(Key::from_identity(SharedBytes::copy_of(&[0; 258])).is_err());
    }
}
