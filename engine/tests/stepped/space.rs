//! What the folder leaves alone while it is short of space.

use std::time::Duration;

use oncekey::stepping::{Doing, Stepper};
use oncekey::{Begin, Engine};
use oncekey_testing::{Fault, OpKind};

use crate::common::{Sim, body, key};

fn complete(engine: &Engine, stepper: &Stepper, name: &str) {
    let begun = engine.begin(&key(name), body("a"));
    stepper.commit();
    let Ok(Begin::Claimed(claim)) = begun.wait() else { panic!("claimed") };
    let completed = claim.complete(b"x");
    stepper.commit();
    completed.wait().unwrap();
}

fn hand_over(stepper: &Stepper) {
    stepper.want_fold();
    stepper.commit();
    while stepper.fold().unwrap() != Doing::Fold {}
}

/// A merge takes space before it gives any back: begun, it waits for a fold that found none.
#[test]
fn nothing_is_merged_while_a_fold_waits_for_space() {
    let sim = Sim::new();
    let stepper = Stepper::new(1);
    let day = Duration::from_secs(86_400);
    let options = sim.options().segment_bytes(1 << 20).sweep_interval(day);
    let engine = stepper.install(options).open("/store").unwrap();
    while stepper.fold().is_some() {}
    // The last fold brings one record, and pays for the merging of as many.
    for (fold, records) in [30, 30, 30, 1].into_iter().enumerate() {
        (0..records).for_each(|n| complete(&engine, &stepper, &format!("{fold} {n}")));
        hand_over(&stepper);
    }
    let full = Fault::at_kind(OpKind::Write, 0).errno(Fault::ENOSPC).on_path("records-");
    sim.disk.inject(full.forever());
    complete(&engine, &stepper, "late");
    hand_over(&stepper);
    assert_eq!(stepper.fold(), None);
    sim.disk.clear_faults();
    assert_eq!(stepper.fold(), Some(Doing::Fold));
    assert_eq!(stepper.fold(), Some(Doing::Merge));
}
