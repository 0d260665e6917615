//! A decision about an orphan, as a line of JSON or a command says it: read whole and checked before
//! anything is resolved, by the same rules for files and for servers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use oncekey::Key;
use oncekey_http::StoredResponse;
use oncekey_http::describe::{percent_decode, percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

/// The number of characters of the token that confirm a resolution.
const CONFIRMED: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Release,
    Complete,
}

/// The members of a line.
#[derive(Debug, Deserialize)]
struct Line {
    action: Action,
    #[serde(default)]
    scope: String,
    key: String,
    token: String,
    reason: String,
    status: Option<u16>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    body: Option<String>,
    #[serde(rename = "bodyBase64")]
    body_base64: Option<String>,
}

/// A decision that can be carried out.
#[derive(Debug)]
pub(crate) struct Resolution {
    pub(crate) key: Key,
    pub(crate) token: String,
    /// The response of a completion in its stored form; `None` releases.
    pub(crate) response: Option<Vec<u8>>,
    /// As a server is told it.
    pub(crate) told: Value,
}

impl Resolution {
    /// # Errors
    /// The mistake, behind its column where JSON itself is malformed or a member is of another type.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let malformed = |error: serde_json::Error| {
            let said = error.to_string();
            let said: String =
                said.split(" at line ").next().unwrap_or_default().chars().take(200).collect();
            format!("{}: {said}", error.column())
        };
        // A list with the members in their order would pass for one.
        if !text.trim_start().starts_with('{') {
            return Err(" a line is an object of JSON".to_owned());
        }
        let line: Line = serde_json::from_str(text).map_err(malformed)?;
        let decode = |name: &str, text: &str| {
            percent_decode(text.as_bytes())
                .ok_or_else(|| format!(" {name} has a % without two hexadecimal digits"))
        };
        let key = Key::new(decode("scope", &line.scope)?, decode("key", &line.key)?);
        let key = key.map_err(|error| format!(" {error}"))?;
        check_reason(&line.reason).map_err(|mistake| format!(" {mistake}"))?;
        if line.token.is_empty() {
            return Err(" token is empty".to_owned());
        }
        let response = match line.action {
            Action::Release => None,
            Action::Complete => Some(line.response().map_err(|mistake| format!(" {mistake}"))?),
        };
        let mut told: Value = serde_json::from_str(text).map_err(malformed)?;
        told["confirm"] = json!(confirmation(&line.token));
        Ok(Self { key, token: line.token, response, told })
    }

    /// A result to which its outcome is to be added.
    pub(crate) fn result(&self) -> Value {
        json!({ "scope": percent_encode(self.key.scope()), "key": percent_encode(self.key.key()) })
    }
}

impl Line {
    /// The response in its stored form.
    fn response(&self) -> Result<Vec<u8>, &'static str> {
        let status = self.status.filter(|status| (200..=599).contains(status));
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.ok_or("status must be from 200 to 599")?;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name);
            let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) else {
                return Err("a header is not valid in HTTP");
            };
            headers.append(name, value);
        }
        let body = match (&self.body, &self.body_base64) {
            (Some(_), Some(_)) => return Err("body and bodyBase64 exclude each other"),
            (None, Some(encoded)) => {
                STANDARD.decode(encoded).map_err(|_| "bodyBase64 is not base64")?
            }
            (body, None) => body.clone().unwrap_or_default().into_bytes(),
        };
        let response = StoredResponse::new(status, &headers, body);
        response.encode().ok_or("the response is too long")
    }
}

/// # Errors
/// The mistake.
pub(crate) fn check_reason(reason: &str) -> Result<(), &'static str> {
    match (3..=500).contains(&reason.trim().chars().count()) {
        true => Ok(()),
        false => Err("a reason has 3 to 500 characters"),
    }
}

/// The end of a token, which confirms that it was read.
pub(crate) fn confirmation(token: &str) -> &str {
    let from = token.char_indices().rev().nth(CONFIRMED - 1).map_or(0, |(at, _)| at);
    &token[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = r#"{"action":"complete","scope":"t","key":"a%20b","token":"ab-1-2","reason":"INC-1","status":201,"headers":[["x-id","7"]],"body":"yes"}"#;

    #[test]
    fn a_line_is_read_whole() {
        let read = Resolution::read(SOUND).unwrap();
        assert_eq!((read.key.scope(), read.key.key()), (&b"t"[..], &b"a b"[..]));
        assert_eq!((read.token.as_str(), &read.told["confirm"]), ("ab-1-2", &json!("-1-2")));
        let stored = StoredResponse::decode(read.response.unwrap()).unwrap();
        assert_eq!((stored.status().as_u16(), &stored.body()[..]), (201, &b"yes"[..]));
        let release = Resolution::read(&SOUND.replace("complete", "release")).unwrap();
        assert_eq!(release.response, None);
        assert!(Resolution::read(&format!("{SOUND}\r")).is_ok());
    }

    #[test]
    fn a_mistake_is_named_and_nothing_is_made_of_it() {
        for (sound, wrong, said) in [
            (r#""action":"complete""#, r#""action":"drop""#, "unknown variant `drop`"),
            (r#""scope":"t""#, r#""scope":5"#, "expected a string"),
            (r#""scope":"t""#, r#""scope":null"#, "expected a string"),
            (r#""key":"a%20b""#, r#""key":"100%""#, "key has a %"),
            (r#""key":"a%20b""#, r#""key":"""#, "0 bytes"),
            (r#","token":"ab-1-2""#, "", "missing field `token`"),
            ("ab-1-2", "", "token is empty"),
            (r#","reason":"INC-1""#, "", "missing field `reason`"),
            ("INC-1", " a ", "3 to 500"),
            ("201", "199", "status must be"),
            ("201", r#""201""#, "expected u16"),
            (r#""status":201,"#, "", "status must be"),
            (r#"[["x-id","7"]]"#, r#""x-id: 7""#, "expected a sequence"),
            (r#"["x-id","7"]"#, r#"["x id","7"]"#, "not valid in HTTP"),
            (r#""body":"yes""#, r#""body":5"#, "expected a string"),
            (r#""body":"yes""#, r#""bodyBase64":"?""#, "not base64"),
            (r#""body":"yes""#, r#""body":"","bodyBase64":"""#, "exclude"),
            ("}", "", "EOF"),
            ("{", "", "an object"),
            (SOUND, r#"["release","t","k","ab-1-2","INC-1",null,[],null,null]"#, "an object"),
            (r#""scope":"t","#, r#""scope":"t","scope":"u","#, "duplicate field"),
        ] {
            let mistake = Resolution::read(&SOUND.replacen(sound, wrong, 1)).unwrap_err();
            assert!(mistake.contains(said), "{wrong}: {mistake}");
            assert!(!mistake.contains(" at line "), "{mistake}");
        }
    }

    #[test]
    fn a_token_is_confirmed_by_its_end() {
        assert_eq!(confirmation("00000000000000ab-12-345"), "-345");
        assert_eq!(confirmation("ab"), "ab");
        assert_eq!(confirmation("äöüßé"), "öüßé");
    }
}
