//! Operations of the disk that fail once, and a disk that works again.

use super::*;

/// One failing operation, then everything works again: the engine refuses writes until it is
/// reopened, and then holds everything that it acknowledged.
#[test]
fn each_operation_of_a_script_failing_once() {
    type MakeFault = fn(u64) -> Fault;
    let faults: [(&str, MakeFault); 4] = [
        ("EIO", |n| Fault::at(n).errno(Fault::EIO)),
        ("EIO, but it happened", |n| Fault::at(n).errno(Fault::EIO).applied()),
        ("a sync that drops its pages", |n| Fault::at(n).errno(Fault::EIO).drop_dirty()),
        ("a write cut short", |n| Fault::at(n).errno(Fault::ENOSPC).partial(4096)),
    ];
    for (name, fault) in faults {
        let total = {
            let sim = Sim::new();
            let engine = sim.open();
            let before = sim.disk.operations();
            Caller::new(7).run(&engine, 60);
            sim.disk.operations() - before
        };
        for n in (0..total).step_by(3) {
            let sim = Sim::new();
            let engine = sim.open();
            let mut caller = Caller::new(7);
            sim.disk.inject(fault(n));
            let unharmed = caller.run(&engine, 60);
            sim.disk.clear_faults();
            if !unharmed {
                assert_refusing(&engine, name, n);
            }
            // A page cache that shows what a failed sync dropped must not deceive the reopening.
            engine.reopen().unwrap_or_else(|error| panic!("{name} at {n}: {error:?}"));
            caller.check(&engine);
            let image = sim.disk.crash(CrashMode::LoseAllUnsynced);
            drop(engine);
            let engine = sim.on(image).open();
            caller.check(&engine);
        }
    }
}

/// A failure latches: writes are refused, reads go on or fail, and nothing is "absent" by mistake.
fn assert_refusing(engine: &Engine, name: &str, n: u64) {
    let refused = engine.begin(&key("never used"), body("a")).wait();
    if let Err(error) = refused {
        assert!(
            matches!(
                error.kind(),
                ErrorKind::Unavailable
                    | ErrorKind::StoreFull
                    | ErrorKind::OutcomeUnknown
                    // No segment could be prepared.
                    | ErrorKind::Io
            ),
            "{name} at {n}: {error:?}"
        );
    }
}
