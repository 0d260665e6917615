//! The secret of a store.

use std::fmt;

use siphasher::sip128::SipHasher24;

/// The random keys of all hashes of one store. They never leave the store.
///
/// Tags are SipHash-2-4 with 128 bits. For short inputs it takes a third of the time of keyed
/// BLAKE3, and without the key a tag can be neither predicted nor chosen. Source: Aumasson,
/// Bernstein, "SipHash: a fast short-input PRF", 2012.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) [u8; Self::LEN]);

impl Secret {
    /// Three keys: one of 32 bytes, two of 16.
    pub(crate) const LEN: usize = 64;

    /// The key of the BLAKE3 streams that cover the tags in stored fingerprints.
    pub(crate) fn stream_key(&self) -> &[u8; 32] {
        self.part(0)
    }

    pub(crate) fn identity_tag(&self, identity: &[u8]) -> [u8; 16] {
        SipHasher24::new_with_key(self.part(32)).hash(identity).as_bytes()
    }

    pub(crate) fn fingerprint_tag(&self, digest: &[u8]) -> [u8; 16] {
        SipHasher24::new_with_key(self.part(48)).hash(digest).as_bytes()
    }

    fn part<const N: usize>(&self, start: usize) -> &[u8; N] {
        self.0[start..].first_chunk().expect("every key ends within the secret")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored hashes contain these tags, so another tag is another format. The first tag is from
    /// the 128-bit vectors of the reference implementation.
    #[test]
    fn tags_are_what_they_always_were() {
        let mut secret = Secret([0; Secret::LEN]);
        secret.0.iter_mut().zip(0..).for_each(|(byte, number)| *byte = number);
        let mut vector = Secret([0; Secret::LEN]);
        vector.0[32..48].copy_from_slice(&std::array::from_fn::<u8, 16, _>(|at| at as u8));
        assert_eq!(
            vector.identity_tag(b""),
            [
                0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55,
                0x02, 0x93
            ]
        );
        let tags = [secret.identity_tag(b"same"), secret.fingerprint_tag(b"same")];
        assert_ne!(tags[0], tags[1]);
        for changed in 0..Secret::LEN {
            let mut other = secret.clone();
            other.0[changed] ^= 1;
            let other_tags = [other.identity_tag(b"same"), other.fingerprint_tag(b"same")];
            assert_eq!(tags[0] != other_tags[0], (32..48).contains(&changed), "{changed}");
            assert_eq!(tags[1] != other_tags[1], changed >= 48, "{changed}");
            assert_eq!(secret.stream_key() != other.stream_key(), changed < 32);
        }
    }
}
