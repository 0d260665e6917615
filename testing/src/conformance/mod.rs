//! The suites that every backend passes: semantics, waiting, random histories, linearizability.
//!
//! A [`Rig`] opens engines on a store of one backend and moves what surrounds them. Each suite has a
//! macro of its name, which makes one `#[test]` for each of its cases on the rig that it is given:
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

/// How engines came back after a disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The same engines, reopened: their claims count as orphans, and owners may still end them.
    InPlace,
    /// Other engines, as after the end of their processes: nobody holds a claim.
    Anew,
}

/// A store of one backend, empty at first, and the world around it. Its clock stands still until it is
/// moved.
pub trait Rig: Sized + Sync {
    /// How many engines share the store, each as if in a process of its own.
    const ENGINES: usize = 1;

    /// Whether the end of an engine leaves the records of its claims as they are, so that an owner who lives
    /// on may do everything that one beyond its deadline may. Otherwise its end is written into each record.
    const LAPSES: bool = false;

    /// No engine takes the time for earlier or later than it is by as much.
    const UNIT: Duration = Duration::from_millis(1);

    /// Cases of a random suite, relative to the others: how fast the store is.
    const PACE: u32;

    /// An empty store. `None` where there cannot be one on this machine; then it says so on standard output.
    fn new() -> Option<Self>;

    /// Opens engine number `nth`, the successor of the one of this number that was closed or killed.
    fn open_nth(&self, nth: usize, bounds: &Bounds) -> Engine;

    /// Opens the first engine.
    fn open(&self) -> Engine {
        self.open_nth(0, &Bounds::default())
    }

    /// Opens all engines.
    fn open_all(&self, bounds: &Bounds) -> Vec<Engine> {
        (0..Self::ENGINES).map(|nth| self.open_nth(nth, bounds)).collect()
    }

    /// Moves the time ahead, and has the engine know of it.
    fn advance(&self, engine: &Engine, by: Duration);

    /// How far the clock of the machine is ahead of where it began.
    fn since_start(&self) -> Duration;

    /// Steps the clock of the machine between two openings, where the store's time depends on one.
    fn step_clock(&self, _seconds: i64) {}

    /// Ends all engines as `kill -9` would: the store keeps what reached it, and is reached by them no more.
    fn kill(&mut self);

    /// From now on no change becomes durable, and none of `engine` is on its way.
    fn hold(&self, engine: &Engine);

    /// Waits until a change is held.
    fn wait_until_held(&self);

    /// Lets every change go on.
    fn release(&self);

    /// Something goes wrong at some later change, or nothing does.
    fn disturb(&self, random: &mut Random);

    /// Nothing goes wrong any more; the engines are reopened, or their successors are opened.
    fn recover(
        &mut self,
        engines: &mut Vec<Engine>,
        bounds: &Bounds,
        random: &mut Random,
    ) -> Recovery;
}

/// Makes the macro of a suite. A case that is not listed is dead code, which does not compile in CI.
macro_rules! cases {
    ($d:tt $suite:ident: $($case:ident),* $(,)?) => {
        /// The cases, as the tests call them.
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
