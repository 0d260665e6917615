//! Engine time.

use std::time::{Duration, SystemTime};

/// Engine time in milliseconds since the Unix epoch. It never goes back, not even across restarts:
/// the store's last time wins over a wall clock that stands behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    pub(crate) fn from_wall(wall: SystemTime) -> Self {
        Self(wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis))
    }

    pub(crate) fn to_wall(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0)
    }

    /// The time `duration` later, at most the end of time.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
