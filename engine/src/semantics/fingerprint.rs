//! What makes two requests the same request.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use crate::base::bytes::SharedBytes;
use crate::base::codec::{Decoder, Encode};
use crate::base::error::{Error, Result};
use crate::semantics::secret::Secret;

/// The most parts a fingerprint may have.
pub const MAX_PARTS: usize = 64;
/// The longest label of a part, in bytes.
pub const MAX_LABEL_LEN: usize = 128;

/// The version that this build computes. A record keeps the version of its fingerprint; a build
/// that changes the computation must go on computing every version that live records hold.
const VERSION: u8 = 1;

/// The length of the keyed hash over all parts, in bytes.
const TOTAL_LEN: usize = 16;

/// The length of a BLAKE3 digest, in bytes.
const DIGEST_LEN: usize = blake3::OUT_LEN;

/// The length of a stored fingerprint before its parts: version, total, number of parts.
const HEAD_LEN: usize = 1 + TOTAL_LEN + 1;

/// BLAKE3 digests of the labelled parts of a request.
///
/// Two requests are identical when they have the same parts in the same order with the same bytes.
/// Every part is hashed by itself, so that a mismatch can name the parts that differ; what is
/// stored is keyed with a secret of the store and reveals nothing of the request.
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
    parts: Vec<Part>,
    /// Over all parts, made once however often the fingerprint is begun with.
    digest: [u8; DIGEST_LEN],
}

#[derive(Clone, PartialEq, Eq)]
struct Part {
    label: Cow<'static, str>,
    digest: [u8; DIGEST_LEN],
}

/// Prints the label: the value can be guessed from a digest without a key.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.label.fmt(f)
    }
}

/// Prints the labels of the parts.
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fingerprint").field(&self.parts).finish()
    }
}

impl Fingerprint {
    /// Starts a fingerprint without parts.
    pub fn builder() -> FingerprintBuilder {
        FingerprintBuilder::with_capacity(0)
    }

    /// Checks the limits that [`FingerprintBuilder::finish`] cannot report.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.parts.len() > MAX_PARTS {
            return Err(Error::invalid(format!(
                "the fingerprint has {} parts, at most {MAX_PARTS} are allowed",
                self.parts.len()
            )));
        }
        match self.parts.iter().find(|part| part.label.len() > MAX_LABEL_LEN) {
            Some(part) => Err(Error::invalid(format!(
                "a fingerprint label has {} bytes, at most {MAX_LABEL_LEN} are allowed",
                part.label.len()
            ))),
            None => Ok(()),
        }
    }
}

/// Collects the parts of a [`Fingerprint`].
#[derive(Clone, Debug)]
pub struct FingerprintBuilder {
    parts: Vec<Part>,
}

impl FingerprintBuilder {
    pub(super) fn with_capacity(parts: usize) -> Self {
        Self { parts: Vec::with_capacity(parts) }
    }

    /// Adds a part. The label is what a mismatch will name (`"method"`, `"header content-type"`):
    /// at most [`MAX_LABEL_LEN`] bytes, and at most [`MAX_PARTS`] parts, else
    /// [`begin`](crate::Engine::begin) refuses the fingerprint. The order of parts counts.
    pub fn part(mut self, label: impl Into<Cow<'static, str>>, value: impl AsRef<[u8]>) -> Self {
        // Without a `Hasher`: it takes 2 KB, and as long to make as a short value to hash.
        let digest = *blake3::hash(value.as_ref()).as_bytes();
        self.parts.push(Part { label: label.into(), digest });
        self
    }

    /// Adds a part whose value comes in pieces, the same as their concatenation.
    pub fn part_in_pieces<P: AsRef<[u8]>>(
        mut self,
        label: impl Into<Cow<'static, str>>,
        pieces: impl IntoIterator<Item = P>,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        for piece in pieces {
            hasher.update(piece.as_ref());
        }
        self.parts.push(Part { label: label.into(), digest: *hasher.finalize().as_bytes() });
        self
    }

    /// Ends the fingerprint.
    pub fn finish(self) -> Fingerprint {
        let mut input = Vec::with_capacity(self.parts.len() * 64);
        for part in &self.parts {
            input.put_bytes(part.label.as_bytes());
            input.put(&part.digest);
        }
        Fingerprint { parts: self.parts, digest: *blake3::hash(&input).as_bytes() }
    }
}

/// A presented fingerprint together with the secret of the store that it is compared in.
#[derive(Clone)]
pub(crate) struct KeyedFingerprint {
    fingerprint: Fingerprint,
    secret: Secret,
    /// The keyed hash over all parts: equal totals mean identical requests.
    total: [u8; TOTAL_LEN],
    /// Made when a command is first decided, on the caller's thread, and used again by the
    /// committer, where every caller of the group would wait for it.
    stored: OnceLock<StoredFingerprint>,
}

impl fmt::Debug for KeyedFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fingerprint.fmt(f)
    }
}

impl KeyedFingerprint {
    pub(crate) fn new(fingerprint: Fingerprint, secret: &Secret) -> Self {
        let mut input = [VERSION; 1 + DIGEST_LEN];
        input[1..].copy_from_slice(&fingerprint.digest);
        let total = secret.fingerprint_tag(&input);
        Self { total, fingerprint, secret: secret.clone(), stored: OnceLock::new() }
    }

    pub(crate) fn matches(&self, stored: &StoredFingerprint) -> bool {
        stored.total() == self.total
    }

    /// The labels of the parts that differ from a stored fingerprint, in the order presented, then
    /// those that are missing now.
    pub(crate) fn differences(&self, stored: &StoredFingerprint) -> Vec<String> {
        let mut missing: Vec<_> = stored.parts(&self.secret).collect();
        let mut differing = Vec::new();
        for part in &self.fingerprint.parts {
            match missing.iter().position(|(label, _)| *label == part.label.as_bytes()) {
                Some(index) if missing.remove(index).1 == part.digest[..TAG_LEN] => {}
                _ => differing.push(part.label.clone().into_owned()),
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
        let mut bytes = Vec::with_capacity(HEAD_LEN + self.fingerprint.parts.len() * 32);
        bytes.put_u8(VERSION);
        bytes.put(&self.total);
        // `Fingerprint::validate` bounds the parts and their labels far below 256.
        bytes.put_u8(self.fingerprint.parts.len() as u8);
        let pads = pads(&self.secret, &self.total, self.fingerprint.parts.len());
        for (part, pad) in self.fingerprint.parts.iter().zip(pads) {
            bytes.put_u8(part.label.len() as u8);
            bytes.put(part.label.as_bytes());
            bytes.put(&under(pad, &part.digest));
        }
        StoredFingerprint { bytes: SharedBytes::copy_of(&bytes) }
    }
}

/// The bytes of a part's digest that are stored, under a pad.
const TAG_LEN: usize = 8;

/// One-time pads for the parts of the fingerprint with this total: a keyed stream, of which one block
/// of BLAKE3 gives eight. The total, being that of exactly these parts, is its nonce, so that no pad
/// ever covers two digests.
fn pads(secret: &Secret, total: &[u8], parts: usize) -> impl Iterator<Item = [u8; TAG_LEN]> {
    let mut stream = [[0; TAG_LEN]; MAX_PARTS];
    let parts = parts.min(MAX_PARTS);
    blake3::Hasher::new_keyed(secret.stream_key())
        .update(total)
        .finalize_xof()
        .fill(stream[..parts].as_flattened_mut());
    stream.into_iter().take(parts)
}

/// Puts the start of a digest under a pad, or takes it out from under it.
fn under(mut pad: [u8; TAG_LEN], digest: &[u8]) -> [u8; TAG_LEN] {
    pad.iter_mut().zip(digest).for_each(|(pad, byte)| *pad ^= byte);
    pad
}

/// The form kept in a record: version, keyed total, and for each part its label and the start of its
/// digest under a pad.
///
/// ```text
/// version u8 | total [16] | parts u8 | parts × (label length u8 | label | tag [8])
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredFingerprint {
    /// Checked by [`decode`](Self::decode), which every stored byte passes.
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

    /// The label of each part, and the start of its digest.
    fn parts(&self, secret: &Secret) -> impl Iterator<Item = (&[u8], [u8; TAG_LEN])> {
        let mut rest = &self.bytes[HEAD_LEN..];
        let mut pads = pads(secret, self.total(), usize::from(self.bytes[HEAD_LEN - 1]));
        std::iter::from_fn(move || {
            let (label_len, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at(usize::from(*label_len));
            let (tag, tail) = tail.split_at(TAG_LEN);
            rest = tail;
            Some((label, under(pads.next()?, tag)))
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
    fn labels_and_values_do_not_run_together() {
        let stored = keyed(&[("a", b"bc")]).to_stored();
        assert!(!keyed(&[("ab", b"c")]).matches(&stored));
        assert!(!keyed(&[("a", b"b"), ("a", b"c")]).matches(&stored));
        assert!(!keyed(&[]).matches(&stored));
    }

    #[test]
    fn pieces_hash_like_their_concatenation() {
        let whole = Fingerprint::builder().part("body", "hello").finish();
        let pieces = Fingerprint::builder().part_in_pieces("body", ["he", "", "llo"]).finish();
        assert_eq!(whole, pieces);
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
