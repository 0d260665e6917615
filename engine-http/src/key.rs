//! The idempotency key as a request carries it.

use std::fmt;

use http::{HeaderMap, HeaderName};
use oncekey::MAX_KEY_LEN;

/// Why a key header is refused. Never shows the key, which may be a secret of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidKey {
    Repeated,
    Blank,
    TooLong(usize),
    ControlCharacter,
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repeated => f.write_str("it is sent more than once"),
            Self::Blank => f.write_str("it is blank"),
            Self::TooLong(len) => {
                write!(f, "it has {len} bytes, at most {MAX_KEY_LEN} are allowed")
            }
            Self::ControlCharacter => f.write_str("it contains a control character"),
        }
    }
}

/// The key in the header `name`; `None` when there is none.
///
/// A header that is sent twice is refused even when both values are the same: whoever sees only
/// one of them (a proxy, a log) would disagree about the operation.
pub(crate) fn parse<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a [u8]>, InvalidKey> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(InvalidKey::Repeated);
    }
    // HTTP/1 strips the white space around a value, HTTP/2 does not: the key is the same in both.
    let key = value.as_bytes().trim_ascii();
    if key.is_empty() {
        Err(InvalidKey::Blank)
    } else if key.len() > MAX_KEY_LEN {
        Err(InvalidKey::TooLong(key.len()))
    } else if key.iter().any(u8::is_ascii_control) {
        Err(InvalidKey::ControlCharacter)
    } else {
        Ok(Some(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const NAME: HeaderName = HeaderName::from_static("x-idempotency-key");

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_bytes(value).unwrap());
        values.map(|value| (NAME, value)).collect()
    }

    #[test]
    fn a_key_is_1_to_255_bytes() {
        assert_eq!(parse(&HeaderMap::new(), &NAME), Ok(None));
        for key in [&b"k"[..], &[b'k'; 255], b"two words", "schl\u{fc}ssel".as_bytes()] {
            assert_eq!(parse(&headers(&[key]), &NAME), Ok(Some(key)));
        }
        let error = parse(&headers(&[&[b'k'; 256]]), &NAME).unwrap_err();
        assert_eq!(error, InvalidKey::TooLong(256));
    }

    #[test]
    fn white_space_around_a_key_is_not_part_of_it() {
        assert_eq!(parse(&headers(&[b" \tkey\t "]), &NAME), Ok(Some(&b"key"[..])));
        for blank in [&b""[..], b" ", b"\t \t"] {
            assert_eq!(parse(&headers(&[blank]), &NAME), Err(InvalidKey::Blank));
        }
    }

    #[test]
    fn control_characters_and_a_second_key_are_refused() {
        assert_eq!(parse(&headers(&[b"a\tb"]), &NAME), Err(InvalidKey::ControlCharacter));
        for second in [&b"a"[..], b"b"] {
            assert_eq!(parse(&headers(&[b"a", second]), &NAME), Err(InvalidKey::Repeated));
        }
    }
}
