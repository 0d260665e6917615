//! A failed sync drops a growth of `store.redb`, which reads go on to show.

use super::*;

/// After the failure redb takes the length that it sees as its own, and states it in the header. The
/// length must be durable by then, or a power loss cuts the file below it.
#[test]
fn a_growth_that_a_failed_sync_dropped_is_durable_before_redb_counts_on_it() {
    const STORE: &str = "store.redb";
    let mut grown = 0;
    for held in [300, 600, 1200] {
        for nth in 0..2 {
            let sim = Sim::new();
            // No fold begins before the one that fails.
            let roomy = sim.options().recent_bytes(32 << 20).segment_bytes(16 << 20);
            let engine = roomy.open("/store").unwrap();
            fold_one_of_two(&engine);
            let claims: Vec<_> = (0..held)
                .map(|number| {
                    let claim = claim(&engine, &format!("held {number}"));
                    claim.checkpoint(&[number as u8; 1000]).wait().unwrap();
                    claim
                })
                .collect();
            sim.disk.start_trace();
            sim.disk.inject(Fault::at_kind(OpKind::Sync, nth).on_path(STORE).drop_dirty());
            while engine.stats().failures == 0 {
                let _put_off = engine.fold();
            }
            let grows = |op: &oncekey_testing::Op| {
                op.kind == OpKind::SetLen && op.path.to_string_lossy().ends_with(STORE)
            };
            grown += usize::from(sim.disk.take_trace().iter().any(grows));
            std::mem::forget(claims);
            engine.reopen().unwrap();
            for mode in [CrashMode::LoseAllUnsynced, CrashMode::PowerLoss { seed: held }] {
                let image = sim.on(sim.disk.crash(mode));
                let engine = image.open();
                both_replay(&engine);
                for number in 0..held {
                    let orphan = orphan(&engine, &format!("held {number}"));
                    let saved = orphan.last_checkpoint().unwrap();
                    assert_eq!(saved.as_deref(), Some(&[number as u8; 1000][..]));
                }
                engine.close().unwrap();
                assert!(image.options().verify("/store").unwrap().is_sound());
            }
        }
    }
    assert_eq!(grown, 6);
}
