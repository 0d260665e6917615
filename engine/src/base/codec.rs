//! The byte layout of everything that oncekey stores: little-endian integers and length-prefixed
//! bytes, read without panicking and without allocating more than the input holds.
//!
//! The layout is written by hand, not derived: the format is a promise to files on disk, and a
//! reordered struct field must not change it.

use crate::base::error::{Error, Result};

/// Appends values to a byte buffer.
pub(crate) trait Encode {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
    fn put_u128(&mut self, value: u128) {
        self.put(&value.to_le_bytes());
    }
    /// The length of the bytes as `u32`, then the bytes.
    ///
    /// Callers keep stored bytes far below 4 GiB; see [`crate::embedded::options`].
    fn put_bytes(&mut self, bytes: &[u8]) {
        debug_assert!(u32::try_from(bytes.len()).is_ok());
        self.put_u32(bytes.len() as u32);
        self.put(bytes);
    }
}

impl Encode for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Takes values off the front of a byte slice. Missing bytes are a `Corrupted` error.
#[derive(Clone, Copy)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| Error::corrupted("a stored value ends before its last field"))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }
    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub(crate) fn u128(&mut self) -> Result<u128> {
        Ok(u128::from_le_bytes(self.array()?))
    }
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    /// Ends decoding. Bytes that are left over are a `Corrupted` error.
    pub(crate) fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Error::corrupted("a stored value has bytes after its last field"))
        }
    }
}

/// The checksum of everything on disk: XXH3, 64 bits. The seed keeps bytes that are valid in one
/// place from being valid in another.
///
/// Source: xxHash specification, <https://github.com/Cyan4973/xxHash>.
pub(crate) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, seed)
}

/// Writes the checksum of all bytes after the eighth into the first 8 bytes of a value.
pub(crate) fn seal(value: &mut [u8], seed: u64) {
    let sum = checksum(seed, &value[8..]);
    value[..8].copy_from_slice(&sum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn values_come_back_and_shortage_is_corruption() {
        let mut buffer = Vec::new();
        buffer.put_u8(1);
        buffer.put_u32(3);
        buffer.put_u64(4);
        buffer.put_u128(5);
        buffer.put_bytes(b"six");
        let mut decoder = Decoder::new(&buffer);
        assert_eq!(decoder.u8().unwrap(), 1);
        assert_eq!(decoder.u32().unwrap(), 3);
        assert_eq!(decoder.u64().unwrap(), 4);
        assert_eq!(decoder.u128().unwrap(), 5);
        assert_eq!(decoder.bytes().unwrap(), b"six");
        decoder.finish().unwrap();

        let mut short = Decoder::new(&buffer[..buffer.len() - 1]);
        short.take(29).unwrap();
        assert_eq!(short.bytes().unwrap_err().kind(), ErrorKind::Corrupted);
        assert_eq!(Decoder::new(b"x").finish().unwrap_err().kind(), ErrorKind::Corrupted);
    }

    #[test]
    fn a_length_beyond_the_input_does_not_allocate() {
        let mut decoder = Decoder::new(&[0xff, 0xff, 0xff, 0xff, 1]);
        assert!(decoder.bytes().is_err());
    }

    #[test]
    fn the_seed_changes_the_checksum() {
        assert_ne!(checksum(1, b"bytes"), checksum(2, b"bytes"));
    }
}
