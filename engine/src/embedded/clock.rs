//! Time, as a trait with a test twin.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use crate::base::error::{Error, ErrorKind, Result};

/// Where the engine gets its time from.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Time since some fixed point, never going back and counting while the machine is suspended.
    fn boottime(&self) -> Duration;
    /// The wall clock. Read once, when a store is opened.
    fn wall(&self) -> SystemTime;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsClock;

impl Clock for OsClock {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn boottime(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // The boot-time clock starts at zero and never goes back: both fields are in range.
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    /// macOS counts suspended time in its `CLOCK_MONOTONIC`; other systems have nothing better.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn boottime(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

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

    /// The time `duration` later; one beyond the end of time is the end of time.
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

/// Engine time while a store is open: advanced by the boot-time clock from where it stood at open,
/// so that steps of the wall clock do not reach it.
#[derive(Debug)]
pub(crate) struct EngineClock {
    clock: std::sync::Arc<dyn Clock>,
    opened_at: Time,
    boottime_at_open: Duration,
}

impl EngineClock {
    /// Starts engine time at the later of the wall clock and `stored`, the store's last time.
    ///
    /// # Errors
    /// `ClockJump` when the wall clock stands more than `max_gap` ahead of `stored`: believing it
    /// would expire every record. `None` accepts any gap.
    pub(crate) fn start(
        clock: std::sync::Arc<dyn Clock>,
        stored: Option<Time>,
        max_gap: Option<Duration>,
    ) -> Result<Self> {
        let wall = Time::from_wall(clock.wall());
        if let (Some(stored), Some(max_gap)) = (stored, max_gap)
            && wall.since(stored) > max_gap
        {
            return Err(Error::new(
                ErrorKind::ClockJump,
                format!(
                    "the wall clock stands {} days after the store's last time, at most {} are \
                     believed, since records would expire by it; set the clock right, or accept \
                     the gap with `accept_clock_jump(true)`",
                    wall.since(stored).as_secs() / 86_400,
                    max_gap.as_secs() / 86_400,
                ),
            ));
        }
        let boottime_at_open = clock.boottime();
        Ok(Self {
            clock,
            opened_at: stored.map_or(wall, |stored| stored.max(wall)),
            boottime_at_open,
        })
    }

    pub(crate) fn now(&self) -> Time {
        self.opened_at.after(self.clock.boottime().saturating_sub(self.boottime_at_open))
    }
}
