//! Linearizability: threads hammer few keys while the disk fails, the engine is reopened, the
//! process is killed and the power goes; what they were told must have an order that the state
//! machine allows.
//!
//! `ONCEKEY_SEEDS=0..5000 cargo test --release -p oncekey --test linear` runs the campaign. The seed
//! decides what every thread does and where the disk fails, not how the threads are interleaved.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::thread;
use std::time::Duration;

use common::caller::Caller;
use common::*;
use oncekey::{Claim, Engine};
use oncekey_testing::{CrashMode, Fault, History, OpKind};

const KEYS: u8 = 3;
const THREADS: u64 = 4;
const PHASES: u64 = 5;
const STEPS: u64 = 10;

/// Something goes wrong while the threads run, or nothing does.
fn arm(sim: &Sim, random: &mut Random) {
    let nth = random.below(60);
    match random.below(6) {
        0 => sim.disk.inject(Fault::at_kind(OpKind::Sync, nth / 2).errno(Fault::EIO).drop_dirty()),
        1 => sim.disk.inject(Fault::at_change(nth).errno(Fault::EIO).applied()),
        2 => sim.disk.inject(Fault::at_change(nth).errno(Fault::ENOSPC).partial(4096)),
        3 => sim.disk.inject(Fault::at_change(nth).panic()),
        4 => sim.disk.power_off_at(nth),
        _ => {}
    }
}

#[test]
fn what_threads_are_told_has_an_order_that_the_model_allows() {
    let mut calls = 0;
    for seed in seeds(0..300) {
        let _named = Seed(seed);
        let mut random = Random::new(seed);
        let history = History::new();
        let mut sim = Sim::new();
        let mut engine = sim.open();
        let mut claims: Vec<Vec<_>> = (0..THREADS).map(|_| Vec::new()).collect();
        for _phase in 0..PHASES {
            arm(&sim, &mut random);
            let callers: Vec<_> = claims
                .drain(..)
                .map(|claims| {
                    let random = Random::new(random.below(u64::MAX));
                    Caller { engine: &engine, sink: &history, random, keys: KEYS, claims }
                })
                .collect();
            claims = thread::scope(|scope| {
                let threads: Vec<_> =
                    callers.into_iter().map(|caller| scope.spawn(|| caller.run(STEPS))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            restart(&mut sim, &mut engine, &mut claims, &mut random);
            let advance = 20_000 * random.below(3);
            sim.clock.advance(Duration::from_millis(advance));
            history.restart(advance);
        }
        calls += history.calls();
        if let Err(violation) = history.check(TTL.as_millis() as u64) {
            panic!("{violation:?}");
        }
    }
    eprintln!("{calls} calls");
}

/// In place, where claims live on; as after a kill, a power loss or a close, where they do not.
fn restart(
    sim: &mut Sim,
    engine: &mut Engine,
    claims: &mut [Vec<(u8, Claim)>],
    random: &mut Random,
) {
    if !sim.disk.is_powered_off() && random.below(2) == 0 {
        sim.disk.clear_faults();
        return engine.reopen().unwrap();
    }
    let image = match random.below(4) {
        0 if !sim.disk.is_powered_off() => {
            sim.disk.clear_faults();
            drop(engine.close());
            sim.disk.crash(CrashMode::LoseAllUnsynced)
        }
        1 => sim.disk.crash(CrashMode::ProcessKill),
        _ => sim.disk.crash(CrashMode::PowerLoss { seed: random.below(u64::MAX) }),
    };
    claims.iter_mut().for_each(Vec::clear);
    *sim = sim.on(image);
    *engine = sim.open();
}
