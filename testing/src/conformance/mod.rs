//! The suites that every backend passes: semantics, waiting, random histories, linearizability.
//!
//! A [`Rig`] opens engines on a store of one backend and controls their disk, clock and processes.
//! Each suite has a macro of its name, which makes one `#[test]` for each of its cases on a given
//! rig:
//!
//! ```ignore
//! use oncekey_testing::conformance::Embedded;
//! oncekey_testing::semantics!(Embedded);
//! ```
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use oncekey::Engine;

use crate::Random;
use crate::calls::TTL;

mod embedded;
#[cfg(not(any(oncekey_loom, oncekey_shuttle)))]
mod fleet;
#[doc(hidden)]
pub mod histories;
#[doc(hidden)]
pub mod linearizability;
#[doc(hidden)]
pub mod semantics;
#[doc(hidden)]
pub mod waiting;

pub use embedded::Embedded;
#[cfg(not(any(oncekey_loom, oncekey_shuttle)))]
pub use fleet::{Fleet, InMemory, SharedStore};

/// The options that every backend has.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Bounds {
    pub ttl: Duration,
    pub max_execution: Option<Duration>,
    pub max_response: usize,
    pub max_checkpoint: usize,
    pub max_in_flight: usize,
    pub max_queue: usize,
    pub max_waiters: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            ttl: TTL,
            max_execution: None,
            max_response: 4096,
            max_checkpoint: 1024,
            max_in_flight: 65_536,
            max_queue: 65_536,
            max_waiters: 65_536,
        }
    }
}

/// How the engines came back after a disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The same engines were reopened: their claims count as orphans, and owners may still end
    /// them.
    InPlace,
    /// New engines were opened, as after the end of the old processes: no claim is held any more.
    Anew,
}

/// A store of one backend, empty at first, with its clock, disk or wires. The clock stands still
/// until the test moves it.
pub trait Rig: Sized + Sync {
    /// How many engines share the store, each as if in its own process.
    const ENGINES: usize = 1;

    /// Whether the end of an engine leaves the records of its claims unchanged. An owner that still
    /// lives may then do everything that an owner beyond its deadline may. Otherwise the end is
    /// written into each record.
    const LAPSES: bool = false;

    /// The unit of time of the random histories: every engine knows the time more exactly than one
    /// unit.
    const UNIT: Duration = Duration::from_millis(1);

    /// A measure for the number of cases of a random suite, larger for a faster store.
    const PACE: u32;

    /// An empty store. `None`, with a line on standard output, where this machine cannot run one.
    fn new() -> Option<Self>;

    /// Opens engine number `nth`, the successor of the closed or killed engine of this number.
    fn open_nth(&self, nth: usize, bounds: &Bounds) -> Engine;

    /// Opens the first engine.
    fn open(&self) -> Engine {
        self.open_nth(0, &Bounds::default())
    }

    /// Opens all engines.
    fn open_all(&self, bounds: &Bounds) -> Vec<Engine> {
        (0..Self::ENGINES).map(|nth| self.open_nth(nth, bounds)).collect()
    }

    /// Moves the time ahead, and lets the engine notice.
    fn advance(&self, engine: &Engine, by: Duration);

    /// How far the clock of the machine has moved since the start.
    fn since_start(&self) -> Duration;

    /// Steps the clock of the machine between two openings, for a store whose time depends on this
    /// clock.
    fn step_clock(&self, _seconds: i64) {}

    /// Ends all engines as `kill -9` would. The store keeps the changes that reached it, and no
    /// more reach it.
    fn kill(&mut self);

    /// Holds every change from now on, so that none becomes durable. No change of `engine` may be
    /// under way.
    fn hold(&self, engine: &Engine);

    /// Waits until a change is held.
    fn wait_until_held(&self);

    /// Lets every change go on.
    fn release(&self);

    /// Lets some later change fail, or none.
    fn disturb(&self, random: &mut Random);

    /// Ends all failures, and reopens the engines or opens their successors.
    fn recover(
        &mut self,
        engines: &mut Vec<Engine>,
        bounds: &Bounds,
        random: &mut Random,
    ) -> Recovery;
}

/// Makes the macro of a suite. A case that is missing in the list is dead code, which CI refuses.
macro_rules! cases {
    ($d:tt $suite:ident: $($case:ident),* $(,)?) => {
        /// The cases, each as a function that a test calls.
        #[doc(hidden)]
        #[allow(missing_docs)]
        pub mod cases {
            use crate::conformance::Rig;
            $(pub fn $case<R: Rig>() {
                if let Some(rig) = R::new() {
                    super::$case(rig);
                }
            })*
        }

        /// Makes one `#[test]` for each case of the suite, on a [`Rig`](crate::conformance::Rig).
        #[macro_export]
        macro_rules! $suite {
            ($d rig:ty) => {
                $(#[test]
                fn $case() {
                    $d crate::conformance::$suite::cases::$case::<$d rig>();
                })*
            };
        }
    };
}
use cases;
