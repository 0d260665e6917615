//! Keys: made once, stored with the operation.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// The key of one operation: 1 to 255 bytes of visible ASCII and inner spaces.
///
/// Make the key when the operation is recorded, and store it with the operation before the first try. Every
/// retry sends the same key, also after a restart.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// A new key: a UUID, version 7. Keys sort by the time of their making, to the millisecond.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub fn new_v7() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system has randomness");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = now.as_millis() & 0xffff_ffff_ffff;
        let random = u128::from_be_bytes(bytes) & !(0xffff_ffff_ffff << 80 | 0xf << 76 | 0x3 << 62);
        let id = milliseconds << 80 | random | 0x7 << 76 | 0x2 << 62;
        let hex = format!("{id:032x}");
        let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        Self(format!("{a}-{b}-{c}-{d}-{e}"))
    }

    /// The key as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value of the header `Idempotency-Key`.
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("a key is visible ASCII")
    }
}

/// Prints the length: who knows a key can ask for its response.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Key {
    type Err = InvalidKey;

    /// Reads a stored key, or a key that the caller's own system made.
    fn from_str(key: &str) -> Result<Self, InvalidKey> {
        let visible = key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if visible && key.trim() == key && (1..=255).contains(&key.len()) {
            Ok(Self(key.to_owned()))
        } else {
            Err(InvalidKey)
        }
    }
}

/// The text is not 1 to 255 bytes of visible ASCII without outer spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey;

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an idempotency key is 1 to 255 bytes of visible ASCII, without outer spaces")
    }
}

impl std::error::Error for InvalidKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_a_uuid_of_version_7_and_of_now() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let key = Key::new_v7().to_string();
        let hex = key.replace('-', "");
        assert_eq!((key.len(), hex.len(), &hex[12..13]), (36, 32, "7"));
        assert!("89ab".contains(&hex[16..17]), "{key}");
        let stamp = u128::from_str_radix(&hex[..12], 16).unwrap();
        assert!(stamp >= now && stamp < now + 3_600_000, "{stamp} {now}");
        assert_ne!(Key::new_v7(), Key::new_v7());
        assert_eq!(key.parse::<Key>().unwrap().header_value(), key.as_str());
    }

    #[test]
    fn a_key_is_printed_by_its_length() {
        assert_eq!(format!("{:?}", "order 4711".parse::<Key>().unwrap()), "Key(10 bytes)");
    }

    #[test]
    fn a_key_that_a_header_cannot_carry_is_refused() {
        for key in ["", " k", "k ", "a\nb", "schlüssel", &"k".repeat(256)] {
            assert_eq!(key.parse::<Key>(), Err(InvalidKey), "{key:?}");
        }
        assert!("order 4711/charge".parse::<Key>().is_ok());
    }
}
