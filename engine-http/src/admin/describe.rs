//! Records as JSON, for the API and for the command line, which also reads stores without the API.

use std::fmt;

use oncekey::{Bucket, Listed, Lookup, Orphan, Statistic, Stats};
use serde_json::{Map, Value, json};

use super::text::{camel, millis, since_1970};
pub use super::text::{percent_decode, percent_encode};
use crate::recorded::StoredResponse;

/// The statistics of an engine.
pub fn stats(stats: &Stats) -> Value {
    Value::Object(stats.fields().into_iter().map(member).collect())
}

/// A statistic of the engine as a member of a JSON object.
fn member((name, statistic): (&str, Statistic)) -> (String, Value) {
    let name = camel(name);
    match statistic {
        Statistic::Gauge(number) | Statistic::Counter(number) => (name, json!(number)),
        Statistic::State(is) => (name, json!(is)),
        Statistic::Age(age) => (name + "Ms", json!(age.map(millis))),
    }
}

/// An orphan, with the members that its resolution repeats.
pub fn orphan(orphan: &Orphan) -> Value {
    json!({
        "scope": percent_encode(orphan.key().scope()),
        "key": percent_encode(orphan.key().key()),
        "token": orphan.token().to_string(),
        "attempt": orphan.attempt(),
        "sinceMs": since_1970(orphan.since()),
        "ageMs": millis(orphan.age()),
        "checkpointBytes": orphan.checkpoint_len(),
    })
}

/// The state of a key. For a response it has the status and the length, not the content.
pub fn lookup(lookup: &Lookup) -> Value {
    match lookup {
        Lookup::InFlight(in_flight) => json!({
            "state": "inFlight",
            "attempt": in_flight.attempt(),
            "runningForMs": millis(in_flight.running_for()),
        }),
        Lookup::Orphaned(found) => {
            let mut found = orphan(found);
            found["state"] = json!("orphaned");
            found
        }
        Lookup::Completed(recorded) => {
            let stored = recorded.response().map(|bytes| StoredResponse::decode(bytes.to_vec()));
            let stored = stored.map(|stored| match stored {
                Ok(stored) => json!({
                    "status": stored.status().as_u16(),
                    "bodyBytes": stored.body().len(),
                }),
                Err(error) => json!({ "error": error.to_string() }),
            });
            json!({
                "state": "completed",
                "token": recorded.token().to_string(),
                "completedAtMs": since_1970(recorded.completed_at()),
                "expiresAtMs": since_1970(recorded.expires_at()),
                "response": stored,
            })
        }
        _ => json!({ "state": "absent" }),
    }
}

/// A key of a list, with its state.
pub fn listed(listed: &Listed) -> Value {
    let mut described = Map::new();
    described.insert("scope".to_owned(), json!(percent_encode(listed.key().scope())));
    described.insert("key".to_owned(), json!(percent_encode(listed.key().key())));
    if let Value::Object(members) = lookup(listed.lookup()) {
        described.extend(members);
    }
    Value::Object(described)
}

/// Completed records by the time of their expiry.
pub fn expiry(buckets: &[Bucket]) -> Value {
    let described = buckets.iter().map(|bucket| {
        json!({
            "endMs": since_1970(bucket.end), "records": bucket.records, "bytes": bucket.bytes,
        })
    });
    described.collect()
}

type Page = oncekey::Result<(Vec<Listed>, Option<[u8; 16]>)>;

/// The filter of a list of keys, and the place where the page begins.
#[derive(Clone, Default)]
pub struct KeyQuery {
    /// Only keys after this place in the order of the store.
    pub after: Option<[u8; 16]>,
    /// The largest number of entries.
    pub limit: usize,
    /// Only keys in this state: `completed`, `orphaned` or `inFlight`.
    pub state: Option<String>,
    /// Only keys of this scope.
    pub scope: Option<Vec<u8>>,
    /// Only keys that begin with these bytes.
    pub prefix: Option<Vec<u8>>,
}

/// Prints the lengths of scope and prefix.
impl fmt::Debug for KeyQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyQuery")
            .field("after", &self.after)
            .field("limit", &self.limit)
            .field("state", &self.state)
            .field("scope", &self.scope.as_ref().map(Vec::len))
            .field("prefix", &self.prefix.as_ref().map(Vec::len))
            .finish()
    }
}

impl KeyQuery {
    /// Reads a place as an answer writes it in `after`: 32 hexadecimal digits.
    pub fn place(text: &str) -> Option<[u8; 16]> {
        let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let place = plain.then(|| u128::from_str_radix(text, 16).ok())??;
        Some(place.to_be_bytes())
    }

    /// Checks the filter.
    ///
    /// # Errors
    /// The reason, when `state` is not the name of a state.
    pub fn check(&self) -> Result<(), String> {
        match self.state.as_deref() {
            None | Some("completed" | "orphaned" | "inFlight") => Ok(()),
            Some(_) => Err("state is completed, orphaned or inFlight".to_owned()),
        }
    }

    /// A page of the list: `keys`, and `after`, which is null at the end. When few of many records match, a
    /// page may be short or empty although `after` is not null.
    ///
    /// # Errors
    /// The errors of `scan`.
    pub fn page(&self, scan: impl Fn(Option<[u8; 16]>, usize) -> Page) -> oncekey::Result<Value> {
        /// A page with a filter reads this many records in one look, for at most `LOOKS` looks.
        const LOOK: usize = 1_000;
        const LOOKS: usize = 20;
        let picks = self.state.is_some() || self.scope.is_some() || self.prefix.is_some();
        let most = if picks { LOOK } else { self.limit };
        let (mut keys, mut after) = (Vec::new(), self.after);
        'pages: for _ in 0..LOOKS {
            let (page, next) = scan(after, most)?;
            for found in &page {
                if self.fits(found) {
                    keys.push(listed(found));
                    after = Some(found.place());
                    if keys.len() >= self.limit {
                        break 'pages;
                    }
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        let after = after.map(|place| format!("{:032x}", u128::from_be_bytes(place)));
        Ok(json!({ "keys": keys, "after": after }))
    }

    fn fits(&self, listed: &Listed) -> bool {
        let state = match listed.lookup() {
            Lookup::Completed(_) => "completed",
            Lookup::Orphaned(_) => "orphaned",
            _ => "inFlight",
        };
        self.state.as_ref().is_none_or(|wanted| wanted == state)
            && self.scope.as_ref().is_none_or(|scope| listed.key().scope() == scope)
            && self.prefix.as_ref().is_none_or(|prefix| listed.key().key().starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_printed_without_scope_and_prefix() {
        let part = Some(b"PRIVATE".to_vec());
        let query = KeyQuery { scope: part.clone(), prefix: part, ..KeyQuery::default() };
        let printed = format!("{query:?}");
        assert!(printed.contains("prefix: Some(7)"), "{printed}");
        assert!(!printed.contains("PRIVATE") && !printed.contains("80, 82"), "{printed}");
    }

    #[test]
    fn a_place_is_32_digits() {
        assert_eq!(KeyQuery::place(&"0".repeat(32)), Some([0; 16]));
        assert_eq!(KeyQuery::place(&"f".repeat(32)), Some([255; 16]));
        for bad in ["", "0", &"g".repeat(32), &"0".repeat(33), "+0000000000000000000000000000001"] {
            assert_eq!(KeyQuery::place(bad), None, "{bad}");
        }
    }
}
