//! The idempotency key as a request carries it.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName};
use oncekey::MAX_KEY_LEN;

use crate::contract::KeyForm;

/// Why a key header is refused. Never shows the key, which may be a secret of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidKey {
    Repeated,
    Blank,
    TooLong(usize),
    ControlCharacter,
    /// The value begins with a quote but is not a String of RFC 8941.
    Quoting,
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
            Self::Quoting => f.write_str("it is not a well-formed quoted string"),
        }
    }
}

/// The key in one of the headers `names`; `None` when they carry none.
///
/// A key that is sent twice, under one name or two, is refused even when both values are equal: a proxy or a
/// log that sees only one of them could disagree about the operation.
pub(crate) fn parse<'a>(
    headers: &'a HeaderMap,
    names: &[HeaderName],
    form: KeyForm,
) -> Result<Option<Cow<'a, [u8]>>, InvalidKey> {
    let mut values = names.iter().flat_map(|name| headers.get_all(name));
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(InvalidKey::Repeated);
    }
    // HTTP/1 strips the white space around a value and HTTP/2 does not. The key must be the same in both.
    let value = value.as_bytes().trim_ascii();
    let key = match (form, value) {
        (KeyForm::StringOrVerbatim, [b'"', rest @ ..]) => Cow::Owned(unquote(rest)?),
        (KeyForm::StringOrVerbatim | KeyForm::Verbatim, _) => Cow::Borrowed(value),
    };
    if key.trim_ascii().is_empty() {
        Err(InvalidKey::Blank)
    } else if key.len() > MAX_KEY_LEN {
        Err(InvalidKey::TooLong(key.len()))
    } else if key.iter().any(u8::is_ascii_control) {
        Err(InvalidKey::ControlCharacter)
    } else {
        Ok(Some(key))
    }
}

/// The content of a String, from the bytes after its opening quote. Nothing may follow the closing quote: a
/// server that ignores a parameter and one that does not would disagree about the operation. Source: RFC
/// 8941, section 4.2.5.
fn unquote(mut rest: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    let mut key = Vec::with_capacity(rest.len());
    loop {
        match rest {
            [b'"'] => return Ok(key),
            [b'\\', escaped @ (b'"' | b'\\'), after @ ..] => {
                key.push(*escaped);
                rest = after;
            }
            [b'"' | b'\\', ..] => return Err(InvalidKey::Quoting),
            [byte @ b' '..=b'~', after @ ..] => {
                key.push(*byte);
                rest = after;
            }
            _ => return Err(InvalidKey::Quoting),
        }
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

    fn verbatim(values: &[&[u8]]) -> Result<Option<Vec<u8>>, InvalidKey> {
        let key = parse(&headers(values), &[NAME], KeyForm::Verbatim)?.map(Cow::into_owned);
        Ok(key)
    }

    fn quoted(value: &[u8]) -> Result<Vec<u8>, InvalidKey> {
        let headers = headers(&[value]);
        Ok(parse(&headers, &[NAME], KeyForm::StringOrVerbatim)?.unwrap().into_owned())
    }

    #[test]
    fn a_key_is_1_to_255_bytes() {
        assert_eq!(verbatim(&[]), Ok(None));
        let umlaut = "schl\u{fc}ssel".as_bytes();
        for key in [&b"k"[..], &[b'k'; 255], b"two words", umlaut, b"\xff\x80", b"\"k\""] {
            assert_eq!(verbatim(&[key]), Ok(Some(key.to_vec())));
        }
        assert_eq!(verbatim(&[&[b'k'; 256]]), Err(InvalidKey::TooLong(256)));
    }

    #[test]
    fn white_space_around_a_key_is_not_part_of_it() {
        assert_eq!(verbatim(&[b" \tkey\t "]), Ok(Some(b"key".to_vec())));
        for blank in [&b""[..], b" ", b"\t \t"] {
            assert_eq!(verbatim(&[blank]), Err(InvalidKey::Blank));
        }
    }

    #[test]
    fn control_characters_and_a_second_key_are_refused() {
        assert_eq!(verbatim(&[b"a\tb"]), Err(InvalidKey::ControlCharacter));
        for second in [&b"a"[..], b"b"] {
            assert_eq!(verbatim(&[b"a", second]), Err(InvalidKey::Repeated));
        }
    }

    #[test]
    fn a_quoted_string_is_what_it_denotes() {
        let longest = [&b"\""[..], &[b'k'; 255], b"\""].concat();
        assert_eq!(quoted(&longest), Ok(vec![b'k'; 255]));
        // An escape counts as the one character that it stands for.
        let escapes = [&b"\""[..], &br"\\".repeat(255), b"\""].concat();
        assert_eq!(quoted(&escapes), Ok(vec![b'\\'; 255]));
        for (value, key) in [
            (&b"\"k\""[..], &b"k"[..]),
            (b"k", b"k"),
            (b"k\"", b"k\""),
            (b" \" k \" ", b" k "),
            (br#""say \"\\\"""#, br#"say "\""#),
        ] {
            assert_eq!(quoted(value), Ok(key.to_vec()), "{}", value.escape_ascii());
        }
    }

    #[test]
    fn a_string_that_is_none_is_refused() {
        let long = [&b"\""[..], &[b'k'; 256], b"\""].concat();
        for (value, invalid) in [
            (&b"\"k"[..], InvalidKey::Quoting),
            (b"\"", InvalidKey::Quoting),
            (b"\"k\";a=1", InvalidKey::Quoting),
            (b"\"k\"k\"", InvalidKey::Quoting),
            (br#""\n""#, InvalidKey::Quoting),
            (b"\"\xfc\"", InvalidKey::Quoting),
            (b"\"a\tb\"", InvalidKey::Quoting),
            (b"\"\"", InvalidKey::Blank),
            (b"\" \"", InvalidKey::Blank),
            (&long, InvalidKey::TooLong(256)),
        ] {
            assert_eq!(quoted(value), Err(invalid), "{}", value.escape_ascii());
        }
    }
}
