//! When the journal is folded.

use super::*;

#[test]
fn an_hour_long_claim_pins_nothing_and_survives_folds() {
    let sim = Sim::new();
    let engine = sim.open();
    let held = claim(&engine, "held");
    let segments = |sim: &Sim| {
        let files = sim.disk.files();
        files.iter().filter(|(path, _)| path.to_string_lossy().contains("journal")).count()
    };
    for round in 0..300 {
        complete(&engine, &format!("k{round}"), &[7; 4000]);
    }
    engine.fold().unwrap();
    assert!(engine.stats().folds > 5);
    assert!(segments(&sim) <= 6, "{} segments", segments(&sim));
    held.complete(b"at last").wait().unwrap();
    engine.close().unwrap();
    assert_eq!(replay(&sim.open(), "held").response(), Some(&b"at last"[..]));
}

#[test]
fn what_was_recovered_is_folded_when_it_is_asked_for() {
    let engine = stopped().open();
    assert_eq!(engine.stats().folded_records, 1);
    engine.fold().unwrap();
    assert_eq!(engine.stats().folded_records, 2);
}

#[test]
fn recent_memory_is_folded_once_half_of_it_is_used() {
    let sim = Sim::new();
    let engine = sim.options().segment_bytes(1 << 20).open("/store").unwrap();
    for round in 0..20 {
        complete(&engine, &format!("k{round}"), &[7; 4000]);
    }
    // No caller asked for a fold, and no segment is full.
    while engine.stats().folds == 0 {
        std::thread::yield_now();
    }
}

/// Without this a key that is aborted again and again would grow the journal without end.
#[test]
fn the_journal_is_folded_for_its_length_too() {
    let sim = Sim::new();
    let engine = sim.options().recent_bytes(64 << 20).open("/store").unwrap();
    let mut attempts = 0;
    // Recent memory holds only one key.
    while engine.stats().folds == 0 {
        claim(&engine, "k").abort().wait().unwrap();
        attempts += 1;
        assert!(attempts < 10_000, "the journal grows");
    }
}
