//! Power losses and kills at any moment of a running engine.

use super::*;

/// Opens an image, losing power again and again while it recovers.
fn open_through_crashes(sim: Sim, random: &mut Random) -> (Sim, Engine) {
    let mut sim = sim;
    for _ in 0..random.below(3) {
        sim.disk.power_off_at(random.below(60));
        let opened = sim.options().open("/store");
        let image = sim.disk.crash(CrashMode::PowerLoss { seed: random.below(u64::MAX) });
        drop(opened);
        sim = sim.on(image);
    }
    let engine = sim.open();
    (sim, engine)
}

#[test]
fn power_loss_at_any_moment_loses_nothing_acknowledged() {
    for seed in seeds(0..400) {
        let _named = Seed(seed);
        let mut caller = Caller::new(seed);
        let mut sim = Sim::new();
        let mut engine = sim.open();
        for _life in 0..4 {
            caller.run(&engine, 15);
            sim.disk.power_off_at(caller.random.below(120));
            caller.run(&engine, 40);
            let image =
                sim.disk.crash(CrashMode::PowerLoss { seed: caller.random.below(u64::MAX) });
            caller.claims.clear();
            drop(engine);
            (sim, engine) = open_through_crashes(sim.on(image), &mut caller.random);
            caller.check(&engine);
            sim.clock.advance(Duration::from_secs(7));
            caller.model.now += 7_000;
        }
    }
}

#[test]
fn a_kill_at_any_moment_loses_nothing_acknowledged() {
    for seed in seeds(0..150) {
        let _named = Seed(seed);
        let mut caller = Caller::new(seed ^ 0x6b69_6c6c);
        let mut sim = Sim::new();
        let mut engine = sim.open();
        for _life in 0..3 {
            sim.disk.power_off_at(100 + caller.random.below(200));
            caller.run(&engine, 60);
            let image = sim.disk.crash(CrashMode::ProcessKill);
            caller.claims.clear();
            drop(engine);
            sim = sim.on(image);
            engine = sim.open();
            caller.check(&engine);
            // The engine makes durable what it read from the page cache before it answers.
            let image = sim.disk.crash(CrashMode::LoseAllUnsynced);
            drop(engine);
            sim = sim.on(image);
            engine = sim.open();
            caller.check(&engine);
        }
    }
}

/// The power fails during the sync of a group with many changes. All of them are there or none, and
/// every earlier change that was acknowledged.
#[test]
fn a_group_is_there_whole_or_not_at_all() {
    const CALLERS: usize = 24;
    let mut outcomes = BTreeSet::new();
    for round in 0..4_u64 {
        let sim = Sim::new();
        let held = HeldDisk::new(sim.disk.clone(), "journal");
        let engine = sim.options().disk(Arc::new(held.clone())).open("/store").unwrap();
        // Segments are prepared before anything is folded: from here on all syncs are of groups.
        engine.fold().unwrap();
        held.hold();
        let first = engine.begin(&key("first"), body("a"));
        held.wait_for_sync();
        // These begins are queued while the first sync runs, and are the next group, of one or
        // several blocks.
        let label = "x".repeat(1 + 60 * round as usize);
        let name = |caller: usize| key(format!("{label} {caller}"));
        let group: Vec<_> =
            (0..CALLERS).map(|caller| engine.begin(&name(caller), body("a"))).collect();
        sim.disk.inject(Fault::at_kind(OpKind::Sync, 1).on_path("journal-0000").power_off());
        held.release();
        assert!(matches!(first.wait().unwrap(), Begin::Claimed(_)));
        for pending in group {
            assert_eq!(pending.wait().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        }
        for seed in 0..40 {
            let _named = Seed(seed);
            let image = sim.disk.crash(CrashMode::PowerLoss { seed: seed << 2 | round });
            let engine = sim.on(image).open();
            let known = |name: &oncekey::Key| !matches!(engine.get(name).unwrap(), Lookup::Absent);
            assert!(known(&key("first")));
            let there = (0..CALLERS).filter(|caller| known(&name(*caller))).count();
            assert!(there == 0 || there == CALLERS, "{there} of {CALLERS}, round {round}");
            outcomes.insert((round, there));
        }
    }
    assert_eq!(outcomes.len(), 8, "both ends of every group were met: {outcomes:?}");
}

/// Every token that a caller sees is greater than all before it, whatever was lost in between.
#[test]
fn tokens_grow_over_crashes() {
    for seed in seeds(0..60) {
        let _named = Seed(seed);
        let mut random = Random::new(seed ^ 0x746f_6b65);
        let mut sim = Sim::new();
        let mut last = None;
        for _life in 0..6 {
            sim.disk.power_off_at(random.below(150));
            let opened = sim.options().open("/store");
            if let Ok(engine) = &opened {
                for number in 0..random.below(40) as u32 {
                    let name =
                        key([&random.below(256).to_le_bytes()[..], &number.to_le_bytes()].concat());
                    let begun = engine.begin(&name, body("a")).wait();
                    if let Ok(Begin::Claimed(claim)) = begun {
                        assert!(last < Some(claim.token()), "{last:?} before {}", claim.token());
                        last = Some(claim.token());
                        if random.below(4) == 0 {
                            drop(engine.fold());
                        }
                        drop(claim.abort().wait());
                    }
                }
            }
            let image = sim.disk.crash(CrashMode::PowerLoss { seed: random.below(u64::MAX) });
            drop(opened);
            sim = sim.on(image);
        }
    }
}
