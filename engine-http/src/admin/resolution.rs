//! The rules for a resolution of an orphan, for the API and for the command line, which also resolves
//! without the API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::recorded::StoredResponse;

/// The number of characters from the end of a token that confirm a resolution.
const CONFIRMED: usize = 4;

/// Checks the reason of a resolution.
///
/// # Errors
/// The mistake.
pub fn check_reason(reason: &str) -> Result<(), &'static str> {
    match (3..=500).contains(&reason.trim().chars().count()) {
        true => Ok(()),
        false => Err("a reason has 3 to 500 characters"),
    }
}

/// The end of a token, which confirms that it was read.
pub fn confirmation(token: &str) -> &str {
    let from = token.char_indices().rev().nth(CONFIRMED - 1).map_or(0, |(at, _)| at);
    &token[from..]
}

/// The response for the client of an orphan, in its stored form. A body that is not text is given in base64.
///
/// # Errors
/// The mistake.
pub fn response(
    status: u16,
    headers: &[(String, String)],
    body: Option<&str>,
    body_base64: Option<&str>,
) -> Result<Vec<u8>, &'static str> {
    // The statuses of a final response. Source: RFC 9110, section 15.
    let status = Some(status).filter(|status| (200..=599).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.ok_or("status must be from 200 to 599")?;
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value))
        else {
            return Err("a header is not valid in HTTP");
        };
        all.append(name, value);
    }
    let body = match (body, body_base64) {
        (Some(_), Some(_)) => return Err("body and bodyBase64 exclude each other"),
        (None, Some(encoded)) => {
            STANDARD.decode(encoded).map_err(|_| "bodyBase64 is not base64")?
        }
        (body, None) => body.unwrap_or_default().into(),
    };
    StoredResponse::new(status, &all, body).encode().ok_or("the response is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_confirmed_by_its_end() {
        assert_eq!(confirmation("00000000000000ab-12-345"), "-345");
        assert_eq!(confirmation("ab"), "ab");
        assert_eq!(confirmation("äöüßé"), "öüßé");
    }
}
