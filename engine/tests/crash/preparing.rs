//! Power losses while a store is created, and while segments are prepared.

use super::*;

/// A segment that a killed process prepared may be visible and not durable. After a power loss it
/// must not leave a hole before the segments that were prepared later.
#[test]
fn a_segment_that_a_killed_process_prepared_is_not_missed_after_a_power_loss() {
    for n in 0..160 {
        let sim = Sim::new();
        sim.disk.power_off_at(n);
        let opened = sim.options().open("/store");
        if let Ok(engine) = &opened {
            // Segments are prepared before anything is folded.
            drop(engine.fold());
        }
        let image = sim.disk.crash(CrashMode::ProcessKill);
        drop(opened);
        let sim = sim.on(image);
        let engine = sim.open();
        engine.fold().unwrap();
        complete(&engine, "k", b"answer");
        let image = sim.disk.crash(CrashMode::LoseAllUnsynced);
        drop(engine);
        assert_eq!(replay(&sim.on(image).open(), "k").response(), Some(&b"answer"[..]));
    }
}

#[test]
fn creation_is_atomic() {
    let total = {
        let disk = SimDisk::new();
        Sim::new().on(disk.clone()).open();
        disk.operations()
    };
    for n in 0..total {
        for seed in 0..4 {
            let sim = Sim::new();
            sim.disk.power_off_at(n);
            // Operations of the folder count, too, so the power may fail only after the opening.
            let opened = sim.options().open("/store");
            let acknowledged = opened
                .as_ref()
                .is_ok_and(|engine| engine.begin(&key("early"), body("a")).wait().is_ok());
            let image = sim.disk.crash(CrashMode::PowerLoss { seed });
            let engine = sim.on(image).open();
            if acknowledged {
                assert_ne!(describe(&engine, b"early"), "absent");
            }
            complete(&engine, "k", b"works");
        }
    }
}

/// Preparing writes zeros, syncs, writes the header, syncs. So a segment that has its header has
/// its whole length.
#[test]
fn segments_are_prepared_so_that_a_crash_leaves_them_whole_or_unused() {
    let opened = {
        let sim = Sim::new();
        let engine = sim.open();
        let operations = sim.disk.operations();
        drop(engine);
        operations
    };
    for n in 0..30 {
        for seed in 0..40 {
            let sim = Sim::new();
            sim.disk.power_off_at(opened.saturating_sub(10) + n);
            let engine = sim.options().open("/store");
            if let Ok(engine) = &engine {
                // Enough groups to use the operations up, if the folder does not.
                let begin = |n: i32| engine.begin(&key(n.to_le_bytes()), body("a")).wait();
                (0..50).all(|n| begin(n).is_ok());
            }
            let image = sim.disk.crash(CrashMode::PowerLoss { seed });
            drop(engine);
            sim.on(image).open();
        }
    }
}
