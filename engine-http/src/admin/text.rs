//! Keys, times and parameters in the form that the JSON and the queries of operators use.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::Uri;

use super::refusal::Refusal;

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn since_1970(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A Rust name as a JSON member: `open_bytes` becomes `openBytes`.
pub(crate) fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

/// The parameter `name` of a query, decoded to bytes, since keys are bytes.
pub(crate) fn parameter(uri: &Uri, name: &str) -> Result<Option<Vec<u8>>, Refusal> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let value = pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value));
    value.map(|value| percent_decode(value.as_bytes())).map_or(Ok(None), |decoded| {
        decoded.map(Some).ok_or_else(|| Refusal::bad("a % needs two hexadecimal digits after it"))
    })
}

/// The parameter `name`, read by `parse`.
pub(crate) fn parsed<T>(
    uri: &Uri,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Refusal> {
    let Some(bytes) = parameter(uri, name)? else { return Ok(None) };
    let read = std::str::from_utf8(&bytes).ok().and_then(parse);
    read.map(Some).ok_or_else(|| Refusal::bad(format!("{name} cannot be read")))
}

/// Bytes as printable ASCII without blanks: `%` and all other bytes become `%` and two digits.
pub fn percent_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'%' => text.push_str("%25"),
            b'!'..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The bytes of a percent-encoded text; `None` when a `%` is not followed by two hexadecimal digits.
pub fn percent_decode(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        text = rest;
        if *first == b'%' {
            let (digits, rest) = text.split_at_checked(2)?;
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
            text = rest;
        } else {
            bytes.push(*first);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_percent_encoding() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = percent_encode(&bytes);
        assert!(text.is_ascii() && !text.contains(' '));
        assert_eq!(percent_decode(text.as_bytes()), Some(bytes));
        for bad in ["%", "%4", "%4g", "a%"] {
            assert_eq!(percent_decode(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn names_are_those_of_json() {
        assert_eq!(camel("open_bytes"), "openBytes");
        assert_eq!(camel("runs"), "runs");
    }
}
