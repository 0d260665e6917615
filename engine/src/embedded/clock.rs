//! Time, behind a trait that tests implement, too.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use crate::base::error::{Error, ErrorKind, Result};
use crate::semantics::time::Time;

/// Where the engine gets its time from.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Time since some fixed point. It never goes back, and counts while the machine is suspended.
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

/// Engine time while a store is open: advanced by the boot-time clock from where it stood at open,
/// so that steps of the wall clock do not reach it.
#[derive(Debug)]
pub(crate) struct EngineClock {
    clock: std::sync::Arc<dyn Clock>,
    opened_at: Time,
    boottime_at_open: Duration,
}

/// Formats a time in days from two days on, and exactly below.
fn in_days(span: Duration) -> String {
    match span.as_secs() / 86_400 {
        0 | 1 => format!("{span:?}"),
        days => format!("{days} days"),
    }
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
                    "the wall clock stands {} after the store's last time, max_clock_gap is {}, \
                     and records would expire by it; set the clock right, or accept \
                     the gap with `accept_clock_jump(true)`",
                    in_days(wall.since(stored)),
                    in_days(max_gap),
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
