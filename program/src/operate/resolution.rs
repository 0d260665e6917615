//! A decision about an orphan, as a line of JSON or a command says it: read whole and checked before
//! anything is resolved, by the same rules for files and for servers.

use oncekey::Key;
use oncekey_http::describe::{percent_decode, percent_encode};
use oncekey_http::resolution::{self, check_reason, confirmation};
use serde::Deserialize;
use serde_json::{Value, json};

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
        let status = self.status.unwrap_or_default();
        let (body, body_base64) = (self.body.as_deref(), self.body_base64.as_deref());
        resolution::response(status, &self.headers, body, body_base64)
    }
}

#[cfg(test)]
mod tests {
    use oncekey_http::StoredResponse;

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
}
