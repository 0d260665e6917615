//! Secrets: made from the randomness of the system, compared in constant time.

use std::fmt::{self, Write};
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// 32 random bytes as 64 hexadecimal digits.
///
/// # Errors
/// When the system provides no random bytes.
pub(crate) fn random() -> io::Result<String> {
    let mut bytes = [0; 32];
    // A request for at most 256 bytes is never answered in part.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// The hash of a secret. Comparing two hashes takes the same time wherever they differ.
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
