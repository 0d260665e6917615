//! Refuses keys that a store restored from a backup may have forgotten.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};
use oncekey_http::Contract;

use crate::config::Restore;
use crate::wire::problem::Problem;

/// Refuses keys from before the restore: the store does not know whether their requests ran.
pub(crate) struct Restored(pub(crate) Restore);

impl Restored {
    /// # Errors
    /// 409 `idempotency_outcome_unknown`.
    pub(crate) fn check(&self, contract: &Contract, headers: &HeaderMap) -> Result<(), Problem> {
        let Restore { refuse_uuid7_before: Some(before), refuse_others } = self.0 else {
            return Ok(());
        };
        let key = contract.headers.iter().find_map(|name| headers.get(name));
        let made = key.and_then(|key| made_at(key.as_bytes()));
        let refused = made.map_or(refuse_others, |made| made < before);
        if !refused {
            return Ok(());
        }
        let detail = "The key may be from before the store was restored from a backup. The request \
            may or may not have had its effect.";
        let code = "idempotency_outcome_unknown";
        Err(Problem::new(StatusCode::CONFLICT, code, detail))
    }
}

/// The time when a key was made, if it is a UUID of version 7. Source: RFC 9562, section 5.7.
fn made_at(key: &[u8]) -> Option<SystemTime> {
    let quoted = key.strip_prefix(b"\"").and_then(|key| key.strip_suffix(b"\""));
    let text = std::str::from_utf8(quoted.unwrap_or(key)).ok()?;
    let parts: Vec<_> = text.split('-').collect();
    let lengths = parts.iter().map(|part| part.len());
    let is_hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if !lengths.eq([8, 4, 4, 4, 12]) || !is_hexadecimal || !parts[2].starts_with('7') {
        return None;
    }
    let millis = u64::from_str_radix(&format!("{}{}", parts[0], parts[1]), 16).ok()?;
    Some(UNIX_EPOCH + Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn keys_from_before_the_restore_are_refused() {
        let old = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        let at = UNIX_EPOCH + Duration::from_millis(0x017f_22e2_79b0);
        assert_eq!((made_at(old.as_bytes()), made_at(b"k")), (Some(at), None));
        let passes = |before: Option<SystemTime>, refuse_others, key: &'static str| {
            let restored = Restored(Restore { refuse_uuid7_before: before, refuse_others });
            let name = Contract::default().headers[0].clone();
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(key))]);
            restored.check(&Contract::default(), &headers).is_ok()
        };
        let (earlier, later) = (at - Duration::from_secs(1), at + Duration::from_secs(1));
        assert!(passes(None, true, old) && passes(Some(earlier), true, old));
        assert!(!passes(Some(later), false, old));
        assert!(!passes(Some(later), false, "\"017f22e2-79b0-7cc3-98c4-dc0c0c07398f\""));
        for other in ["order-7", "017f22e2-79b0-4cc3-98c4-dc0c0c07398f"] {
            assert!(passes(Some(later), false, other) && !passes(Some(later), true, other));
        }
    }
}
