//! Secrets: made of the system's randomness, compared in constant time.

use std::fmt::{self, Write};
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// 32 random bytes as 64 hexadecimal digits.
///
/// # Errors
/// When the system has no random bytes.
pub(crate) fn random() -> io::Result<String> {
    let mut bytes = [0; 32];
    // At most 256 bytes come whole or not at all.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        // Writing into a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// The hash of a secret. Comparing two takes the same time wherever they differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest(blake3::Hash);

impl Digest {
    pub(crate) fn of(secret: &[u8]) -> Self {
        Self(blake3::hash(secret))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}
