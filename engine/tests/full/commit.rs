//! The commit of a fold finds no space in the store file.

use oncekey::Engine;
use oncekey_testing::{CrashMode, Fault, OpKind, Ops};

use crate::begin_until_claimed;
use crate::common::*;

const STORE: &str = "store.redb";
const OPEN: usize = 40;

/// A folded and a journalled record, and open rows that fill some pages: nothing of them lies in
/// other files.
fn filled(sim: &Sim) -> (Engine, Vec<oncekey::Claim>) {
    let engine = sim.open();
    fold_one_of_two(&engine);
    let held = (0..OPEN).map(|number| {
        let claim = claim(&engine, &format!("held {number}"));
        claim.checkpoint(&[number as u8; 1000]).wait().unwrap();
        claim
    });
    let held = held.collect();
    (engine, held)
}

/// Everything that was acknowledged is there after a crash, and the store is sound.
fn all_there(sim: &Sim) {
    let engine = sim.open();
    both_replay(&engine);
    for number in 0..OPEN {
        let orphan = orphan(&engine, &format!("held {number}"));
        assert_eq!(orphan.last_checkpoint().unwrap().as_deref(), Some(&[number as u8; 1000][..]));
    }
    engine.fold().unwrap();
    engine.close().unwrap();
    assert!(sim.options().verify("/store").unwrap().is_sound());
}

/// Calls `then` for each operation of a fold's commit that finds no space, after it found none.
fn at_each(kinds: &[OpKind], then: impl Fn(&Sim, Engine, Vec<oncekey::Claim>)) {
    let mut met = 0;
    for kind in kinds {
        for nth in 0.. {
            let sim = Sim::new();
            let (engine, held) = filled(&sim);
            let fault = Fault::at_kind(*kind, nth).errno(Fault::ENOSPC).partial(4096);
            sim.disk.inject(fault.on_path(STORE).forever());
            let folded = engine.fold();
            if sim.disk.faults_fired() == 0 {
                folded.unwrap();
                break;
            }
            met += 1;
            assert_eq!(folded.unwrap_err().kind(), oncekey::ErrorKind::StoreFull);
            then(&sim, engine, held);
        }
    }
    println!("{met} operations");
    assert!(met > 3, "{met}");
}

const SPACE: [OpKind; 2] = [OpKind::Write, OpKind::SetLen];

#[test]
fn only_claims_are_refused_until_there_is_space() {
    at_each(&SPACE, |sim, engine, mut held| {
        assert_eq!(begin_error(&engine, "new").kind(), oncekey::ErrorKind::StoreFull);
        both_replay(&engine);
        held.pop().unwrap().complete(b"three").wait().unwrap();
        held[0].checkpoint(b"more").wait().unwrap();
        // Every caller that waits for a fold is told each time.
        assert_eq!(engine.fold().unwrap_err().kind(), oncekey::ErrorKind::StoreFull);
        engine.sweep().unwrap();
        assert!(engine.stats().full && engine.stats().failures == 0);

        sim.disk.clear_faults();
        begin_until_claimed(&engine, "later");
        engine.fold().unwrap();
        both_replay(&engine);
        let last = format!("held {}", OPEN - 1);
        assert_eq!(replay(&engine, &last).response(), Some(&b"three"[..]));
        assert!(!engine.stats().full && engine.stats().failures == 0);
        std::mem::forget(held);
        let sim = sim.on(sim.disk.crash(CrashMode::LoseAllUnsynced));
        let engine = sim.open();
        assert_eq!(replay(&engine, &last).response(), Some(&b"three"[..]));
        assert_eq!(
            orphan(&engine, "held 0").last_checkpoint().unwrap().as_deref(),
            Some(&b"more"[..])
        );
        engine.close().unwrap();
        assert!(sim.options().verify("/store").unwrap().is_sound());
    });
}

#[test]
fn a_crash_without_space_loses_nothing() {
    at_each(&SPACE, |sim, engine, held| {
        for seed in 0..3 {
            for mode in
                [CrashMode::ProcessKill, CrashMode::LoseAllUnsynced, CrashMode::PowerLoss { seed }]
            {
                all_there(&sim.on(sim.disk.crash(mode)));
            }
        }
        std::mem::forget(held);
        // A close and a reopen leave the commit to the next open.
        assert_eq!(engine.close().unwrap_err().kind(), oncekey::ErrorKind::StoreFull);
        sim.disk.clear_faults();
        all_there(sim);
    });
}

/// The power fails at each operation that makes up for the commit.
#[test]
fn a_power_loss_while_it_is_made_up_for_loses_nothing() {
    let mut met = 0;
    for first in [0, 2] {
        for nth in 0.. {
            let sim = Sim::new();
            let (engine, held) = filled(&sim);
            let full = Fault::at_kind(OpKind::Write, first).errno(Fault::ENOSPC).partial(4096);
            sim.disk.inject(full.on_path(STORE).forever());
            engine.fold().unwrap_err();
            sim.disk.clear_faults();
            sim.disk.inject(Fault::new(Ops::Changes, nth).power_off().on_path(STORE));
            // A try that began before there was space may end now.
            let is_late = |error: &oncekey::Error| error.kind() == oncekey::ErrorKind::StoreFull;
            let mut folded = engine.fold();
            while folded.as_ref().is_err_and(is_late) {
                folded = engine.fold();
            }
            std::mem::forget(held);
            if !sim.disk.is_powered_off() {
                folded.unwrap();
                break;
            }
            met += 1;
            drop(engine);
            for mode in [CrashMode::LoseAllUnsynced, CrashMode::PowerLoss { seed: nth }] {
                all_there(&sim.on(sim.disk.crash(mode)));
            }
        }
    }
    assert!(met > 6, "{met}");
}

/// A sync that failed may have dropped writes, so the engine recovers from the journal.
#[test]
fn a_sync_without_space_fails_the_engine_and_loses_nothing() {
    for nth in 0..2 {
        let sim = Sim::new();
        let (engine, held) = filled(&sim);
        let fault = Fault::at_kind(OpKind::Sync, nth).errno(Fault::ENOSPC).drop_dirty();
        sim.disk.inject(fault.on_path(STORE));
        engine.fold().unwrap_err();
        while engine.stats().failures == 0 {
            std::thread::yield_now();
        }
        std::mem::forget(held);
        let image = sim.on(sim.disk.crash(CrashMode::LoseAllUnsynced));
        all_there(&image);
        engine.reopen().unwrap();
        drop(engine);
        all_there(&sim);
    }
}
