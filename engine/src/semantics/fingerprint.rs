//! What makes two requests the same request.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use crate::base::bytes::SharedBytes;
use crate::base::codec::{Decoder, Encode, checksum};
use crate::base::error::{Error, Result};
use crate::semantics::secret::Secret;

/// The most parts a fingerprint may have.
pub const MAX_PARTS: usize = 64;
/// The longest label of a part, in bytes.
pub const MAX_LABEL_LEN: usize = 128;

/// The version that this build computes. A record keeps the version of its fingerprint, so a build
/// that changes the computation must still compute every version that live records hold.
const VERSION: u8 = 1;

/// The length of the keyed hash over all parts, in bytes.
const TOTAL_LEN: usize = 16;

/// The length of a stored fingerprint before its parts: version, total, number of parts.
const HEAD_LEN: usize = 1 + TOTAL_LEN + 1;

/// The length of a part's tag, in bytes.
const TAG_LEN: usize = 8;

/// The longest value that is hashed as it is, in bytes; a longer one is represented by its digest.
/// So most requests are hashed in one pass, and a large body is not copied.
const INLINE: usize = 256;

/// The labelled parts of a request, hashed with BLAKE3.
///
/// Two requests are identical when they have the same parts in the same order with the same bytes.
/// A mismatch names the parts that differ. The stored form is keyed with a secret of the store: it
/// contains the labels and reveals no value.
///
/// ```
/// use oncekey::Fingerprint;
/// let fingerprint = Fingerprint::builder()
///     .part("method", "POST")
///     .part("target", "/api/v2/orders")
///     .part("body", br#"{"customerId":"c-1"}"#)
///     .finish();
/// # let _ = fingerprint;
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    parts: Parts,
    /// The digest of all parts, computed once for any number of begins.
    digest: [u8; blake3::OUT_LEN],
}

/// Prints the labels of the parts: the values may be secret.
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fingerprint").field(&self.parts).finish()
    }
}

/// Labelled values in one buffer. Different parts give different bytes.
///
/// ```text
/// parts × (label length u32 | label | value length u64 | value, or BLAKE3 of it when it is longer than 256 bytes)
/// ```
///
/// Each length says where a field ends and which of its two forms a value has. So different parts
/// give the same bytes only if two long values have the same digest, and two requests with the same
/// digest are a collision of BLAKE3.
#[derive(Clone, Default, PartialEq, Eq)]
struct Parts {
    bytes: Vec<u8>,
    count: usize,
    /// The bytes of the longest label.
    longest: usize,
}

/// A part as it stands in [`Parts`].
struct Part<'a> {
    label: &'a [u8],
    /// The length of the value, then the value or its digest.
    content: &'a [u8],
}

impl Part<'_> {
    /// Tells two values of a part apart, to name the parts of a mismatch. The total decides whether
    /// there is a mismatch.
    fn tag(&self) -> [u8; TAG_LEN] {
        checksum(0, self.content).to_le_bytes()
    }
}

impl Parts {
    fn push(&mut self, label: &str, value: &[u8]) {
        self.start(label, value.len());
        if value.len() <= INLINE {
            self.bytes.put(value);
        } else {
            // No `Hasher`: it takes 2 KB, and to make one takes as long as to hash a short value.
            self.bytes.put(blake3::hash(value).as_bytes());
        }
    }

    fn push_pieces<P: AsRef<[u8]>>(&mut self, label: &str, pieces: impl Iterator<Item = P>) {
        let (mut value, mut len) = (Vec::new(), 0);
        // Made once the value is longer than `INLINE`.
        let mut hasher: Option<blake3::Hasher> = None;
        for piece in pieces {
            let piece = piece.as_ref();
            len += piece.len();
            match &mut hasher {
                Some(hasher) => drop(hasher.update(piece)),
                None if len <= INLINE => value.put(piece),
                None => drop(hasher.insert(blake3::Hasher::new()).update(&value).update(piece)),
            }
        }
        self.start(label, len);
        match hasher {
            Some(hasher) => self.bytes.put(hasher.finalize().as_bytes()),
            None => self.bytes.put(&value),
        }
    }

    fn start(&mut self, label: &str, len: usize) {
        self.bytes.put_bytes(label.as_bytes());
        self.bytes.put_u64(len as u64);
        self.count += 1;
        self.longest = self.longest.max(label.len());
    }

    fn iter(&self) -> impl Iterator<Item = Part<'_>> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (len, tail) = rest.split_first_chunk()?;
            let (label, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            let len = usize::try_from(u64::from_le_bytes(*tail.first_chunk()?)).ok()?;
            let len = if len <= INLINE { len } else { blake3::OUT_LEN };
            let (content, tail) = tail.split_at_checked(size_of::<u64>() + len)?;
            rest = tail;
            Some(Part { label, content })
        })
    }
}

/// Prints the labels.
impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|part| String::from_utf8_lossy(part.label))).finish()
    }
}

impl Fingerprint {
    /// Starts a fingerprint without parts.
    pub fn builder() -> FingerprintBuilder {
        FingerprintBuilder { parts: Parts::default() }
    }

    /// Checks the limits that [`FingerprintBuilder::finish`] cannot report.
    pub(crate) fn validate(&self) -> Result<()> {
        let Parts { count, longest, .. } = self.parts;
        if count > MAX_PARTS {
            return Err(Error::invalid(format!(
                "the fingerprint has {count} parts, at most {MAX_PARTS} are allowed"
            )));
        }
        if longest > MAX_LABEL_LEN {
            return Err(Error::invalid(format!(
                "a fingerprint label has {longest} bytes, at most {MAX_LABEL_LEN} are allowed"
            )));
        }
        Ok(())
    }
}

/// Collects the parts of a [`Fingerprint`].
#[derive(Clone, Debug)]
pub struct FingerprintBuilder {
    parts: Parts,
}

impl FingerprintBuilder {
    /// With room for `bytes` bytes of labels and values.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { parts: Parts { bytes: Vec::with_capacity(bytes), ..Parts::default() } }
    }

    /// Adds a part. A mismatch names its label (`"method"`, `"header content-type"`).
    /// [`begin`](crate::Engine::begin) refuses a label of more than [`MAX_LABEL_LEN`] bytes and
    /// more than [`MAX_PARTS`] parts. The order of parts counts.
    pub fn part(mut self, label: impl Into<Cow<'static, str>>, value: impl AsRef<[u8]>) -> Self {
        self.parts.push(&label.into(), value.as_ref());
        self
    }

    /// Adds a part whose value comes in pieces, the same as their concatenation.
    pub fn part_in_pieces<P: AsRef<[u8]>>(
        mut self,
        label: impl Into<Cow<'static, str>>,
        pieces: impl IntoIterator<Item = P>,
    ) -> Self {
        self.parts.push_pieces(&label.into(), pieces.into_iter());
        self
    }

    /// Ends the fingerprint.
    pub fn finish(self) -> Fingerprint {
        let digest = *blake3::hash(&self.parts.bytes).as_bytes();
        Fingerprint { parts: self.parts, digest }
    }
}

/// A presented fingerprint together with the secret of the store that it is compared in.
#[derive(Clone)]
pub(crate) struct KeyedFingerprint {
    fingerprint: Fingerprint,
    secret: Secret,
    /// The keyed hash over all parts: equal totals mean identical requests.
    total: [u8; TOTAL_LEN],
    /// Computed on the caller's thread, when the command is first decided. The committer reuses it:
    /// computed there, it would delay every caller of the group.
    stored: OnceLock<StoredFingerprint>,
}

impl fmt::Debug for KeyedFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fingerprint.fmt(f)
    }
}

impl KeyedFingerprint {
    pub(crate) fn new(fingerprint: Fingerprint, secret: &Secret) -> Self {
        let mut input = [VERSION; 1 + blake3::OUT_LEN];
        input[1..].copy_from_slice(&fingerprint.digest);
        let total = secret.fingerprint_tag(&input);
        Self { total, fingerprint, secret: secret.clone(), stored: OnceLock::new() }
    }

    pub(crate) fn matches(&self, stored: &StoredFingerprint) -> bool {
        stored.total() == self.total
    }

    /// The labels of the parts that differ from a stored fingerprint: first those presented, in
    /// their order, then those that only the stored one has.
    pub(crate) fn differences(&self, stored: &StoredFingerprint) -> Vec<String> {
        let mut missing: Vec<_> = stored.parts(&self.secret).collect();
        let mut differing = Vec::new();
        for part in self.fingerprint.parts.iter() {
            match missing.iter().position(|(label, _)| *label == part.label) {
                Some(index) if missing.remove(index).1 == part.tag() => {}
                _ => differing.push(String::from_utf8_lossy(part.label).into_owned()),
            }
        }
        differing.extend(
            missing.into_iter().map(|(label, _)| String::from_utf8_lossy(label).into_owned()),
        );
        differing.dedup();
        differing
    }

    pub(crate) fn to_stored(&self) -> StoredFingerprint {
        self.stored.get_or_init(|| self.make_stored()).clone()
    }

    fn make_stored(&self) -> StoredFingerprint {
        let parts = &self.fingerprint.parts;
        // A stored part is shorter than a presented one.
        let mut bytes = Vec::with_capacity(HEAD_LEN + parts.bytes.len());
        bytes.put_u8(VERSION);
        bytes.put(&self.total);
        // `Fingerprint::validate` bounds the parts and their labels far below 256.
        bytes.put_u8(parts.count as u8);
        for (part, pad) in parts.iter().zip(pads(&self.secret, &self.total, parts.count)) {
            bytes.put_u8(part.label.len() as u8);
            bytes.put(part.label);
            bytes.put(&under(pad, part.tag()));
        }
        StoredFingerprint { bytes: SharedBytes::copy_of(&bytes) }
    }
}

/// One-time pads for the tags of the fingerprint with this total, from a keyed stream; one block of
/// BLAKE3 gives eight pads. The total is the nonce. It belongs to exactly these parts, so no pad
/// ever covers two different tags, and a stored tag reveals nothing.
fn pads(secret: &Secret, total: &[u8], parts: usize) -> impl Iterator<Item = [u8; TAG_LEN]> {
    let mut stream = [[0; TAG_LEN]; MAX_PARTS];
    let parts = parts.min(MAX_PARTS);
    blake3::Hasher::new_keyed(secret.stream_key())
        .update(total)
        .finalize_xof()
        .fill(stream[..parts].as_flattened_mut());
    stream.into_iter().take(parts)
}

/// Covers a tag with a pad, or uncovers it.
fn under(pad: [u8; TAG_LEN], tag: [u8; TAG_LEN]) -> [u8; TAG_LEN] {
    (u64::from_le_bytes(pad) ^ u64::from_le_bytes(tag)).to_le_bytes()
}

/// The form kept in a record: version, keyed total, and for each part its label and its tag,
/// covered by a pad.
///
/// ```text
/// version u8 | total [16] | parts u8 | parts × (label length u8 | label | tag [8])
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredFingerprint {
    /// Well-formed: [`decode`](Self::decode) checks all bytes that come from a store.
    bytes: SharedBytes,
}

impl StoredFingerprint {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn shared_bytes(&self) -> SharedBytes {
        self.bytes.clone()
    }

    pub(crate) fn decode(bytes: SharedBytes) -> Result<Self> {
        let mut decoder = Decoder::new(&bytes);
        let version = decoder.u8()?;
        if version != VERSION {
            return Err(Error::corrupted(format!("unknown fingerprint version {version}")));
        }
        decoder.take(TOTAL_LEN)?;
        for _ in 0..decoder.u8()? {
            let label_len = decoder.u8()?;
            decoder.take(usize::from(label_len))?;
            decoder.take(TAG_LEN)?;
        }
        decoder.finish()?;
        Ok(Self { bytes })
    }

    fn total(&self) -> &[u8] {
        &self.bytes[1..1 + TOTAL_LEN]
    }

    /// The label of each part, and its tag.
    fn parts(&self, secret: &Secret) -> impl Iterator<Item = (&[u8], [u8; TAG_LEN])> {
        let mut rest = &self.bytes[HEAD_LEN..];
        let mut pads = pads(secret, self.total(), usize::from(self.bytes[HEAD_LEN - 1]));
        std::iter::from_fn(move || {
            let (label_len, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at(usize::from(*label_len));
            let (tag, tail) = tail.split_first_chunk()?;
            rest = tail;
            Some((label, under(pads.next()?, *tag)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = Secret([7; Secret::LEN]);

    fn keyed(parts: &[(&'static str, &[u8])]) -> KeyedFingerprint {
        let builder = parts
            .iter()
            .fold(Fingerprint::builder(), |builder, (label, value)| builder.part(*label, value));
        KeyedFingerprint::new(builder.finish(), &SECRET)
    }

    #[test]
    fn an_identical_request_matches_and_names_no_difference() {
        let parts: [(&str, &[u8]); 2] = [("method", b"POST"), ("body", b"{}")];
        let stored = keyed(&parts).to_stored();
        assert!(keyed(&parts).matches(&stored));
        assert!(keyed(&parts).differences(&stored).is_empty());
    }

    #[test]
    fn differences_are_named_changed_added_and_missing() {
        let stored = keyed(&[("method", b"POST"), ("header a", b"1"), ("body", b"x")]).to_stored();
        let presented = keyed(&[("method", b"POST"), ("header b", b"1"), ("body", b"y")]);
        assert!(!presented.matches(&stored));
        assert_eq!(presented.differences(&stored), ["header b", "body", "header a"]);
    }

    #[test]
    fn a_fingerprint_is_printed_by_its_labels() {
        assert_eq!(format!("{:?}", keyed(&[("pin", b"1234")])), r#"Fingerprint(["pin"])"#);
    }

    #[test]
    fn labels_and_values_do_not_run_together() {
        let stored = keyed(&[("a", b"bc")]).to_stored();
        assert!(!keyed(&[("ab", b"c")]).matches(&stored));
        assert!(!keyed(&[("a", b"b"), ("a", b"c")]).matches(&stored));
        assert!(!keyed(&[]).matches(&stored));
    }

    /// A long value differs from the short value that equals its digest.
    #[test]
    fn a_long_value_is_not_its_digest() {
        for len in [INLINE, INLINE + 1, 4096] {
            let value = vec![7; len];
            let stored = keyed(&[("body", &value), ("end", b"")]).to_stored();
            let digest = *blake3::hash(&value).as_bytes();
            let mut last = value.clone();
            last[len - 1] ^= 1;
            for other in [&digest[..], &value[1..], &last] {
                let presented = keyed(&[("body", other), ("end", b"")]);
                assert!(!presented.matches(&stored));
                assert_eq!(presented.differences(&stored), ["body"]);
            }
            assert!(keyed(&[("body", &value), ("end", b"")]).matches(&stored));
        }
    }

    #[test]
    fn the_encoding_is_what_is_documented() {
        let long = [9; INLINE + 1];
        let made = Fingerprint::builder().part("a", "bc").part("long", long).finish();
        let mut expected = b"\x01\0\0\0a\x02\0\0\0\0\0\0\0bc\x04\0\0\0long".to_vec();
        expected.extend(257_u64.to_le_bytes());
        expected.extend(blake3::hash(&long).as_bytes());
        assert_eq!(made.parts.bytes, expected);
        assert_eq!(made.digest, *blake3::hash(&expected).as_bytes());
    }

    #[test]
    fn pieces_hash_like_their_concatenation() {
        let whole = Fingerprint::builder().part("body", "hello").finish();
        let pieces = Fingerprint::builder().part_in_pieces("body", ["he", "", "llo"]).finish();
        assert_eq!(whole, pieces);
        for len in [INLINE - 1, INLINE, INLINE + 1, 3 * INLINE] {
            let value = vec![1; len];
            for at in [0, 1, INLINE - 1, len - 1, len] {
                let (start, end) = value.split_at(at.min(len));
                let whole = Fingerprint::builder().part("body", &value).part("end", "").finish();
                let pieces = Fingerprint::builder().part_in_pieces("body", [start, end]);
                assert_eq!(whole, pieces.part("end", "").finish(), "{len} {at}");
            }
        }
    }

    #[test]
    fn another_secret_stores_other_bytes() {
        let fingerprint = Fingerprint::builder().part("body", "x").finish();
        let stored = KeyedFingerprint::new(fingerprint.clone(), &SECRET).to_stored();
        let foreign = KeyedFingerprint::new(fingerprint, &Secret([8; Secret::LEN]));
        assert!(!foreign.matches(&stored));
        assert_eq!(foreign.differences(&stored), ["body"]);
    }

    #[test]
    fn no_two_tags_tell_that_their_parts_are_alike() {
        let store = |method| {
            let stored = keyed(&[("method", method), ("a", b"x"), ("b", b"x")]).to_stored();
            // The first part; a label of one byte, its tag, another.
            let tags = &stored.bytes()[HEAD_LEN + 1 + "method".len() + TAG_LEN..];
            [tags[2..10].to_vec(), tags[12..20].to_vec()]
        };
        let [[a, b], [other_a, other_b]] = [store(b"POST"), store(b"PUT")];
        assert_ne!(a, b);
        assert_ne!(a, other_a);
        assert_ne!(b, other_b);
    }

    #[test]
    fn as_many_parts_as_are_allowed_are_told_apart() {
        let fingerprint = |changed: Option<usize>| {
            let parts = (0..MAX_PARTS).map(|i| (i.to_string(), u8::from(Some(i) == changed)));
            let builder = parts.fold(Fingerprint::builder(), |b, (label, v)| b.part(label, [v]));
            KeyedFingerprint::new(builder.finish(), &SECRET)
        };
        let stored = fingerprint(None).to_stored();
        for changed in [0, MAX_PARTS / 2, MAX_PARTS - 1] {
            assert_eq!(fingerprint(Some(changed)).differences(&stored), [changed.to_string()]);
        }
    }

    #[test]
    fn limits_are_checked() {
        let many = |parts| {
            (0..parts).fold(Fingerprint::builder(), |b, i| b.part(i.to_string(), "")).finish()
        };
        many(MAX_PARTS).validate().unwrap();
        assert!(many(MAX_PARTS + 1).validate().is_err());
        let label = |len| Fingerprint::builder().part("l".repeat(len), "").finish();
        label(MAX_LABEL_LEN).validate().unwrap();
        assert!(label(MAX_LABEL_LEN + 1).validate().is_err());
    }

    #[test]
    fn stored_bytes_come_back_or_are_corrupted() {
        let stored = keyed(&[("method", b"POST"), ("body", b"x")]).to_stored();
        assert_eq!(StoredFingerprint::decode(stored.bytes.clone()).unwrap(), stored);
        for len in 0..stored.bytes().len() {
            assert!(
                StoredFingerprint::decode(SharedBytes::copy_of(&stored.bytes()[..len])).is_err(),
                "{len}"
            );
        }
        let mut newer = stored.bytes().to_vec();
        newer[0] = 2;
        assert!(StoredFingerprint::decode(SharedBytes::copy_of(&newer)).is_err());
    }
}
