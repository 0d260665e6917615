//! The store's time, seen from afar.

use std::time::Duration;

use crate::base::sync::Instant;
use crate::semantics::time::{Time, millis};

/// Bounds of the store's time: it was read at some moment between the sending of a question and the
/// arrival of its answer.
///
/// Only the newest answer counts: two clocks drift apart, and a failover changes the store's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreClock {
    now: u64,
    sent: Instant,
    received: Instant,
}

impl StoreClock {
    pub(crate) fn new(now: u64, sent: Instant, received: Instant) -> Self {
        Self { now, sent, received }
    }

    /// The store's time is at least this.
    pub(crate) fn lo(&self, at: Instant) -> Time {
        let since = millis(at.saturating_duration_since(self.received));
        Time(self.now + drifted(since, 999))
    }

    /// The store's time is at most this.
    pub(crate) fn hi(&self, at: Instant) -> Time {
        Time(self.now + at_most(at.saturating_duration_since(self.sent)))
    }
}

/// How long a span by this process's clock may last by that of the store, in milliseconds.
pub(crate) fn at_most(span: Duration) -> u64 {
    drifted(millis(span), 1001) + 1
}

/// Clocks of two machines drift apart by less than a thousandth.
fn drifted(span: u64, thousandths: u64) -> u64 {
    (u128::from(span) * u128::from(thousandths) / 1000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_store_lies_between_the_bounds() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        // Asked at 0, read at 30 as 1,000, answered at 50.
        let clock = StoreClock::new(1_000, at(0), at(50));
        for later in [50, 51, 1_050, 3_600_050] {
            let truth = 1_000 + later - 30;
            assert!(clock.lo(at(later)).0 <= truth && truth <= clock.hi(at(later)).0, "{later}");
        }
        assert_eq!(clock.lo(at(50)), Time(1_000));
        assert_eq!(clock.hi(at(50)), Time(1_051));
    }
}
