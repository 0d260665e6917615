//! Immutable bytes with many holders.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Immutable bytes, as they were stored. A clone is cheap: it shares them.
///
/// [`Recorded::into_response`](crate::Recorded::into_response) returns them, and they dereference
/// to `&[u8]`.
#[derive(Clone)]
pub struct SharedBytes {
    /// The allocation that these bytes are a part of. A record that was read is one allocation, not
    /// one for each of its fields.
    whole: Arc<[u8]>,
    /// Where the part starts and ends in `whole`.
    start: u32,
    end: u32,
}

impl SharedBytes {
    /// A copy. Callers keep stored bytes far below 4 GiB; see [`crate::embedded::options`].
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        Self::all_of(bytes.into())
    }

    fn all_of(whole: Arc<[u8]>) -> Self {
        debug_assert!(u32::try_from(whole.len()).is_ok());
        Self { start: 0, end: whole.len() as u32, whole }
    }

    /// `bytes`, without a copy when they are a slice of these bytes.
    pub(crate) fn part(&self, bytes: &[u8]) -> Self {
        let start = (bytes.as_ptr() as usize).wrapping_sub(self.whole.as_ptr() as usize);
        match start.checked_add(bytes.len()) {
            // Neither exceeds the length, which fits in `u32`.
            Some(end) if end <= self.whole.len() => {
                Self { whole: self.whole.clone(), start: start as u32, end: end as u32 }
            }
            _ => Self::copy_of(bytes),
        }
    }

    #[cfg(test)]
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.whole)
    }

    /// Bytes of length `len`. `fill` writes them over zeros.
    pub(crate) fn filled<E>(
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut whole: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        fill(Arc::get_mut(&mut whole).expect("the new allocation has no other holder"))?;
        Ok(Self::all_of(whole))
    }
}

impl Deref for SharedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.whole[self.start as usize..self.end as usize]
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedBytes {}

impl PartialOrd for SharedBytes {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SharedBytes {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(other)
    }
}

impl std::hash::Hash for SharedBytes {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// Prints only the length of the bytes: they belong to customers, and others read the logs.
pub(crate) struct Hidden<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Prints the length.
impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hidden(self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

    use super::*;

    #[test]
    fn a_part_shares_and_what_is_no_part_is_copied() {
        let whole = SharedBytes::filled(6, |bytes| {
            bytes.copy_from_slice(b"abcdef");
            Ok::<_, ()>(())
        });
        let whole = whole.unwrap();
        let part = whole.part(&whole[2..5]);
        assert_eq!((&part[..], part.as_ptr()), (&b"cde"[..], whole[2..].as_ptr()));
        let part_of_it = part.part(&part[1..]);
        assert_eq!((&part_of_it[..], part_of_it.as_ptr()), (&b"de"[..], whole[3..].as_ptr()));
        let empty = whole.part(&whole[6..]);
        assert!(empty.is_empty());
        let other = b"bcd".to_vec();
        let copy = whole.part(&other);
        assert_eq!((&copy[..], copy == SharedBytes::copy_of(b"bcd")), (&b"bcd"[..], true));
        assert_eq!(whole.holders(), 4);
        assert_eq!(format!("{part:?}"), "3 bytes");
        assert_eq!(SharedBytes::filled(1, |_| Err(7)), Err(7));
    }

    #[test]
    fn shared_bytes_compare_and_hash_as_the_slices_that_they_are() {
        fn hash_of(value: impl Hash) -> u64 {
            BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
        }
        let whole = SharedBytes::copy_of(b"xab");
        let part = whole.part(&whole[1..]);
        assert_eq!(AsRef::<[u8]>::as_ref(&part), b"ab");
        for other in [&b"aa"[..], b"ab", b"b", b""] {
            let shared = SharedBytes::copy_of(other);
            assert_eq!(part.partial_cmp(&shared), Some(b"ab"[..].cmp(other)), "{other:?}");
            assert_eq!(part == shared, other == b"ab", "{other:?}");
            assert_eq!(hash_of(&shared), hash_of(other), "{other:?}");
        }
    }
}
