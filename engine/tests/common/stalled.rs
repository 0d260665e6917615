//! An engine whose disk can be stopped at a sync, and what has no answer until it goes on.

use std::sync::Arc;
use std::time::Duration;

use oncekey::{Engine, Error, Options, Pending};
use oncekey_testing::HeldDisk;

use super::Sim;

pub(crate) struct Stalled {
    pub(crate) sim: Sim,
    pub(crate) held: HeldDisk,
    pub(crate) engine: Engine,
}

pub(crate) fn stalled(change: impl FnOnce(Options) -> Options) -> Stalled {
    stalled_at("journal", change)
}

pub(crate) fn stalled_at(part: &'static str, change: impl FnOnce(Options) -> Options) -> Stalled {
    let sim = Sim::new();
    let held = HeldDisk::new(sim.disk.clone(), part);
    let options = sim.options().disk(Arc::new(held.clone()));
    let engine = change(options).open("/store").unwrap();
    // Comes last, when a segment stands ready: no sync of the folder takes the place of the one that
    // a test waits for.
    engine.sweep().unwrap();
    Stalled { sim, held, engine }
}

/// There is no answer yet. Not for as long as it takes: for a moment.
pub(crate) fn unanswered<T, E: From<Error>>(pending: Pending<T, E>) -> Pending<T, E> {
    match pending.wait_timeout(Duration::from_millis(20)) {
        Err(pending) => pending,
        Ok(_) => panic!("answered before the sync"),
    }
}
