//! Recovery of a journal with arbitrary groups, whole and torn, behind real ones: an error or a
//! store that works.
#![no_main]

#[path = "../../engine/tests/common/mod.rs"]
mod common;

use common::Sim;
use libfuzzer_sys::fuzz_target;
use oncekey::Begin;

// redb may panic on damage, which the engine makes an error; libFuzzer's hook would end the process.
// A panic of the target itself still does.
fuzz_target!(init: std::panic::set_hook(Box::new(|info| eprintln!("{info}"))), |bytes: &[u8]| {
    let sim = Sim::new();
    let engine = sim.open();
    common::complete(&engine, "known", b"answer");
    let held = common::claim(&engine, "held");
    drop(engine);
    // The engine is gone: the drop changes nothing.
    drop(held);
    let mut rest = bytes;
    while let [entries, raw, length, tail @ ..] = rest {
        let (payload, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        if raw % 4 == 0 {
            // Not a group, but any bytes anywhere in the segment.
            let block = u64::from(raw / 4) % 31 + 1;
            sim.disk.write_bytes("/store/journal-0000.seg", 4096 * block, payload);
        } else if oncekey::fuzzing::append_group(
            &sim.options(),
            "/store".as_ref(),
            payload,
            u32::from(*entries),
        )
        .is_err()
        {
            break;
        }
    }
    let Ok(engine) = sim.options().open_existing("/store") else { return };
    for name in ["known", "held", "new"] {
        if let Ok(Begin::Claimed(claim)) =
            engine.begin(&common::key(name), common::body("a")).wait()
        {
            let _ = claim.complete(b"again").wait();
        }
    }
    let _ = engine.fold();
});
