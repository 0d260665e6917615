//! The order of the folder's work, and the work that it puts off while it is short of space.

use std::time::Duration;

use oncekey::stepping::{Duty, Stepper};
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
    while stepper.fold().unwrap() != Duty::Fold {}
}

/// An engine with enough runs for a merge.
fn with_a_merge_due(sim: &Sim, stepper: &Stepper) -> Engine {
    let day = Duration::from_secs(86_400);
    let options = sim.options().segment_bytes(1 << 20).sweep_interval(day);
    let engine = options.stepper(stepper).open("/store").unwrap();
    while stepper.fold().is_some() {}
    for fold in 0..4 {
        complete(&engine, stepper, &format!("{fold}"));
        hand_over(stepper);
    }
    engine
}

#[test]
fn a_fold_goes_before_a_merge_unless_that_is_far_behind() {
    for (neglected, order) in
        [(false, [Duty::Fold, Duty::Merge]), (true, [Duty::Merge, Duty::Fold])]
    {
        let sim = Sim::new();
        let stepper = Stepper::new(1);
        let engine = with_a_merge_due(&sim, &stepper);
        complete(&engine, &stepper, "another");
        stepper.want_fold();
        stepper.commit();
        if neglected {
            stepper.neglect_merging();
        }
        assert_eq!([stepper.fold(), stepper.fold()], order.map(Some));
        // The merge gave back the space of its inputs.
        while let Some(duty) = stepper.fold() {
            assert_eq!(duty, Duty::Sweep);
        }
    }
}

/// A merge takes space before it gives any back, so it waits while a fold has found none.
#[test]
fn nothing_is_merged_while_a_fold_waits_for_space() {
    let sim = Sim::new();
    let stepper = Stepper::new(1);
    let engine = with_a_merge_due(&sim, &stepper);
    let full = Fault::at_kind(OpKind::Write, 0).errno(Fault::ENOSPC).on_path("records-");
    sim.disk.inject(full.forever());
    complete(&engine, &stepper, "late");
    hand_over(&stepper);
    assert_eq!(stepper.fold(), None);
    sim.disk.clear_faults();
    assert_eq!(stepper.fold(), Some(Duty::Fold));
    assert_eq!(stepper.fold(), Some(Duty::Merge));
}

/// The merge is begun again once there is space. Until then claims are refused and all else goes
/// on.
#[test]
fn a_merge_that_finds_no_space_or_descriptor_is_put_off() {
    let cases = [
        (OpKind::Create, Fault::ENOSPC),
        (OpKind::Write, Fault::ENOSPC),
        (OpKind::Sync, Fault::ENOSPC),
        (OpKind::Create, Fault::EMFILE),
        (OpKind::Create, Fault::ENFILE),
    ];
    for (kind, errno) in cases {
        let sim = Sim::new();
        let stepper = Stepper::new(1);
        let engine = with_a_merge_due(&sim, &stepper);
        sim.disk.inject(Fault::at_kind(kind, 0).errno(errno).on_path("run-").forever());
        assert_eq!(stepper.fold(), Some(Duty::Merge));
        assert!(engine.stats().full);
        while let Some(duty) = stepper.fold() {
            assert!([Duty::Merge, Duty::Sweep].contains(&duty), "{duty:?}");
        }
        let runs = |sim: &Sim| {
            let files = sim.disk.files();
            files.iter().filter(|(path, _)| path.to_string_lossy().contains("run-")).count()
        };
        assert_eq!(runs(&sim), 4, "what it wrote is gone");
        sim.disk.clear_faults();
        assert_eq!(stepper.fold(), Some(Duty::Merge));
        while stepper.fold().is_some() {}
        assert_eq!(runs(&sim), 1);
        assert!(!engine.stats().full);
        assert_eq!(engine.stats().failures, 0);
        let replayed = engine.begin(&key("2"), body("a"));
        assert!(matches!(replayed.wait(), Ok(Begin::Replay(_))));
    }
}
