//! A clock that the test moves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oncekey::Clock;
use parking_lot::Mutex;

/// 2026-01-01T00:00:00Z, in seconds since the Unix epoch.
const START_WALL: Duration = Duration::from_secs(1_767_225_600);
/// Not zero, so that a test notices code that takes the time since boot for a date.
const START_BOOTTIME: Duration = Duration::from_secs(1_000);

/// A clock that stands still until the test moves it. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Now>>);

#[derive(Debug)]
struct Now {
    boottime: Duration,
    wall: SystemTime,
}

impl ManualClock {
    /// A clock that shows 2026-01-01T00:00:00Z, 1,000 seconds after boot.
    pub fn new() -> Self {
        let wall = SystemTime::UNIX_EPOCH + START_WALL;
        Self(Arc::new(Mutex::new(Now { boottime: START_BOOTTIME, wall })))
    }

    /// Lets time pass: both clocks move.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        now.boottime += by;
        now.wall += by;
    }

    /// Suspends the machine. Both clocks move, since a boot-time clock counts suspension.
    pub fn suspend(&self, duration: Duration) {
        self.advance(duration);
    }

    /// Sets the wall clock, as an administrator would. The boot-time clock stays.
    pub fn set_wall(&self, wall: SystemTime) {
        self.0.lock().wall = wall;
    }

    /// Steps the wall clock forward or, if negative, back, as NTP would. The boot-time clock stays.
    pub fn jump_wall(&self, seconds: i64) {
        let step = Duration::from_secs(seconds.unsigned_abs());
        let mut now = self.0.lock();
        if seconds < 0 {
            now.wall -= step;
        } else {
            now.wall += step;
        }
    }

    /// Starts the machine again: the boot-time clock begins anew, the wall clock goes on.
    pub fn reboot(&self) {
        self.0.lock().boottime = Duration::from_secs(1);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn boottime(&self) -> Duration {
        self.0.lock().boottime
    }

    fn wall(&self) -> SystemTime {
        self.0.lock().wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(20_454 * 86_400)
    }

    #[test]
    fn starts_where_it_says_and_stands_still() {
        let clock = ManualClock::new();
        // 56 years from 1970 with 14 leap days: 56 * 365 + 14 = 20,454 days.
        assert_eq!(clock.wall(), start());
        assert_eq!(clock.boottime(), START_BOOTTIME);
        assert_eq!(clock.wall(), ManualClock::default().wall());
    }

    #[test]
    fn advance_and_suspend_move_both_clocks_of_all_clones() {
        let clock = ManualClock::new();
        let other = clock.clone();
        clock.advance(HOUR);
        other.suspend(HOUR);
        assert_eq!(clock.boottime(), START_BOOTTIME + 2 * HOUR);
        assert_eq!(clock.wall(), start() + 2 * HOUR);
    }

    #[test]
    fn the_wall_clock_steps_without_the_boottime_clock() {
        let clock = ManualClock::new();
        clock.jump_wall(-7200);
        assert_eq!(clock.wall(), start() - 2 * HOUR);
        clock.jump_wall(3600);
        assert_eq!(clock.wall(), start() - HOUR);
        clock.set_wall(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH);
        assert_eq!(clock.boottime(), START_BOOTTIME);
    }

    #[test]
    fn a_reboot_starts_the_boottime_clock_anew() {
        let clock = ManualClock::new();
        clock.reboot();
        assert_eq!(clock.boottime(), Duration::from_secs(1));
        assert_eq!(clock.wall(), start());
    }
}
