//! An engine whose disk can be stopped at a sync.

use std::sync::Arc;

use oncekey::{Engine, Options};
use oncekey_testing::HeldDisk;
#[allow(unused_imports)]
pub(crate) use oncekey_testing::calls::unanswered;

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
    // The sweep comes last, when a segment stands ready, so that no sync of the folder is mistaken for the one that a
    // test waits for.
    engine.sweep().unwrap();
    Stalled { sim, held, engine }
}
