//! Times as C sees them, in milliseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    in_ms(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(crate) fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
