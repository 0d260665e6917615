//! The pace of a fold: its writes are spread over the time in which the records of the next one gather.
//!
//! Written at once, a fold holds up the journal's writes and makes its syncs flush megabytes.

use std::time::Duration;

use crate::embedded::journal::SegmentPool;
use crate::embedded::session::Session;

/// A fold is written when the next one is gathered to this share: the rest of the time is for
/// merges.
const WRITTEN_AT: f64 = 0.7;
/// One rest.
const REST: Duration = Duration::from_micros(500);
/// After this many rests without a new record: no caller is held up, and the rest is written at once.
const MOST_RESTS: u32 = 20;

/// Keeps the pace of one fold. Its argument is the share of the fold that is written.
pub(super) fn paced<'a>(session: &'a Session, pool: &'a SegmentPool) -> impl FnMut(f64) + 'a {
    let mut pace = Pace::default();
    let gathered = || {
        let is_asked = {
            let requests = session.inbox.requests.lock();
            requests.stopped || !requests.sweeps.is_empty()
        };
        let urgent = !session.options.paces_folds()
            || is_asked
            || session.folds.wants()
            || session.has_failed()
            || pool.wants_segment();
        (!urgent).then(|| session.recent.gathered(&session.options))
    };
    move |written| pace.keep(written, gathered, || session.inbox.rest(REST))
}

/// Decides when a fold rests.
#[derive(Debug, Default)]
struct Pace {
    /// The share of the next fold that has gathered, as of the last look.
    gathered: f64,
    /// Rests since it last grew.
    rests: u32,
}

impl Pace {
    /// Rests while more than its due share of the fold is `written`. `gathered` looks at the next
    /// fold, and says `None` when callers or the journal wait for this one.
    fn keep(&mut self, written: f64, gathered: impl Fn() -> Option<f64>, mut rest: impl FnMut()) {
        while written > self.gathered / WRITTEN_AT && self.rests < MOST_RESTS {
            match gathered() {
                None => self.rests = MOST_RESTS,
                Some(share) if share > self.gathered => (self.gathered, self.rests) = (share, 0),
                Some(_) => {
                    self.rests += 1;
                    rest();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// The rests before each tenth of a fold, when each rest lets `each` gather.
    fn rests(each: f64, urgent_at: usize) -> [u32; 10] {
        let (gathered, written) = (Cell::new(0.0), Cell::new(0));
        let mut pace = Pace::default();
        std::array::from_fn(|tenth| {
            written.set(tenth);
            let mut rests = 0;
            let look = || (written.get() < urgent_at).then(|| gathered.get());
            pace.keep((tenth + 1) as f64 / 10.0, look, || {
                rests += 1;
                gathered.set(gathered.get() + each);
            });
            rests
        })
    }

    #[test]
    fn a_fold_is_written_as_the_next_one_gathers() {
        assert_eq!(rests(0.0251 * WRITTEN_AT, usize::MAX), [4; 10]);
        assert_eq!(rests(0.101 * WRITTEN_AT, usize::MAX), [1; 10]);
        assert_eq!(rests(0.51 * WRITTEN_AT, usize::MAX), [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_fold_beside_no_load_does_not_wait_for_it() {
        assert_eq!(rests(0.0, usize::MAX), [MOST_RESTS, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_urgent_fold_does_not_rest_again() {
        assert_eq!(rests(0.0251 * WRITTEN_AT, 3), [4, 4, 4, 0, 0, 0, 0, 0, 0, 0]);
    }
}
