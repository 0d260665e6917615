//! Backups, snapshots that are put back, and their tokens.

use super::*;

#[test]
fn a_backup_is_consistent_and_another_incarnation() {
    let sim = Sim::new();
    let engine = sim.open();
    fold_one_of_two(&engine);
    let held = claim(&engine, "held");
    drop(claim(&engine, "orphan"));
    orphan(&engine, "orphan");
    engine.backup_to("/copies/first").unwrap();
    complete(&engine, "after", b"three");

    let error = engine.backup_to("/copies/first").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "not into a directory that is in use");

    let copy = sim.options().open_existing("/copies/first").unwrap();
    both_replay(&copy);
    assert_eq!(orphan(&copy, "held").token(), held.token());
    orphan(&copy, "orphan");
    assert!(matches!(copy.get(&key("after")).unwrap(), Lookup::Absent));
    let here = claim(&engine, "same").token().to_bytes();
    let there = claim(&copy, "same").token().to_bytes();
    assert_ne!(here[..8], there[..8], "tokens of the copy are of another incarnation");
    held.complete(b"x").wait().unwrap();
}

/// The tokens of 50 new claims.
fn tokens(engine: &Engine, prefix: &str) -> Vec<[u8; 24]> {
    (0..50).map(|n| claim(engine, &format!("{prefix} {n}")).token().to_bytes()).collect()
}

#[test]
fn tokens_of_a_restored_snapshot_never_repeat_and_order_behind_the_originals() {
    let sim = Sim::new();
    let engine = sim.open();
    let before = tokens(&engine, "before");
    let snapshot = sim.disk.crash(CrashMode::ProcessKill);
    let lost = tokens(&engine, "lost");
    sim.clock.advance(Duration::from_secs(1));
    // Two copies: one is put back in the same place, one beside it. Both are opened within one
    // millisecond.
    let places = [snapshot.crash(CrashMode::ProcessKill), snapshot.crash(CrashMode::ProcessKill)];
    let mut seen: std::collections::BTreeSet<_> = before.iter().chain(&lost).copied().collect();
    let newest = *seen.last().unwrap();
    for place in places {
        let copy = sim.on(place).open();
        for token in tokens(&copy, "after") {
            assert!(token > newest, "later ones sort greater");
            assert!(seen.insert(token), "a token came twice");
        }
        assert_eq!(orphan(&copy, "before 0").token().to_bytes(), before[0]);
    }
}

#[test]
fn tokens_of_a_restored_backup_order_behind_the_originals() {
    let sim = Sim::new();
    let engine = sim.open();
    let held = claim(&engine, "held");
    engine.backup_to("/copy").unwrap();
    let lost = tokens(&engine, "lost");
    sim.clock.advance(Duration::from_secs(1));
    let copy = sim.options().open_existing("/copy").unwrap();
    let after = tokens(&copy, "after");
    assert!(after.iter().min() > lost.iter().max());
    assert_eq!(orphan(&copy, "held").token(), held.token());
    // The same for claims in the journal, not only folded ones.
    drop(copy);
    let copy = sim.options().open_existing("/copy").unwrap();
    assert_eq!(orphan(&copy, "after 7").token().to_bytes(), after[7]);
}

#[test]
fn tokens_order_by_age_although_the_clock_goes_back() {
    let sim = Sim::new();
    let first = tokens(&sim.open(), "first");
    sim.clock.jump_wall(-86_400);
    let second = tokens(&sim.open(), "second");
    assert!(second.iter().min() > first.iter().max());
}
